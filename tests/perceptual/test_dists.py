from __future__ import annotations

import importlib.util
import shutil

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import nn
from torchmetrics.functional.image.dists import DISTSNetwork, L2pooling
from torchvision_style import random_vgg16

from latentiqa.commands.launch import build
from latentiqa.commands.search_path import config_folder
from latentiqa.errors import ConfigError, LatentiqaError
from latentiqa.guidance.distances import squared as squared_distance
from latentiqa.perceptual import dists as room
from latentiqa.perceptual.dists import CHANNELS, DISTS, DISTSFeatures, L2Pool
from latentiqa.recipe import recipe_of


@pytest.fixture(scope="module")
def path(weights_of) -> str:
    return str(weights_of("dists"))


@pytest.fixture(scope="module")
def dists(path):
    return DISTS(path)


@pytest.fixture(scope="module")
def reference():
    """Torchmetrics' network around the same VGG-16; its own constructor needs torchvision."""
    network = DISTSNetwork.__new__(DISTSNetwork)
    nn.Module.__init__(network)
    trunk, halvings = list(random_vgg16()), [4, 9, 16, 23, 30]
    start = 0
    for i, end in enumerate(halvings):
        pool = [L2pooling(channels=CHANNELS[i])] if i else []
        setattr(network, f"stage{i + 1}", nn.Sequential(*pool, *trunk[start:end]))
        start = end + 1
    network.chns = list(CHANNELS)
    for name, value in (("mean", [0.485, 0.456, 0.406]), ("std", [0.229, 0.224, 0.225])):
        network.register_buffer(name, torch.tensor(value).view(1, -1, 1, 1))
    for name, value in torch.load(room._terms_file(), weights_only=True).items():
        network.register_parameter(name, nn.Parameter(value))
    return network.double()


def test_maps_and_distance_are_those_of_torchmetrics(path, reference, pictures):
    a, b = pictures[0][:4].double().chunk(2)
    dists = DISTS(path).double()
    for own, other in zip(dists.maps(a), reference.forward_once(a), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-6)
    expected = reference(a, b)
    assert (expected > 0.01).all()
    torch.testing.assert_close(dists(a, b), expected, rtol=1e-5, atol=1e-6)


def test_l2_pooling_keeps_odd_sizes_and_constants():
    pooled = L2Pool()(torch.full((1, 2, 7, 8), -3.0))
    assert pooled.shape == (1, 2, 4, 4)
    torch.testing.assert_close(pooled[..., 1:-1, 1:], torch.full((1, 2, 2, 3), 3.0))


def test_it_is_a_distance_that_grows_with_blur(dists, pictures):
    image = pictures[0][:1]
    blurred = [nn.functional.avg_pool2d(image, k, 1, k // 2) for k in (1, 5, 15)]
    distances = [dists(image, other).item() for other in blurred]
    assert distances[0] == 0
    assert 0 < distances[1] < distances[2] < 1
    torch.testing.assert_close(dists(image, blurred[1]), dists(blurred[1], image))


def test_squared_distance_of_features_is_dists_near_equality():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dists = DISTS().double()  # these weights keep spreads far from 0.001
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 32, 32, generator=generator, dtype=torch.float64)
    noise = torch.rand(2, 3, 32, 32, generator=generator, dtype=torch.float64) - 0.5
    other = image + 1e-3 * noise
    squared = squared_distance(dists.features(image), dists.features(other))
    torch.testing.assert_close(squared, dists(image, other), rtol=0.001, atol=0)


def test_flat_pictures_have_finite_gradients(path):
    psi = DISTSFeatures(path)
    image = torch.full((1, 3, 32, 32), 0.5, requires_grad=True)
    other = psi((image + 0.1 * torch.eye(32)).detach())
    squared_distance(psi(image), other).sum().backward()
    assert image.grad.isfinite().all()
    assert image.grad.abs().sum() > 0


def test_large_pictures_are_reduced_as_the_authors_do(path):
    psi = DISTSFeatures(path)
    assert psi.resized(torch.rand(1, 3, 300, 401)).shape == (1, 3, 256, 342)
    small = torch.rand(1, 3, 256, 300)
    assert torch.equal(psi.resized(small), small)
    assert DISTSFeatures(path, None).resized(torch.rand(1, 3, 300, 300)).shape[-1] == 300


def test_the_recipe_knows_the_weights_not_the_place(path, tmp_path, pictures):
    tensors = torch.load(path, weights_only=True)
    copy = tmp_path / "copy.pth"
    shutil.copy(path, copy)
    save_file(tensors, tmp_path / "b.safetensors")
    psi, other = DISTSFeatures(path), DISTSFeatures(str(tmp_path / "b.safetensors"))
    assert psi == DISTSFeatures(str(copy)) != other
    assert hash(psi) == hash(DISTSFeatures(str(copy)))
    assert recipe_of(psi) == {
        "class": "DISTSFeatures",
        "shorter_side": 256,
        "content": psi.content,
    }
    found, same = (one.statistics(pictures[0][:1]) for one in (psi, other))
    assert all(torch.equal(value, same[name]) for name, value in found.items())
    config = OmegaConf.load(config_folder("conf") / "perceptual/dists.yaml")
    assert build(config, weights=path) == psi


def test_psi_statistics_are_means_and_deviations_of_the_maps(path, dists, pictures):
    psi, image = DISTSFeatures(path), pictures[0][:2]
    found = psi.statistics(image, "mean_std")
    assert {name: value.shape[1] for name, value in found.items()} == psi.widths("mean_std")
    last = dists.maps(image)[-1]
    torch.testing.assert_close(found["stage.5/mean"], last.mean(dim=(2, 3)))
    torch.testing.assert_close(found["stage.0/mean"], image.mean(dim=(2, 3)))


def test_what_is_no_weight_file_is_explained(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere: no such file.*vgg16-397923af.pth \(528 MB"):
        DISTSFeatures("nowhere")
    for name in ("a.pth", "a.safetensors"):
        (tmp_path / name).write_bytes(b"not tensors")
        with pytest.raises(ConfigError, match="could not be read without running code"):
            DISTS(str(tmp_path / name))
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ConfigError, match="holds a list; expected tensors by name"):
        DISTS(str(tmp_path / "list.pth"))


def test_bad_values_and_missing_terms_are_explained(path, monkeypatch):
    with pytest.raises(ConfigError, match="shorter_side=0: expected an integer >= 1"):
        DISTSFeatures(path, shorter_side=0)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LatentiqaError, match=r"pip install 'torchmetrics>=1.7.4'"):
        DISTS()
