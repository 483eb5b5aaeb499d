"""Where the truth is known: a Gaussian prior, a linear decoder, an exact noise predictor."""

from __future__ import annotations

import pytest
import torch
from linear_gaussian import LATENTS, LinearGaussian, estimates

from latentiqa.guidance import DPS, MPGD, PMG, PSLD, FreeDoM, NoGuidance, StepSize
from latentiqa.trajectory import Timesteps

TIMESTEPS = Timesteps(list(range(980, -1, -20)))
OFF = StepSize(0.0)


@pytest.fixture(scope="module")
def model():
    return LinearGaussian()


def final_distance(model, guidance) -> float:
    return model.distance(estimates(model, guidance, TIMESTEPS)[TIMESTEPS.values[-1]])


@pytest.fixture(scope="module")
def unguided(model):
    return final_distance(model, NoGuidance())


def test_the_noise_predictor_is_exact(model):
    """Tweedie's estimate is the mean of z_0 given z_t, by the formula of conditional Gaussians."""
    z_t = torch.randn(3, *LATENTS, generator=torch.Generator().manual_seed(0)).double()
    abar = model.rates(500).signal ** 2
    covariance = abar * model.s + (1 - abar) * torch.eye(16)
    centred = z_t.flatten(1) - abar**0.5 * model.mu
    expected = model.mu + abar**0.5 * centred @ torch.linalg.inv(covariance) @ model.s
    found = model.maps(z_t, 500, None, None)["estimate"].flatten(1)
    torch.testing.assert_close(found, expected)


def test_the_posterior_mean_has_the_highest_posterior(model):
    z = model.posterior_mean().requires_grad_()
    misfit = (model.picture - model.decode(z.view(1, *LATENTS))).square().sum() / model.sigma**2
    centred = z - model.mu
    (misfit + centred @ torch.linalg.solve(model.s, centred)).backward()
    assert z.grad is not None
    assert z.grad.abs().max() < 1e-9


SUITABLE = {
    "pmg": (PMG(measurement=StepSize(0.1, "raw")), 0.3),
    "pmg, normalised": (PMG(measurement=StepSize(0.03)), 0.35),
    "pmg, noise": (PMG(measurement=StepSize(0.1, "raw", schedule="noise")), 0.3),
    "pmg, linear": (PMG(measurement=StepSize(0.2, "raw", schedule="linear")), 0.4),
    "pmg, cosine": (PMG(measurement=StepSize(0.2, "raw", schedule="cosine")), 0.4),
    "pmg, window": (PMG(measurement=StepSize(0.1, "raw", window=[600, 0])), 0.3),
    "pmg, repeats": (PMG(measurement=StepSize(0.05, "raw"), repeats=2), 0.3),
    "pmg, score": (PMG(measurement=StepSize(0.1, "raw"), route="score"), 0.3),
    "pmg, latents": (PMG(measurement=StepSize(0.02, "raw"), measured_in="latents"), 0.45),
    "pmg, psi": (PMG(lambda image, _: [image], OFF, StepSize(0.1, "raw")), 0.3),
    "dps": (DPS(1.0), 0.3),
    "psld": (PSLD(0.3, 0.03), 0.35),
    "mpgd": (MPGD(StepSize(0.02, "raw")), 0.45),
    "mpgd, ldm": (MPGD(StepSize(0.1, "raw"), projection="ldm"), 0.3),
    "freedom": (FreeDoM(step_size=StepSize(0.03), passes_each=2), 0.45),
}
"""Guidance at a suitable step size, and how near to the posterior mean it must come.

1 is as far as the prior's mean, 0.5 about as far as E(y). Measurements in latents and MPGD's
projection weigh all directions alike, however badly the decoder sees them, and come less near.
"""


@pytest.mark.parametrize("name", SUITABLE)
def test_the_guided_estimate_approaches_the_posterior_mean(model, unguided, name):
    guidance, tolerance = SUITABLE[name]
    assert final_distance(model, guidance) < tolerance < unguided / 1.5


def test_it_gets_nearer_over_the_trajectory(model):
    guided = estimates(model, PMG(measurement=StepSize(0.1, "raw")), TIMESTEPS)
    distances = [model.distance(guided[t]) for t in (980, 800, 600, 400)]
    assert distances == sorted(distances, reverse=True)


def test_steps_that_are_too_long_fit_the_noise(model):
    """They end at E(y), which is farther from the posterior mean than shorter ones get."""
    guided = estimates(model, PMG(measurement=StepSize(0.4, "raw")), TIMESTEPS)[0]
    fitted = model.encode(model.picture).flatten()
    assert (guided - fitted).norm() < 0.35 * (fitted - model.posterior_mean()).norm()
    assert model.distance(guided) > final_distance(model, PMG(measurement=StepSize(0.1, "raw")))
