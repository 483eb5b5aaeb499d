"""The trained model that the package carries."""

from __future__ import annotations

import pytest
import torch
from diffusers import StableDiffusionPipeline

from latentiqa.backbones.source import BackboneSource
from latentiqa.data.captions import corpus
from latentiqa.trajectory import add_noise


@pytest.fixture(scope="module")
def embedded():
    return BackboneSource("tiny", "tiny", resolution=64)


@pytest.fixture(scope="module")
def trained(embedded):
    return embedded.load()


def test_it_is_small_and_tells_where_it_comes_from(embedded):
    files = [path for path in embedded.folder().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 40e6
    kinds = {".json", ".txt", ".safetensors", ".md", ".png", ".jpg"}
    assert {path.suffix for path in files} <= kinds
    card = (embedded.folder() / "README.md").read_text(encoding="utf-8")
    for word in ("BIQ2021", "PSNR", "seconds", "Limits"):
        assert word in card


def test_it_is_a_pipeline_of_diffusers(embedded):
    pipe = StableDiffusionPipeline.from_pretrained(embedded.folder())
    pipe.set_progress_bar_config(disable=True)
    prompt = "a sharp photo, excellent quality"
    [image] = pipe(prompt, num_inference_steps=2, height=64, width=64).images
    assert image.size == (64, 64)


def test_it_restores_a_picture_better_than_its_mean(trained):
    from skimage import data

    photo = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None, :, :256, :256] / 255
    with torch.no_grad():
        restored = trained.decode(trained.encode(photo)).clamp(0, 1)
    mse = (restored - photo).square().mean()
    assert -10 * torch.log10(mse) > 24
    assert trained.encode(photo).std() == pytest.approx(1, abs=0.5)


def test_it_tells_noise_from_picture(trained):
    from skimage import data

    photo = torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None, :, :256, :256] / 255
    with torch.no_grad():
        z0 = trained.encode(photo)
        noise = torch.randn(z0.shape, generator=torch.Generator().manual_seed(0))
        context = trained.context("")
        for t, limit in ((100, 0.6), (500, 0.15), (800, 0.05)):
            z_t = add_noise(z0, noise, trained.rates(t))
            error = (trained.predict_noise(z_t, t, context)[0] - noise).square().mean()
            assert error < limit, (t, error)


def test_captions_are_short_in_its_tokens(trained):
    lengths = [len(trained.tokenizer(text).input_ids) for text in corpus()]
    assert max(lengths) <= 24
