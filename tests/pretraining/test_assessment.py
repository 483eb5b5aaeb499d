from __future__ import annotations

import numpy as np
import pytest
import torch
from miniatures import write_image

from latentiqa.backbones.ldm import LatentDiffusion
from latentiqa.backbones.process import Rates
from latentiqa.data.captions import (
    CLEAN,
    WORDS,
    Degradation,
    caption,
    describe,
    quality,
    sample_degradations,
)
from latentiqa.data.crops import DegradedCrops
from latentiqa.data.manifest import Record
from latentiqa.data.views import centre_crop
from latentiqa.errors import ConfigError
from latentiqa.noise import image_noise
from latentiqa.pretraining.assessment import (
    CaptionFit,
    Crops,
    another,
    caption_fit,
    denoising_errors,
    known_crops,
    linear_loss,
    other_kind,
    reconstruct,
)

NOISY = (Degradation("gaussian_noise", 5),)
BLURRY = (Degradation("gaussian_blur", 3),)


@pytest.fixture
def photos(tmp_path) -> DegradedCrops:
    """Untouched crops of 64 pixels."""
    paths = [write_image(tmp_path / f"{i}.png", seed=i, size=(80, 96)) for i in range(3)]
    records = [Record(path.name, path, mos=0.0) for path in paths]
    return DegradedCrops(records, size=64, seed=5, clean=1)


@pytest.fixture
def crops() -> Crops:
    """Five crops in float64, as `micro64` takes them."""
    generator = torch.Generator().manual_seed(0)
    z0 = torch.randn(5, 4, 8, 8, generator=generator, dtype=torch.float64)
    return Crops(z0, (CLEAN, NOISY, BLURRY, NOISY, CLEAN), tuple("abcde"))


class Reader:
    """Predicts the noise exactly where the caption is the expected one, and none elsewhere."""

    def __init__(self, crops: Crops, expected: list[str]) -> None:
        self.z0 = crops.z0  # one batch
        self.expected = expected

    def rates(self, t: int) -> Rates:
        return Rates(0.6, 0.8)

    def context(self, prompt: str) -> dict[str, torch.Tensor]:
        return {"encoder_hidden_states": torch.tensor([[[float(prompt in self.expected)]]])}

    def predict_noise(self, z_t, t, context):
        noise = (z_t - 0.6 * self.z0) / 0.8
        return noise * context["encoder_hidden_states"].view(-1, 1, 1, 1), {}


def test_the_middle_of_a_picture():
    rows, columns = torch.meshgrid(torch.arange(7), torch.arange(10), indexing="ij")
    crop = centre_crop(torch.stack([rows, columns]), 3, 4)
    assert crop[0, :, 0].tolist() == [2, 3, 4]
    assert crop[1, 0].tolist() == [3, 4, 5, 6]


def test_reconstruction_is_that_of_the_autoencoder(micro64, pictures):
    image = pictures[0][:2].double()
    latents = micro64.vae.encode(image * 2 - 1).latent_dist.mode()
    expected = (micro64.vae.decode(latents).sample + 1) / 2
    restored = reconstruct(micro64, image)
    assert restored.shape == image.shape
    assert torch.allclose(restored, expected.clamp(0, 1))
    # Nothing beyond white and black comes out, also where the decoder overshoots.
    micro64.vae.decoder.conv_out.bias[0] = 9.0
    assert reconstruct(micro64, image).max() == 1


def test_crops_are_degraded_as_asked(photos, micro64):
    crops = known_crops(micro64, photos, [CLEAN, NOISY, BLURRY], start=4, batch_size=2)
    assert crops.degradations == (CLEAN, NOISY, BLURRY)
    assert crops.names == tuple(f"{i}:{photos[i]['name']}" for i in (4, 5, 6))
    untouched = torch.stack([photos[i]["image"] for i in (4, 5, 6)])
    as_they_are = micro64.encode(untouched)
    assert torch.allclose(crops.z0[0], as_they_are[0], atol=1e-6)
    assert not torch.allclose(crops.z0[1], as_they_are[1], atol=1e-3)
    assert not torch.allclose(crops.z0[2], as_they_are[2], atol=1e-3)
    # What is at an index depends neither on the start nor on the batches.
    again = known_crops(micro64, photos, [NOISY, BLURRY], start=5, batch_size=1)
    assert torch.allclose(again.z0, crops.z0[1:], atol=1e-6)


def test_crops_that_are_degraded_already_are_refused(photos, micro64):
    photos.clean = 0.25
    with pytest.raises(ConfigError, match=r"clean=0\.25: expected 1"):
        known_crops(micro64, photos, [CLEAN])


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_errors_are_those_of_the_formula(micro64, crops, prediction_type):
    model = micro64
    if prediction_type == "v_prediction":
        model.process.prediction_type = prediction_type
    captions = ["", "a noisy photo", "a blurry photo", "", "x"]
    found = denoising_errors(model, crops, captions, [10, 700], seed=3, batch_size=2)
    assert found.shape == (5, 2)
    for i, (name, text) in enumerate(zip(crops.names, captions, strict=True)):
        for j, t in enumerate([10, 700]):
            e = image_noise([name], t, (4, 8, 8), seed=3, dtype=torch.float64)
            abar = model.scheduler.alphas_cumprod[t].double()
            z_t = abar.sqrt() * crops.z0[i : i + 1] + (1 - abar).sqrt() * e
            with torch.no_grad():
                output = model.unet(z_t, t, **model.context(text)).sample
            error = (output - e).square().mean()
            if prediction_type == "v_prediction":
                # An error of v is one of the noise, sqrt(abar) times.
                v = abar.sqrt() * e - (1 - abar).sqrt() * crops.z0[i : i + 1]
                error = abar * (output - v).square().mean()
            assert found[i, j].item() == pytest.approx(error.item(), rel=1e-6)


def test_the_best_constant_has_an_error_of_one(crops):
    errors = denoising_errors(Reader(crops, []), crops, [""] * 5, list(range(50)))  # type: ignore[arg-type]
    assert errors.mean().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("power", [1.0, 0.3])
def test_the_best_multiple_of_the_noisy_latents(power):
    generator = torch.Generator().manual_seed(0)
    z0, e = torch.randn(2, 400_000, generator=generator, dtype=torch.float64)
    for abar in (0.9, 0.2):
        z_t = abar**0.5 * power**0.5 * z0 + (1 - abar) ** 0.5 * e
        c = (e @ z_t) / (z_t @ z_t)
        residual = (e - c * z_t).square().mean().item()
        rates = Rates(abar**0.5, (1 - abar) ** 0.5)
        assert linear_loss(rates, power) == pytest.approx(residual, rel=0.01)


def test_the_description_is_one_of_the_captions():
    rng = np.random.default_rng(0)
    for _ in range(50):
        done = sample_degradations(rng)
        captions = {caption(done, rng) for _ in range(60)}
        assert describe(done) in captions
        assert describe(done).endswith(f"photo, {quality(done)} quality")


def test_wrong_captions_are_wrong():
    rng = np.random.default_rng(0)
    for _ in range(300):
        done = sample_degradations(rng)
        wrong = another(done, rng)
        assert wrong != CLEAN
        assert quality(wrong) != quality(done)
        assert not {kind for kind, _ in wrong} & {kind for kind, _ in done}
    drawn = [other_kind(Degradation("jpeg", 4), rng) for _ in range(300)]
    assert {kind for kind, _ in drawn} == set(WORDS) - {"jpeg"}
    assert {level for _, level in drawn} == {4}


def test_a_model_that_reads_prefers_what_fits(crops):
    fitting = [describe(done) for done in crops.degradations]
    wrong = ["a very dark photo, bad quality"] * 5
    reader = Reader(crops, fitting)
    found = caption_fit(reader, crops, {"wrong": wrong, "fit": fitting})  # type: ignore[arg-type]
    assert found["wrong"].fit.tolist() == pytest.approx([0] * 5, abs=1e-9)
    assert found["wrong"].wrong.tolist() == pytest.approx([1] * 5, abs=0.3)
    assert found["wrong"].row()["share"] == 1
    # A tie is no win.
    assert found["fit"].row()["share"] == 0

    contrary = caption_fit(Reader(crops, wrong), crops, {"wrong": wrong})  # type: ignore[arg-type]
    assert contrary["wrong"].row()["share"] == 0


def test_the_interval_is_wilsons():
    fit = torch.zeros(40)
    wrong = torch.tensor([1.0] * 29 + [-1.0] * 11)
    row = CaptionFit(fit, wrong).row()
    n, p, z = 40, 29 / 40, 1.959963984540054
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    assert (row["n"], row["wins"], row["share"]) == (40, 29, p)
    assert (row["low"], row["high"]) == pytest.approx((centre - half, centre + half))
    assert (row["loss_fit"], row["loss_wrong"]) == pytest.approx((0, 18 / 40))


def test_captions_reach_a_real_model(micro64: LatentDiffusion, crops):
    found = caption_fit(micro64, crops, {"empty": [""] * 5}, timesteps=[300], batch_size=3)["empty"]
    assert found.fit.shape == found.wrong.shape == (5,)
    assert (found.fit != found.wrong).all()
