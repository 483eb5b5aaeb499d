"""Each peer against its formula, or against the options of PMG that it coincides with."""

from __future__ import annotations

import pytest
import torch

from latentiqa.errors import ConfigError
from latentiqa.guidance import DPS, MPGD, PMG, PSLD, FreeDoM, StepSize
from latentiqa.perceptual.sd import BackboneFeatures
from latentiqa.trajectory import Step, add_noise, tweedie

T, T_PREV = 60, 20
OFF = StepSize(0.0)
SD = BackboneFeatures()


@pytest.fixture
def image():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, 64, 64, generator=generator, dtype=torch.float64)


def make_step(model, image) -> Step:
    """A step with the graph from z_t."""
    rates = model.rates(T)
    with torch.no_grad():
        z0 = model.encode(image)
        noise = torch.randn(z0.shape, generator=torch.Generator().manual_seed(0)).double()
        z_t = add_noise(z0, noise, rates)
    noise, _ = model.predict_noise(z_t.requires_grad_(), T, model.context("", len(z_t)))
    return Step(T, z_t, noise, tweedie(z_t, noise, rates), rates, model.rates(T_PREV))


def moves(guidance, model, image):
    """How far the estimate is moved, and with it the next latents."""
    step = make_step(model, image)
    move = step.z0.detach() - guidance.bind(image, model)(step).detach()
    return move, move * model.rates(T_PREV).signal


def norm(x):
    return x.flatten(1).norm(dim=1)


def test_dps_moves_the_next_latents_by_the_gradient_of_the_norm(micro64, image):
    step = make_step(micro64, image)
    error = norm(image - micro64.decode(step.z0)).sum()
    expected = 0.7 * torch.autograd.grad(error, step.z_t)[0]
    torch.testing.assert_close(moves(DPS(0.7), micro64, image)[1], expected)


def test_psld_adds_the_gluing_term(micro64, image):
    """With the operator being the identity, A^T y + (I - A^T A) D(z) is y."""
    step = make_step(micro64, image)
    decoded = micro64.decode(step.z0)
    glued = micro64.encode(image + (decoded - decoded))
    error = 0.7 * norm(image - decoded) + 0.2 * norm(step.z0 - glued)
    expected = torch.autograd.grad(error.sum(), step.z_t)[0]
    torch.testing.assert_close(moves(PSLD(0.7, 0.2), micro64, image)[1], expected)


def test_mpgd_of_latents_is_pmgs_measurement_term(micro64, image):
    size = StepSize(0.05)
    mpgd, pmg = MPGD(size, projection="ldm"), PMG(measurement=size)
    assert torch.equal(*(moves(guidance, micro64, image)[0] for guidance in (mpgd, pmg)))


def test_mpgd_projects_a_step_in_pixels_by_the_autoencoder(micro64, image):
    step = make_step(micro64, image)
    with torch.no_grad():
        x = micro64.decode(step.z0)
    x.requires_grad_()
    (slope,) = torch.autograd.grad((x - image).square().sum(), x)
    with torch.no_grad():
        expected = micro64.encode(x - 0.1 * slope)
        found = MPGD(StepSize(0.1, "raw")).bind(image, micro64)(step)
    torch.testing.assert_close(found, expected)


def test_freedom_without_travelling_is_pmgs_perceptual_term_of_the_norm(micro64, image):
    size = StepSize(0.05)
    freedom = FreeDoM(SD, size, passes_each=1)
    pmg = PMG(SD, OFF, size, route="score", perceptual_distance="l2")
    found, expected = (moves(guidance, micro64, image)[0] for guidance in (freedom, pmg))
    torch.testing.assert_close(found, expected)


def test_freedom_travels_inside_its_window():
    freedom = FreeDoM(passes_each=3, travel_window=[70, 40])
    assert [freedom.passes(t) for t in (71, 70, 40, 39)] == [1, 3, 3, 1]
    assert FreeDoM(passes_each=3).passes(999) == 3
    assert PMG().passes(50) == 1


@pytest.mark.parametrize("guidance", [MPGD, FreeDoM])
def test_outside_the_window_nothing_moves(micro64, image, guidance):
    closed = guidance(step_size=StepSize(0.1, window=[T - 1, 0]))
    assert moves(closed, micro64, image)[0].abs().max() == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DPS(-1), "guidance.scale=-1: expected a finite value"),
        (lambda: PSLD(omega=float("inf")), "guidance.omega=inf"),
        (lambda: PSLD(gamma=-1), "guidance.gamma=-1"),
        (lambda: MPGD(projection="x"), "projection='x': expected 'ldm' or 'autoencoder'"),
        (lambda: FreeDoM(passes_each=0), "passes_each=0: expected an integer >= 1"),
        (lambda: FreeDoM(travel_window=[1, 2]), r"travel_window=\[1, 2\]: expected two"),
    ],
)
def test_bad_values_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
