"""EDICT and DDIM: against the equations, exact inverses, gradients, memory."""

from __future__ import annotations

import pytest
import torch
from memory_tracking import TensorMemory
from pipelines import write_pipeline

from latentiqa.backbones.source import family_of
from latentiqa.backbones.stable_diffusion import StableDiffusion
from latentiqa.enhance.edict import EDICT
from latentiqa.enhance.inversion import DDIM
from latentiqa.errors import ConfigError

PROMPT = "a sharp photo"


@pytest.fixture
def z0(micro64, pictures):
    return micro64.encode(pictures[0][:1].double())


def brute_force_edict(backbone, pair, steps, p):
    """The paper's denoising process written out, from the scheduler's own alphas."""
    x, y = pair
    abar = backbone.scheduler.alphas_cumprod.double()
    embedding = backbone.context(PROMPT)["encoder_hidden_states"]
    spacing = 1000 // steps
    for k in range(steps, 0, -1):
        t = 1 + (k - 1) * spacing
        now = abar[t]
        before = abar[t - spacing] if k > 1 else torch.tensor(1.0, dtype=torch.float64)
        a = (before / now).sqrt()
        b = (1 - before).sqrt() - (before * (1 - now) / now).sqrt()
        names = "xy" if k % 2 else "yx"
        z = {"x": x, "y": y}
        one, other = names
        z[one] = a * z[one] + b * backbone.unet(z[other], t, embedding).sample
        z[other] = a * z[other] + b * backbone.unet(z[one], t, embedding).sample
        z[one] = p * z[one] + (1 - p) * z[other]
        z[other] = p * z[other] + (1 - p) * z[one]
        x, y = z["x"], z["y"]
    return torch.stack([x, y])


def test_edict_is_what_the_paper_writes(micro64, z0):
    generator = torch.Generator().manual_seed(0)
    pair = torch.randn(2, *z0.shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        expected = brute_force_edict(micro64, pair, steps=5, p=0.93**10)
        for memory in EDICT.MEMORIES:
            chain = EDICT(steps=5, prompt=PROMPT, memory=memory)
            torch.testing.assert_close(chain.denoise(micro64, pair), expected, rtol=1e-9, atol=1e-9)
        assert not torch.allclose(EDICT(steps=5).denoise(micro64, pair), expected, rtol=1e-6)


def test_edict_is_inverted_exactly_over_fifty_steps(micro64, z0):
    chain = EDICT(steps=50, prompt=PROMPT)
    state = chain.invert(micro64, z0)
    assert state.shape == (2, *z0.shape)
    with torch.no_grad():
        found = chain.denoise(micro64, state)
    assert (found - z0).abs().max() < 1e-6
    # Not for having stood still.
    assert (state - z0).abs().max() > 0.1


@pytest.fixture
def micro32(micro_folder):
    return StableDiffusion.from_folder(micro_folder)


def test_states_in_double_precision_serve_a_model_in_single_precision(micro32, pictures):
    chain = EDICT(steps=20)
    z0 = micro32.encode(pictures[0][:1])
    errors = {}
    for dtype in (torch.float32, torch.float64):
        state = chain.invert(micro32, z0.to(dtype))
        assert state.dtype == dtype
        with torch.no_grad():
            errors[dtype] = (chain.denoise(micro32, state) - z0).abs().max().item()
    # What is left is the model's: an input next to where float32 rounds the other way.
    assert errors[torch.float64] < 1e-5
    assert errors[torch.float64] < errors[torch.float32] < 1e-2


def test_plain_ddim_inversion_is_one_iteration_and_more_come_nearer(micro64, z0):
    def error(iterations: int) -> float:
        chain = DDIM(steps=5, prompt=PROMPT, iterations=iterations)
        with torch.no_grad():
            return (chain.denoise(micro64, chain.invert(micro64, z0)) - z0).abs().max().item()

    plain, two, many = error(1), error(2), error(12)
    assert plain > two > 10 * many > 0


def test_a_plain_step_predicts_the_noise_where_it_stands(micro64, z0):
    chain = DDIM(steps=1, prompt=PROMPT)
    abar = micro64.scheduler.alphas_cumprod[1].double()
    noise = micro64.predict_noise(z0, 1, micro64.context(PROMPT))[0]
    expected = abar.sqrt() * z0 + (1 - abar).sqrt() * noise
    torch.testing.assert_close(chain.invert(micro64, z0)[0], expected)


@pytest.mark.parametrize(
    "chain", [EDICT(steps=4, memory="inverse"), EDICT(steps=4, memory="checkpoint"), DDIM(steps=4)]
)
def test_gradients_are_those_of_plain_autograd(micro64, z0, chain):
    weights = torch.randn(chain.COPIES, *z0.shape, dtype=torch.float64)
    state = chain.invert(micro64, z0)
    plain = type(chain)(steps=chain.steps, memory="plain")
    grads = []
    for one in (chain, plain):
        leaf = state.clone().requires_grad_()
        (grad,) = torch.autograd.grad((one.denoise(micro64, leaf) * weights).sum(), leaf)
        grads.append(grad)
    torch.testing.assert_close(*grads, rtol=1e-8, atol=1e-10)
    assert grads[0].abs().max() > 0


def test_the_inverse_in_single_precision_is_as_near_to_double_as_the_graph(
    micro32, micro64, pictures
):
    z0 = micro64.encode(pictures[0][:1].double())

    def gradient(backbone, memory):
        chain = EDICT(steps=10, memory=memory)
        leaf = chain.invert(backbone, z0).requires_grad_()
        return torch.autograd.grad(chain.denoise(backbone, leaf).square().sum(), leaf)[0]

    exact = gradient(micro64, "plain")
    errors = {m: (gradient(micro32, m) - exact).norm() for m in ("inverse", "plain")}
    # Either rounds in its own places; 1 to 2 times, on three CPUs.
    assert errors["inverse"] < 4 * errors["plain"] < 4e-4 * exact.norm()


def peak(backbone, chain, z0) -> int:
    state = chain.invert(backbone, z0).requires_grad_()
    with TensorMemory() as memory:
        chain.denoise(backbone, state).sum().backward()
    return memory.peak


def test_memory_is_flat_with_the_inverse_and_grows_without(micro64, z0):
    few, many = (peak(micro64, EDICT(steps=n), z0) for n in (2, 12))
    assert many < 1.02 * few
    kept = [peak(micro64, EDICT(steps=n, memory="plain"), z0) for n in (2, 6)]
    assert kept[1] > 2.5 * kept[0]
    # A state a step, far less than a graph a step.
    ddim = [peak(micro64, DDIM(steps=n), z0) for n in (2, 6)]
    assert ddim[1] - ddim[0] < 4 * 4 * z0.nbytes


def test_a_chain_to_an_intermediate_timestep_is_the_beginning_of_the_whole(micro64, z0):
    part, whole = EDICT(steps=10, at=250), EDICT(steps=10)
    assert part.timesteps == (1, 101, 201)
    middle = part.invert(micro64, z0)
    assert not torch.allclose(middle, whole.invert(micro64, z0))
    with torch.no_grad():
        assert (part.denoise(micro64, middle) - z0).abs().max() < 1e-9
    none = EDICT(at=0).invert(micro64, z0)
    assert torch.equal(none, torch.stack([z0, z0]))
    leaf = none.requires_grad_()
    (grad,) = torch.autograd.grad(EDICT(at=0).denoise(micro64, leaf).sum(), leaf)
    assert torch.equal(grad, torch.ones_like(grad))


def test_a_rectified_flow_is_inverted_exactly(tmp_path, pictures):
    write_pipeline("sd3", tmp_path / "sd3")
    flow = family_of(tmp_path / "sd3").from_folder(tmp_path / "sd3", dtype=torch.float64)
    z0, chain = flow.encode(pictures[0][:1].double()), EDICT(steps=10)
    with torch.no_grad():
        assert (chain.denoise(flow, chain.invert(flow, z0)) - z0).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("kind", "wrong", "told"),
    [
        (EDICT, {"steps": 0}, "steps=0: expected an integer >= 1"),
        (EDICT, {"steps": 501}, r"steps=501: expected an integer in 1\.\.500"),
        (EDICT, {"mixing": 0.0}, r"mixing=0.0: expected a value in \(0, 1\]"),
        (EDICT, {"memory": "none"}, "memory='none': expected one of inverse, checkpoint, plain"),
        (DDIM, {"memory": "inverse"}, "memory='inverse': expected one of checkpoint, plain"),
        (DDIM, {"iterations": 0}, "iterations=0: expected an integer >= 1"),
        (DDIM, {"at": -1}, "at=-1: expected an integer >= 0"),
    ],
)
def test_wrong_values(kind, wrong, told):
    with pytest.raises(ConfigError, match=told):
        kind(**wrong)
