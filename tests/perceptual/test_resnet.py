from __future__ import annotations

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import normalize
from torchvision_style import random_resnet50

from latentiqa.commands.launch import build
from latentiqa.commands.search_path import config_folder
from latentiqa.errors import ConfigError
from latentiqa.perceptual.resnet import ENCODERS, SMALLEST, ResNetFeatures
from latentiqa.recipe import recipe_of


@pytest.fixture(scope="module")
def net():
    """The network whose weights are in every file."""
    return random_resnet50()


def of_authors(encoder: str, net, image: torch.Tensor) -> list[torch.Tensor]:
    """Features as the authors' own scripts compute them, with Pillow's half-size picture."""
    channels = [Image.fromarray(channel.numpy()) for channel in image[0]]
    height, width = image.shape[-2:]
    halves = [c.resize((width // 2, height // 2), Image.Resampling.BICUBIC) for c in channels]
    out = []
    for x in (image, torch.from_numpy(np.stack(halves))[None]):
        if encoder in ("arniqa", "reiqa_content"):
            mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
            x = (x - mean.view(3, 1, 1)) / std.view(3, 1, 1)
        features = net(x)
        out.append(normalize(features) if encoder in ("arniqa", "contrique") else features)
    return out


@pytest.mark.parametrize("encoder", ENCODERS)
def test_features_are_those_of_the_authors(encoder, net, weights_of):
    psi = ResNetFeatures(encoder, str(weights_of(encoder)))
    image = torch.rand(1, 3, 67, 82, generator=torch.Generator().manual_seed(0))
    expected = of_authors(encoder, net, image)
    found = psi.statistics(image)
    assert {name: value.shape[1] for name, value in found.items()} == psi.widths()
    for own, other in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-4 * other.abs().max().item())
    assert not torch.allclose(expected[0], expected[1], rtol=0.1)


@pytest.mark.parametrize("encoder", ["arniqa", "reiqa_quality"])
def test_psi_is_differentiable_and_scaled(encoder, weights_of, pictures):
    psi = ResNetFeatures(encoder, str(weights_of(encoder)))
    image = pictures[0][:2].clone().requires_grad_()
    features = psi(image)
    for own, statistic in zip(features, psi.statistics(image).values(), strict=True):
        expected = statistic.square().sum(1) if encoder == "arniqa" else statistic.square().mean(1)
        torch.testing.assert_close(own.square().sum(1), expected)
    sum(x[:, :100].sum() for x in features).backward()
    assert image.grad.isfinite().all()
    assert (image.grad.abs().sum(dim=(1, 2, 3)) > 0).all()


def test_a_picture_does_not_see_its_batch(weights_of, pictures):
    psi, image = ResNetFeatures("contrique", str(weights_of("contrique"))), pictures[0][:2]
    alone = torch.cat([psi(one[None])[1] for one in image])
    torch.testing.assert_close(psi(image)[1], alone, rtol=1e-4, atol=1e-5)


def test_the_recipe_knows_the_weights_not_the_place(weights_of, tmp_path):
    path = weights_of("arniqa")
    copy = tmp_path / "elsewhere.pth"
    copy.write_bytes(path.read_bytes())
    psi = ResNetFeatures("arniqa", str(path))
    assert psi == ResNetFeatures("arniqa", str(copy))
    described = {"class": "ResNetFeatures", "encoder": "arniqa", "content": psi.content}
    assert recipe_of(psi) == described
    assert psi != ResNetFeatures("contrique", str(weights_of("contrique")))
    for choice, encoder in (("arniqa", "arniqa"), ("reiqa", "reiqa_quality")):
        config = OmegaConf.load(config_folder("conf") / f"perceptual/{choice}.yaml")
        assert build(config, weights=str(path)).encoder == encoder


def test_safetensors_with_the_same_names_are_read_too(weights_of, tmp_path, pictures):
    model = torch.load(weights_of("reiqa_content"), weights_only=False)["model"]
    save_file(model, tmp_path / "a.safetensors")
    a, b = (
        ResNetFeatures("reiqa_content", str(path))(pictures[0][:1])
        for path in (weights_of("reiqa_content"), tmp_path / "a.safetensors")
    )
    assert torch.equal(a[0], b[0])


def test_weights_of_other_authors_are_refused(weights_of):
    psi = ResNetFeatures("contrique", str(weights_of("arniqa")))
    with pytest.raises(ConfigError, match=r"no 'encoder.0.weight' in it; it begins with model\."):
        psi(torch.rand(1, 3, 64, 64))


def test_bad_values_are_explained(weights_of):
    with pytest.raises(ConfigError, match="encoder='x': expected one of arniqa, contrique, reiqa"):
        ResNetFeatures("x", "nowhere")
    with pytest.raises(ConfigError, match=r"nowhere: no such file; expected ARNIQA.pth of https"):
        ResNetFeatures("arniqa", "nowhere")
    psi = ResNetFeatures("arniqa", str(weights_of("arniqa")))
    with pytest.raises(ConfigError, match="63 x 80: expected sides of 64 pixels or more"):
        psi(torch.rand(1, 3, SMALLEST - 1, 80))
    with pytest.raises(ConfigError, match="pooling='max'"):
        psi.widths("max")
