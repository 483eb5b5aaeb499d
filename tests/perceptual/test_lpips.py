from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from scipy.signal import convolve2d

from latentiqa.commands.launch import build
from latentiqa.commands.search_path import config_folder
from latentiqa.errors import ConfigError, LatentiqaError
from latentiqa.perceptual import lpips as room
from latentiqa.perceptual.lpips import CHANNELS, LPIPS, SMALLEST, BlurPool, LPIPSFeatures
from latentiqa.recipe import recipe_of

NETS = sorted(CHANNELS)


def squared_distance(a, b):
    return sum((x - y).square().sum(dim=(1, 2, 3)) for x, y in zip(a, b, strict=True))


@pytest.fixture
def untrained():
    torch.manual_seed(0)
    return LPIPS("alex", pretrained=False)


@pytest.mark.parametrize("size", [(7, 7), (6, 9), (3, 4)])
def test_a_blur_halves_by_a_binomial_filter_over_two_mirrored_pixels(size):
    x = torch.rand(1, 2, *size, dtype=torch.float64)
    taps = np.array([1, 2, 1]) / 4
    expected = [
        convolve2d(np.pad(channel, 2, mode="reflect"), np.outer(taps, taps), "valid")[::2, ::2]
        for channel in x[0].numpy()
    ]
    np.testing.assert_allclose(BlurPool()(x)[0], expected, rtol=1e-12)
    assert BlurPool()(x).shape[2:] == tuple((side + 1) // 2 + 1 for side in size)


@pytest.mark.parametrize("net", NETS)
def test_the_distance_is_the_calibrated_mean_over_pixels_of_unit_vectors(net):
    torch.manual_seed(0)
    lpips = LPIPS(net, pretrained=False)
    a, b = torch.rand(2, 2, 3, 40, 33)
    maps = [2 * image - 1 for image in (a, b)]
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1)
    maps = [(image - shift) / scale for image in maps]
    expected = torch.zeros(2)
    for stage, weight in zip(lpips.stages, lpips.weights, strict=True):
        maps = [stage(x) for x in maps]
        u, v = (x / x.square().sum(1, keepdim=True).sqrt() for x in maps)
        expected += (weight.view(-1, 1, 1) * (u - v).square()).sum(1).mean(dim=(1, 2))
    torch.testing.assert_close(lpips(a, b), expected, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(
        squared_distance(lpips.features(a), lpips.features(b)), lpips(a, b), rtol=1e-6, atol=0
    )
    assert tuple(feature.shape[1] for feature in lpips.features(a)) == CHANNELS[net]


@pytest.mark.parametrize(("net", "expected"), [("alex", 0.02400232), ("vgg", 0.16320882)])
def test_published_weights_give_the_distance_of_the_authors_code(net, expected):
    """The values are of the authors' LPIPS(net, variant="shift_tolerant"), normalize=True."""
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(40.0), indexing="ij")
    waves = [torch.sin(0.3 * x + 0.2 * y + c) * torch.cos(0.05 * x * y / (c + 3)) for c in range(3)]
    a = 0.5 + 0.5 * torch.stack(waves)
    b = (0.8 * a + 0.2 * torch.sin(1.7 * x - 0.9 * y).abs()).clamp(0, 1)
    distance = LPIPS(net)(a.unsqueeze(0), b.unsqueeze(0))
    assert distance.item() == pytest.approx(expected, rel=1e-5)


def test_a_blurred_picture_is_farther_away_the_more_it_is_blurred(pictures):
    image = pictures[0][:2]
    lpips = LPIPS("alex")
    blurred = [torch.nn.functional.avg_pool2d(image, k, 1, k // 2) for k in (1, 3, 9, 27)]
    distances = torch.stack([lpips(image, other) for other in blurred])
    assert (distances[0] == 0).all()
    assert (distances.diff(dim=0) > 0).all()


def test_pictures_do_not_see_each_other_and_order_does_not_matter(untrained):
    a, b = torch.rand(2, 3, 3, 32, 32)
    together = untrained(a, b)
    alone = torch.cat([untrained(x[None], y[None]) for x, y in zip(a, b, strict=True)])
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(together, untrained(b, a))


def test_gradients_are_those_of_finite_differences(untrained):
    lpips = untrained.double()
    a, b, direction = torch.rand(3, 1, 3, 24, 24, dtype=torch.float64)
    a.requires_grad_()
    lpips(a, b).backward()
    step = 1e-6 * (direction - 0.5)
    finite = (lpips(a + step, b) - lpips(a - step, b)) / 2
    assert (a.grad * step).sum().item() == pytest.approx(finite.item(), rel=1e-5)
    assert all(not weight.requires_grad for weight in lpips.parameters())


def test_gradients_are_finite_where_no_channel_answers(untrained):
    for layer in untrained.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.weight.zero_()
            layer.bias.fill_(-1)
    a, b = torch.rand(2, 1, 3, 24, 24)
    a.requires_grad_()
    untrained(a, b).backward()
    assert a.grad.isfinite().all()


@pytest.mark.parametrize("net", NETS)
def test_the_smallest_picture_passes_and_a_smaller_one_is_explained(net):
    lpips = LPIPS(net, pretrained=False)
    side = SMALLEST[net]
    assert lpips(*torch.rand(2, 1, 3, side, side + 9)).isfinite().all()
    with pytest.raises(ConfigError, match=f"{side - 1} x 64: expected sides of {side} pixels"):
        lpips.features(torch.rand(1, 3, side - 1, 64))


@pytest.mark.parametrize("maker", [LPIPS, LPIPSFeatures])
def test_an_unknown_net_is_explained(maker):
    with pytest.raises(ConfigError, match="net='resnet': expected one of alex, vgg"):
        maker("resnet")


def test_a_missing_package_tells_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for maker in (LPIPS, LPIPSFeatures):
        with pytest.raises(LatentiqaError, match=r"pip install 'latentiqa\[lpips\]'"):
            maker("vgg")


def test_psi_is_described_by_its_net_and_the_config_has_its_defaults():
    assert recipe_of(LPIPSFeatures("vgg")) == {"class": "LPIPSFeatures", "net": "vgg"}
    assert len({LPIPSFeatures("vgg"), LPIPSFeatures("vgg"), LPIPSFeatures("alex")}) == 2
    assert build(OmegaConf.load(config_folder("conf") / "perceptual/lpips.yaml")) == LPIPSFeatures()


def test_psi_distance_is_the_distance_and_the_net_is_loaded_once(pictures):
    room._pretrained.cache_clear()
    a, b = pictures[0][:4].chunk(2)
    psi = LPIPSFeatures("alex")
    random_state = torch.get_rng_state()
    with torch.inference_mode():
        psi(a)
    assert torch.equal(torch.get_rng_state(), random_state)
    a = a.clone().requires_grad_()
    distance = squared_distance(psi(a), LPIPSFeatures("alex")(b))
    distance.sum().backward()
    torch.testing.assert_close(distance, LPIPS("alex")(a, b))
    assert a.grad.isfinite().all()
    assert (a.grad.abs().sum(dim=(1, 2, 3)) > 0).all()
    assert room._pretrained.cache_info().misses == 1
