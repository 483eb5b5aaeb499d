from __future__ import annotations

import pytest
import torch

from latentiqa.errors import ConfigError
from latentiqa.guidance import PMG, NoGuidance, StepSize
from latentiqa.guidance.step_size import rms
from latentiqa.perceptual.nss import NSS
from latentiqa.perceptual.sd import BackboneFeatures
from latentiqa.trajectory import Step, Timesteps, add_noise, trajectory, tweedie

T, T_PREV = 60, 20
RAW, OFF = StepSize(1.0, "raw"), StepSize(0.0)
SD = BackboneFeatures(layers=["down.*.resnet.*"], timestep=10)


@pytest.fixture
def setting(micro64):
    """Two pictures in float64, their noisy latents and the U-Net's noise prediction."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 64, 64, generator=generator, dtype=torch.float64)
    noise = torch.randn(2, 4, 8, 8, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        z_t = add_noise(micro64.encode(image), noise, micro64.rates(T))
    return micro64, image, z_t


def make_step(model, z_t, through_unet) -> Step:
    with torch.set_grad_enabled(through_unet):
        z_t = z_t.detach().requires_grad_(through_unet)
        noise, _ = model.predict_noise(z_t, T, model.context("", len(z_t)))
        rates = model.rates(T)
        return Step(T, z_t, noise, tweedie(z_t, noise, rates), rates, model.rates(T_PREV))


def value_of_term(kind, model, image, z0, psi):
    """The formula of the paper, written out once more."""
    decoded = model.decode(z0)
    if kind == "measurement":
        return ((image - decoded) ** 2).sum(dim=(1, 2, 3))
    pairs = zip(psi(image, model), psi(decoded, model), strict=True)
    return sum(((a - b) ** 2).flatten(1).sum(1) for a, b in pairs)


@pytest.mark.parametrize("route", ["latent", "score"])
@pytest.mark.parametrize(
    ("kind", "psi"),
    [("measurement", None), ("perceptual", SD), ("perceptual", NSS())],
    ids=["measurement", "sd", "nss"],
)
def test_gradients_equal_finite_differences(setting, route, kind, psi):
    """A raw step of size 1 moves by the gradient: along random directions it is checked."""
    model, image, z_t = setting
    sizes = {"measurement": OFF, "perceptual": OFF} | {kind: RAW}
    pmg = PMG(psi=psi, route=route, **sizes)
    step = make_step(model, z_t, pmg.through_unet)
    gradient = (step.z0 - pmg.bind(image, model)(step)).detach()

    def term(variable):
        with torch.no_grad():
            if route == "latent":
                return value_of_term(kind, model, image, variable, psi)
            moved = make_step(model, variable, False)
            return value_of_term(kind, model, image, moved.z0, psi)

    start = (step.z0 if route == "latent" else step.z_t).detach()
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        direction = torch.randn(start.shape, generator=generator, dtype=torch.float64)
        h = 1e-6
        numeric = (term(start + h * direction) - term(start - h * direction)) / (2 * h)
        analytic = (gradient * direction).sum(dim=(1, 2, 3))
        torch.testing.assert_close(analytic, numeric, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("route", ["latent", "score"])
def test_the_perceptual_term_acts_where_the_measurement_term_has_led(setting, route):
    """z' = z0 - zeta1 grad1(z0); z'' = z' - zeta2 grad2(z'), with autograd written out."""
    model, image, z_t = setting
    sizes = {"measurement": StepSize(1e-3, "raw"), "perceptual": StepSize(2e-2, "raw")}
    pmg = PMG(psi=SD, route=route, **sizes)
    guided = pmg.bind(image, model)(make_step(model, z_t, pmg.through_unet))

    step = make_step(model, z_t, route == "score")
    variable = step.z_t if route == "score" else step.z0.detach().requires_grad_()
    z0 = step.z0 if route == "score" else variable
    loss = value_of_term("measurement", model, image, z0, None).sum()
    z1 = z0 - 1e-3 * torch.autograd.grad(loss, variable, retain_graph=True)[0]
    if route == "latent":
        z1 = variable = z1.detach().requires_grad_()
    loss = value_of_term("perceptual", model, image, z1, SD).sum()
    z2 = z1 - 2e-2 * torch.autograd.grad(loss, variable)[0]
    torch.testing.assert_close(guided, z2.detach())
    assert not guided.requires_grad


@pytest.mark.parametrize("route", ["latent", "score"])
def test_a_normalised_step_has_the_relative_size_asked_for(setting, route):
    model, image, z_t = setting
    pmg = PMG(measurement=StepSize(0.03), perceptual=OFF, route=route)
    step = make_step(model, z_t, pmg.through_unet)
    move = step.z0.detach() - pmg.bind(image, model)(step)
    torch.testing.assert_close(rms(move), 0.03 * rms(step.z0.detach()))


def test_normalisation_is_each_pictures_own(setting):
    model, image, z_t = setting
    pmg = PMG(psi=SD)
    pair = pmg.bind(image, model)(make_step(model, z_t, False))
    for i in (0, 1):
        alone = pmg.bind(image[i : i + 1], model)(make_step(model, z_t[i : i + 1], False))
        torch.testing.assert_close(pair[i : i + 1], alone)


def test_small_steps_lower_their_term(setting):
    model, image, z_t = setting
    for kind, psi in (("measurement", None), ("perceptual", SD)):
        sizes = {"measurement": OFF, "perceptual": OFF} | {kind: StepSize(0.01)}
        step = make_step(model, z_t, False)
        guided = PMG(psi=psi, **sizes).bind(image, model)(step)
        before = value_of_term(kind, model, image, step.z0, psi)
        after = value_of_term(kind, model, image, guided, psi)
        assert (after < before).all()


def test_weight_zero_costs_nothing_and_changes_nothing(setting):
    model, image, z_t = setting
    decoded = []
    hook = model.vae.decoder.register_forward_hook(lambda *_: decoded.append(1))
    step = make_step(model, z_t, False)
    guided = PMG(psi=SD, measurement=OFF, perceptual=OFF).bind(image, model)(step)
    hook.remove()
    assert torch.equal(guided, step.z0)
    assert decoded == []


def test_a_vanishing_gradient_moves_nothing():
    z0 = torch.ones(1, 4, 2, 2)
    step = Step(T, z0, z0, z0, 0.5, 0.6)
    assert torch.equal(StepSize(0.1).move(z0, torch.zeros_like(z0), step), torch.zeros_like(z0))


def test_guidance_changes_the_trajectory_and_none_does_not(tiny, pictures):
    image, names = pictures
    with torch.no_grad():
        z0 = tiny.encode(image)

    def features(guidance):
        steps = trajectory(
            tiny, z0, Timesteps([60, 20]), names=names, context=tiny.context("", 8),
            taps=["mid.attn.0"], guide=guidance.bind(image, tiny),
            through_unet=guidance.through_unet,
        )  # fmt: skip
        return [maps["mid.attn.0"] for _, maps in steps]

    plain, guided = features(NoGuidance()), features(PMG(psi=SD))
    assert torch.equal(plain[0], guided[0])  # nothing was corrected yet
    assert not torch.allclose(plain[1], guided[1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StepSize(-1.0), "weight=-1.0"),
        (lambda: StepSize(float("nan")), "weight=nan"),
        (lambda: StepSize(0.1, "l2"), "normalisation='l2'"),
        (lambda: PMG(route="both"), "route='both'"),
        (lambda: BackboneFeatures(layers=[]), r"layers=\[\]"),
        (lambda: BackboneFeatures(timestep=1000), "perceptual.timestep=1000"),
    ],
)
def test_bad_values_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
