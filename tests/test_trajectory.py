from __future__ import annotations

import json
import shutil

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from latentiqa.backbones.process import Rates, RectifiedFlow, process_of
from latentiqa.backbones.stable_diffusion import StableDiffusion
from latentiqa.errors import ConfigError
from latentiqa.noise import image_noise
from latentiqa.trajectory import Timesteps, add_noise, ddim_sigma, ddim_step, trajectory, tweedie

TIMESTEPS = list(range(991, 0, -110))  # 991, 881, ..., 1: as diffusers' DDIM walks with 10 steps


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": []}, "one or more integers"),
        ({"values": [1000]}, "one or more integers"),
        ({"values": [10, 20]}, "strictly falling"),
        ({"values": [10, 10]}, "strictly falling"),
        ({"values": [20, 10], "use": [30]}, "timesteps.use"),
        ({"values": [20, 10], "use": []}, "timesteps.use"),
        ({"values": [20, 10], "eta": 1.5}, "timesteps.eta"),
        ({"values": [20, 10], "noised": 0}, "timesteps.noised"),
    ],
)
def test_bad_timesteps_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Timesteps(**arguments)


def test_tweedie_undoes_the_noising_exactly():
    z0, noise = torch.randn(2, 4, 8, 8, dtype=torch.float64), torch.randn(2, 4, 8, 8).double()
    for rates in (Rates(0.6, 0.8), Rates(0.3, 0.7)):
        torch.testing.assert_close(tweedie(add_noise(z0, noise, rates), noise, rates), z0)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_ddim_equals_diffusers_scheduler(micro_folder, tmp_path, eta, prediction_type):
    folder = tmp_path / "model"
    shutil.copytree(micro_folder, folder)
    config = folder / "scheduler" / "scheduler_config.json"
    changed = {"prediction_type": prediction_type, "steps_offset": 1}
    config.write_text(json.dumps(json.loads(config.read_text()) | changed))
    model = StableDiffusion.from_folder(folder)
    scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    scheduler.set_timesteps(10)
    values = scheduler.timesteps.tolist()
    names, shape = ["a", "b"], (4, 8, 8)
    context = model.context("", 2)
    z0 = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))

    seen = []

    def observe(step):
        seen.append(step.z_t)
        return step.z0

    for _ in trajectory(
        model,
        z0,
        Timesteps(values, eta=eta),
        names=names,
        context=context,
        taps=["mid.attn.0"],
        guide=observe,
    ):
        pass

    start = image_noise(names, values[0], shape)
    z_t = scheduler.add_noise(z0, start, torch.tensor(values[0]))
    for i, t in enumerate(values[:-1]):
        torch.testing.assert_close(seen[i], z_t, atol=1e-5, rtol=1e-5)
        with torch.no_grad():
            output = model.unet(z_t, t, **context).sample
        fresh = image_noise(names, values[i + 1], shape)
        z_t = scheduler.step(output, t, z_t, eta=eta, variance_noise=fresh if eta else None)[0]
    assert len(seen) == len(values) - 1


def test_with_the_true_noise_a_deterministic_step_stays_on_the_picture():
    z0, noise = torch.randn(1, 4, 8, 8).double(), torch.randn(1, 4, 8, 8).double()
    rates, rates_prev = Rates(0.3, 0.7), Rates(0.8, 0.2)
    z_t = add_noise(z0, noise, rates)
    z_prev = ddim_step(tweedie(z_t, noise, rates), noise, rates_prev)
    torch.testing.assert_close(z_prev, add_noise(z0, noise, rates_prev))


def test_eta_one_has_the_variance_of_ddpm():
    scheduler = DDIMScheduler()
    process = process_of(scheduler)
    expected = scheduler._get_variance(500, 400) ** 0.5
    sigma = ddim_sigma(process.rates(500), process.rates(400), 1.0)
    assert sigma == pytest.approx(float(expected))


FLOW = RectifiedFlow()
DIFFUSION = process_of(DDIMScheduler())


@pytest.mark.parametrize("process", [FLOW, DIFFUSION])
def test_eta_one_has_the_variance_of_the_process_run_backwards(process):
    """Of z_s given z_t and z_0: two Gaussians' precisions add up."""
    rates, rates_prev = process.rates(500), process.rates(400)
    shrunk = rates.signal / rates_prev.signal
    fresh = rates.noise**2 - shrunk**2 * rates_prev.noise**2
    expected = 1 / (1 / rates_prev.noise**2 + shrunk**2 / fresh)
    assert ddim_sigma(rates, rates_prev, 1.0) ** 2 == pytest.approx(expected)
    assert ddim_sigma(rates, rates_prev, 0.5) ** 2 == pytest.approx(expected / 4)


@pytest.mark.parametrize("process", [FLOW, DIFFUSION])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_steps_and_ways_back_have_the_rates_of_their_timestep(process, eta):
    """With the true noise and picture every step leads to ``a z_0 + b n``, n of variance 1."""
    rates, rates_prev = process.rates(500), process.rates(400)
    generator = torch.Generator().manual_seed(0)
    e, fresh, back = torch.randn(3, 1, 1, 500, 500, generator=generator, dtype=torch.float64)
    z0 = torch.ones_like(e)
    sigma = ddim_sigma(rates, rates_prev, eta)
    z_s = ddim_step(z0, e, rates_prev, sigma, fresh)
    z_t = add_noise(z_s, back, rates.since(rates_prev))
    for z, (signal, noise) in ((z_s, rates_prev), (z_t, rates)):
        assert z.mean().item() == pytest.approx(signal, abs=0.01)
        assert z.std().item() == pytest.approx(noise, rel=0.01)


def test_a_step_of_a_flow_is_that_of_diffusers_scheduler():
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[0.9, 0.4])
    z_t, v = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = scheduler.step(v, scheduler.timesteps[0], z_t)[0]
    noise, rates = FLOW.noise(v, z_t, 900), FLOW.rates(900)
    found = ddim_step(tweedie(z_t, noise, rates), noise, FLOW.rates(400))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def run(model, pictures, names, timesteps, **kwargs):
    with torch.no_grad():
        z0 = model.encode(pictures)
    return dict(
        trajectory(
            model,
            z0,
            timesteps,
            names=names,
            context=model.context("", len(names)),
            taps=model.expand(["up.*.resnet.*"]),
            **kwargs,
        )
    )


def test_a_corrected_estimate_moves_the_next_latents_by_sqrt_abar(tiny, pictures):
    """With the noise held fixed, moving z0 by d moves z_prev by sqrt(abar_prev) d."""
    image, names = pictures
    seen = {}

    def guide(move):
        def correct(step):
            seen.setdefault((move, step.t), step.z_t.clone())
            return step.z0 + (move if step.t == 80 else 0)

        return correct

    for move in (0.0, 0.25):
        run(tiny, image, names, Timesteps([80, 40, 10]), guide=guide(move))
    difference = seen[0.25, 40] - seen[0.0, 40]
    expected = torch.full_like(difference, 0.25 * tiny.rates(40).signal)
    torch.testing.assert_close(difference, expected, atol=1e-5, rtol=1e-5)


def test_the_last_timestep_is_neither_guided_nor_run_to_its_end(tiny, pictures):
    image, names = pictures
    guided, ran = [], []
    hook = tiny.unet.conv_out.register_forward_hook(lambda *_: ran.append(1))

    def guide(step):
        guided.append(step.t)
        return step.z0

    maps = run(tiny, image, names, Timesteps([80, 40, 10]), guide=guide)
    hook.remove()
    assert list(maps) == [80, 40, 10]
    assert guided == [80, 40]
    assert len(ran) == 2


def test_without_noise_it_starts_from_the_mean_whatever_names_and_seed(micro64, pictures):
    image, names = pictures[0][:2].double(), pictures[1][:2]
    starts = []

    def guide(step):
        starts.append(step.z_t)
        return step.z0

    timesteps = Timesteps([80, 10], eta=0.5, noised=False)
    options = {"guide": guide, "passes": lambda t: 2}
    one = run(micro64, image, names, timesteps, **options)
    other = run(micro64, image, names[::-1], timesteps, seed=1, **options)
    for t, maps in one.items():
        assert all(torch.equal(value, other[t][address]) for address, value in maps.items())
    with torch.no_grad():
        torch.testing.assert_close(starts[0], micro64.rates(80).signal * micro64.encode(image))


def test_it_ends_at_the_last_timestep_used(tiny, pictures):
    image, names = pictures
    full = run(tiny, image, names, Timesteps([80, 40, 10]))
    cut = run(tiny, image, names, Timesteps([80, 40, 10], use=[40]))
    assert list(cut) == [80, 40]
    for address, value in cut[40].items():
        assert torch.equal(value, full[40][address])


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_without_a_guide_the_maps_have_the_gradient_of_all_steps(micro64, eta):
    """Of the last timestep's maps by the picture, against central differences."""
    generator = torch.Generator().manual_seed(0)
    image, direction = torch.rand(2, 1, 3, 64, 64, generator=generator, dtype=torch.float64)
    weights: dict[str, torch.Tensor] = {}

    def weighted(image):
        steps = trajectory(
            micro64,
            micro64.encode(image),
            Timesteps([800, 400, 10], eta=eta),
            names=["a"],
            context=micro64.context("", 1),
            taps=["up.1.resnet.0", "up.3.resnet.1"],
        )
        maps = dict(steps)[10]
        for name, value in maps.items():
            weights.setdefault(name, torch.randn(value.shape, generator=generator).double())
        return torch.stack([(weights[name] * maps[name]).sum() for name in maps]).sum()

    (gradient,) = torch.autograd.grad(weighted(image.requires_grad_()), image)
    with torch.no_grad():
        rise = weighted(image + 1e-5 * direction) - weighted(image - 1e-5 * direction)
    expected = rise.item() / 2e-5
    assert abs(expected) > 1e-3
    assert (gradient * direction).sum().item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("through_unet", [False, True])
def test_with_a_guide_the_maps_are_constants(micro64, through_unet):
    z0 = torch.randn(1, 4, 8, 8, dtype=torch.float64, requires_grad=True)
    asked = []

    def guide(step):
        asked.append((torch.is_grad_enabled(), step.z_t.requires_grad, step.z0.requires_grad))
        return step.z0

    for _, maps in trajectory(
        micro64,
        z0,
        Timesteps([80, 10]),
        names=["a"],
        context=micro64.context("", 1),
        taps=["mid.attn.0"],
        guide=guide,
        through_unet=through_unet,
    ):
        assert torch.is_grad_enabled()
        assert not any(value.requires_grad for value in maps.values())
    assert asked == [(False, through_unet, through_unet)]


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_a_step_made_twice_travels_back_in_between(tiny, pictures, eta):
    """z_t = sqrt(a) z_prev + sqrt(1 - a) n with fresh noise; features are the last pass's."""
    image, names = pictures
    seen = []

    def guide(step):
        seen.append((step.t, step.z_t.clone(), step.z0.clone(), step.noise.clone()))
        return step.z0

    timesteps = Timesteps([80, 40, 10], eta=eta)
    maps = run(tiny, image, names, timesteps, guide=guide, passes=lambda t: 2 if t == 80 else 1)
    assert [t for t, *_ in seen] == [80, 80, 40]
    assert list(maps) == [80, 40, 10]
    once = run(tiny, image, names, timesteps, guide=lambda step: step.z0)
    assert not torch.allclose(maps[80]["up.3.resnet.0"], once[80]["up.3.resnet.0"])

    rates, rates_prev = tiny.rates(80), tiny.rates(40)
    abar, abar_prev = rates.signal**2, rates_prev.signal**2
    _, z_t, z0, noise = seen[0]
    # Both noises together: what is left of the second latents without the first's mean.
    sigma = ddim_sigma(rates, rates_prev, eta)
    mean = abar_prev**0.5 * z0 + (1 - abar_prev - sigma**2) ** 0.5 * noise
    ratio = abar / abar_prev
    left = seen[1][1] - ratio**0.5 * mean
    assert left.std().item() == pytest.approx((ratio * sigma**2 + 1 - ratio) ** 0.5, rel=0.05)
    assert abs((left * z_t).mean().item()) < 0.1 * left.std().item()


def test_travelling_does_not_depend_on_the_batch(tiny, pictures):
    image, names = pictures
    options = {"guide": lambda step: step.z0, "passes": lambda t: 2}
    timesteps = Timesteps([80, 40], eta=0.5)
    together = run(tiny, image, names, timesteps, **options)
    alone = run(tiny, image[3:4], names[3:4], timesteps, **options)
    for address, value in alone[40].items():
        torch.testing.assert_close(value, together[40][address][3:4], atol=1e-4, rtol=1e-4)
