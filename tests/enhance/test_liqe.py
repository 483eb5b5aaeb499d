"""LIQE's score against transformers' own CLIP, on random weights."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch
from miniatures import write_clip
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPTokenizer

from latentiqa.commands.launch import build
from latentiqa.commands.search_path import config_folder
from latentiqa.data.multi_scale import MultiScale
from latentiqa.enhance.liqe import LIQE, LIQEPrior
from latentiqa.errors import ConfigError, LatentiqaError

PROMPTS = [f"a photo with {word} quality" for word in ("bad", "poor", "fair", "good", "perfect")]
VIEWS = MultiScale(32, crops=3, stride=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(2, 3, 50, 70, generator=torch.Generator().manual_seed(0))


def prior(source: Path | str, **options) -> LIQEPrior:
    return LIQEPrior(source=str(source), **{"views": VIEWS, "prompts": PROMPTS} | options)


def test_a_score_is_that_of_clips_logits(folder, image):
    clip = CLIPModel.from_pretrained(folder).eval()
    tokens = CLIPTokenizer.from_pretrained(folder)(PROMPTS, padding=True, return_tensors="pt")
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in ([0.48, 0.46, 0.41], [0.27, 0.26, 0.28]))
    expected = []
    for one in image:
        views = (VIEWS(one) - mean) / std
        with torch.no_grad():
            logits = clip(pixel_values=views, **tokens).logits_per_image  # (7, 5)
        p = torch.exp(logits.mean(dim=0) / 2)
        p = p / p.sum()
        expected.append(float(sum(c * p[c - 1] for c in range(1, 6))))
    model = LIQE(folder, PROMPTS, 2.0, VIEWS)
    scores = model(image)
    assert scores.tolist() == pytest.approx(expected, abs=1e-4)
    assert abs(expected[0] - expected[1]) > 1e-3
    assert model(image[1:]).item() == pytest.approx(expected[1], abs=1e-4)


def test_its_score_rises_along_its_gradient(folder, image):
    quality = prior(folder).load(torch.device("cpu"))
    x = image.requires_grad_()
    before = quality(x)
    (gradient,) = torch.autograd.grad(before.sum(), x)
    assert gradient.isfinite().all()
    assert (gradient.abs().amax(dim=(1, 2, 3)) > 0).all()
    after = quality((x + 0.05 * gradient.sign()).clamp(0, 1))
    assert (after > before).all()
    assert not any(p.requires_grad for p in quality.parameters())  # type: ignore[attr-defined]


def test_low_precision_does_not_reach_it(folder, image):
    model = LIQE(folder, PROMPTS, 2.0, VIEWS)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(image), model(image.clone()))
        found = model(image)
    assert torch.equal(found, model(image))


def test_the_config_is_ms_liqe(folder):
    config = OmegaConf.load(config_folder("conf") / "prior" / "liqe.yaml")
    config.source = str(folder)
    found = build(config)
    assert found.prompts == PROMPTS
    assert found.views == MultiScale(224, crops=7, scales=(1.0, 0.75), stride=32)
    assert found.views.number == 15
    assert found.temperature == 2.0
    scale = found.scale()
    assert (scale.centre, scale.spread) == (2.0776, 1.1019)
    assert found.title == f"liqe {folder.name}"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"prompts": ["good"]}, r"prior.prompts=\['good'\]: expected two or more"),
        ({"temperature": 0.0}, "prior.temperature=0.0: expected a number > 0"),
        ({"views": 224}, "prior.views=int: expected views"),
        ({"source": "nowhere"}, "prior.source=nowhere: no such folder, and not a hub id"),
        ({"centre": 1.0}, "expected both centre and spread"),
    ],
)
def test_arguments_are_checked(folder, options, told):
    with pytest.raises(ConfigError, match=told):
        prior(**{"source": folder} | options)


@pytest.mark.parametrize("name", ["merges.txt", "model.safetensors", "preprocessor_config.json"])
def test_missing_files_are_named_at_once(copy, name):
    (copy / "tokenizer.json").unlink(missing_ok=True)
    (copy / name).unlink()
    with pytest.raises(ConfigError, match=f"prior.source=.*: {name} not found; expected a CLIP"):
        prior(copy)


@pytest.mark.parametrize("start", ["text_model", "text_projection", "logit_scale", "visual"])
def test_weights_that_are_not_whole_are_refused(copy, start):
    path = copy / "model.safetensors"
    kept = {k: v for k, v in load_file(path).items() if not k.startswith(start)}
    save_file(kept, path, metadata={"format": "pt"})
    with pytest.raises(LatentiqaError, match=r"model\.safetensors: .*(missing|no logit_scale)"):
        prior(copy).load(torch.device("cpu"))


def test_a_download_is_said_before_it_fails(monkeypatch, caplog):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    described = prior("nobody/no-clip", download_gb=0.6)
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(LatentiqaError, match=r"give its folder as prior\.source"),
    ):
        described.load(torch.device("cpu"))
    assert "Downloading nobody/no-clip (revision main, about 0.6 GB)" in caplog.text
