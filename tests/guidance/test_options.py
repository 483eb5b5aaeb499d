"""PMG's options beyond the default, and its defaults, which must not change."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import skimage
import torch
from diffusers import AutoencoderTiny
from memory_tracking import bytes_kept
from miniatures import micro_tiny

from latentiqa.backbones.source import BackboneSource
from latentiqa.backbones.stable_diffusion import StableDiffusion
from latentiqa.data.images import read_image
from latentiqa.errors import ConfigError
from latentiqa.guidance import DPS, MPGD, PMG, Decoder, StepSize
from latentiqa.perceptual.sd import BackboneFeatures
from latentiqa.recipe import recipe_of
from latentiqa.trajectory import Step, add_noise, tweedie

T, T_PREV = 60, 20
OFF = StepSize(0.0)
SD = BackboneFeatures()


def make_step(model, image, through_unet=False) -> Step:
    generator = torch.Generator().manual_seed(0)
    rates = model.rates(T)
    with torch.no_grad():
        z0 = model.encode(image)
        noise = torch.randn(z0.shape, generator=generator).to(z0.dtype)
        z_t = add_noise(z0, noise, rates)
    with torch.set_grad_enabled(through_unet):
        z_t.requires_grad_(through_unet)
        noise, _ = model.predict_noise(z_t, T, model.context("", len(z_t)))
        return Step(T, z_t, noise, tweedie(z_t, noise, rates), rates, model.rates(T_PREV))


@pytest.fixture
def image():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model(micro_folder):
    return StableDiffusion.from_folder(micro_folder)


def test_the_defaults_give_the_same_bits_as_ever(model, image):
    """Both terms with the default steps, written out once more."""

    def led(z, term):
        z = z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(term(z), z)
        return slope

    def relative(slope, z):
        size = z.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return 0.1 * size / slope.square().mean(dim=(1, 2, 3), keepdim=True).sqrt() * slope

    with torch.no_grad():
        features = SD(image, model)
    step = make_step(model, image)
    slope = led(step.z0, lambda z: (image - model.decode(z)).pow(2).sum())
    move = relative(slope, step.z0)

    def perceptual(z):
        found = SD(model.decode(z), model)
        return torch.stack(
            [(a - b).pow(2).sum() for a, b in zip(features, found, strict=True)]
        ).sum()

    move = move + relative(led(step.z0 - move, perceptual), step.z0)
    assert torch.equal(PMG(psi=SD).bind(image, model)(step), step.z0 - move)


def test_a_measurement_in_latents_is_the_distance_to_the_encoded_picture(model, image):
    pmg = PMG(measurement=StepSize(0.1, "raw"), measured_in="latents")
    step = make_step(model, image)
    guide = pmg.bind(image, model)
    decoded = []
    hook = model.vae.decoder.register_forward_hook(lambda *_: decoded.append(1))
    guided = guide(step)
    hook.remove()
    assert decoded == []
    with torch.no_grad():
        torch.testing.assert_close(guided, step.z0 - 0.2 * (step.z0 - model.encode(image)))


def test_half_a_gradient_of_their_squared_distance_goes_all_the_way_to_the_latents(model, image):
    whole = PMG(measurement=StepSize(0.5, "raw"), measured_in="latents")
    estimate = whole.bind(image, model)(make_step(model, image))
    torch.testing.assert_close(estimate, model.encode(image))


def test_repeats_are_corrections_one_after_the_other(model, image):
    sizes = {"measurement": StepSize(1e-3, "raw"), "perceptual": StepSize(1e-2, "raw")}
    step = make_step(model, image)
    once = PMG(psi=SD, **sizes).bind(image, model)
    twice = PMG(psi=SD, repeats=2, **sizes).bind(image, model)
    torch.testing.assert_close(twice(step), once(replace(step, z0=once(step))))
    assert not torch.allclose(twice(step), once(step))


@pytest.mark.parametrize("term", ["measurement", "perceptual"])
def test_each_term_has_its_own_window(model, image, term):
    step = make_step(model, image)
    closed = StepSize(0.1, window=[T - 1, 0])
    both = PMG(psi=SD, **{term: closed}).bind(image, model)(step)
    other = PMG(psi=SD, **{term: OFF}).bind(image, model)(step)
    assert torch.equal(both, other)
    assert not torch.equal(both, step.z0)


@pytest.mark.parametrize("term", ["measurement", "perceptual"])
def test_each_term_has_its_own_distance(model, image, term):
    """Raw steps of the norm are those of its square, divided by twice the norm."""
    step = make_step(model, image)
    sizes = {"measurement": OFF, "perceptual": OFF} | {term: StepSize(1.0, "raw")}

    def move(distance):
        pmg = PMG(psi=SD, **sizes, **{f"{term}_distance": distance})
        return step.z0 - pmg.bind(image, model)(step)

    ratio = (move("l2") / move("squared")).flatten(1)
    with torch.no_grad():
        decoded = model.decode(step.z0)
        pairs = zip(SD(image, model), SD(decoded, model), strict=True)
        differences = {
            "measurement": (image - decoded).flatten(1),
            "perceptual": torch.cat([a - b for a, b in pairs], 1),
        }
    expected = 1 / (2 * differences[term].norm(dim=1, keepdim=True))
    torch.testing.assert_close(ratio.median(1, keepdim=True).values, expected, rtol=1e-4, atol=0)
    assert not torch.allclose(move("cosine"), move("l2"))


@pytest.mark.parametrize("guidance", [PMG(SD), PMG(SD, route="score"), DPS()], ids=str)
def test_checkpointing_keeps_less_and_gives_the_same(micro64, image, guidance):
    image, moved, kept = image.double(), {}, {}
    for switch in (False, True, False):
        guide = replace(guidance, checkpointing=switch).bind(image, micro64)
        with bytes_kept() as counted:
            moved[switch] = guide(make_step(micro64, image, guidance.through_unet))
        # Off again it must be as at first, whatever was before it.
        assert kept.setdefault(switch, sum(counted)) == sum(counted)
    torch.testing.assert_close(moved[True], moved[False], rtol=1e-6, atol=1e-6)
    assert kept[True] < 0.5 * kept[False]


@pytest.fixture
def small(tmp_path):
    """The smallest decoder of the micro backbone's latents, f8."""
    torch.manual_seed(0)
    vae = AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(1,) * 4,
        decoder_block_out_channels=(8,) * 4,
        num_decoder_blocks=(1,) * 4,
        scaling_factor=0.5,
    )
    vae.save_pretrained(tmp_path / "small")
    return vae.eval(), str(tmp_path / "small")


def test_a_small_decoder_replaces_the_backbones_with_its_own_scale(model, image, small):
    vae, folder = small
    step = make_step(model, image)
    own = MPGD(StepSize(0.1, "raw"), projection="ldm", decoder=folder)
    z0 = step.z0.clone().requires_grad_()
    decoded = (vae.decode(z0 / 0.5).sample + 1) / 2
    (slope,) = torch.autograd.grad((image - decoded).square().sum(), z0)
    torch.testing.assert_close(own.bind(image, model)(step), step.z0 - 0.1 * slope)


def test_taesd_takes_the_scaled_latents_of_stable_diffusion(model):
    """What `Decoder` reads from scaling_factor=1.0, against the pipelines' own line."""
    taesd = micro_tiny().eval()
    assert taesd.config.scaling_factor == 1.0
    latents = torch.randn(1, 4, 8, 8)
    by_pipeline = taesd.decode(latents / taesd.config.scaling_factor).sample
    from latentiqa.backbones.ldm import decode

    torch.testing.assert_close(decode(taesd, latents), by_pipeline / 2 + 0.5)


def test_the_embedded_narrow_decoder_shows_what_the_embedded_models_own_shows():
    backbone = BackboneSource("tiny", "tiny").load()
    path = Path(skimage.__file__).parent / "data" / "astronaut.png"
    photo = read_image(path)[None, :, :256, :256]
    narrow = Decoder("tiny").load(photo, backbone, checkpointing=False)
    with torch.no_grad():
        latents = backbone.encode(photo)
        errors = [(photo - decode(latents)).square().mean() for decode in (narrow, backbone.decode)]
    assert max(errors) < 10**-2.2  # 22 dB
    slopes = []
    for decode in (narrow, backbone.decode):
        z0 = (0.9 * latents).requires_grad_()
        slopes.append(torch.autograd.grad((photo - decode(z0)).square().sum(), z0)[0])
    assert torch.cosine_similarity(*(slope.flatten() for slope in slopes), dim=0) > 0.5


def test_the_recipe_knows_the_decoders_weights_not_its_place(small, tmp_path):
    _, folder = small
    shutil.copytree(folder, tmp_path / "moved")
    first, moved = (recipe_of(PMG(decoder=str(place))) for place in (folder, tmp_path / "moved"))
    assert first == moved
    assert first["decoder"] == {"class": "Decoder", "weights": Decoder(folder).weights}
    assert recipe_of(PMG(checkpointing=True)) == recipe_of(PMG())


def test_decoders_of_other_latents_are_refused(model, image, tmp_path):
    micro_tiny(latent_channels=8).save_pretrained(tmp_path / "channels")
    micro_tiny().save_pretrained(tmp_path / "f2")
    with pytest.raises(ConfigError, match="it decodes the latents of backbone=tiny alone"):
        PMG(decoder="tiny").bind(image, model)
    with pytest.raises(ConfigError, match="8 channels, the backbone's have 4"):
        PMG(decoder=str(tmp_path / "channels")).bind(image, model)
    guide = PMG(decoder=str(tmp_path / "f2")).bind(image, model)
    with pytest.raises(ConfigError, match=r"\(16, 16\) pixels of these latents"):
        guide(make_step(model, image))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"measured_in": "x"}, "measured_in='x': expected 'pixels' or 'latents'"),
        ({"measurement_distance": "l1"}, "measurement_distance='l1': expected one of squared"),
        ({"perceptual_distance": "l1"}, "perceptual_distance='l1': expected one of squared"),
        ({"repeats": 0}, "repeats=0: expected an integer >= 1"),
        ({"checkpointing": "on"}, "checkpointing='on': expected true or false"),
        ({"decoder": "nowhere"}, "decoder=nowhere: expected a folder with config.json"),
    ],
)
def test_bad_values_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        PMG(**arguments)
