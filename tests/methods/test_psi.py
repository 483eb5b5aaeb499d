from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf

from latentiqa.commands.launch import build
from latentiqa.commands.search_path import config_folder
from latentiqa.hyperfeatures.pooling import POOLINGS
from latentiqa.methods.psi import PsiFeatures
from latentiqa.perceptual import PooledPsi, empty
from latentiqa.perceptual.efficientnet import EfficientNetFeatures, EfficientNetLite
from latentiqa.perceptual.lpips import LPIPS, LPIPSFeatures
from latentiqa.perceptual.nss import NSS
from latentiqa.perceptual.sd import BackboneFeatures

PSIS = [
    NSS(scales=3),
    EfficientNetFeatures(["block.1", "head"]),
    LPIPSFeatures("alex"),
    LPIPSFeatures("vgg"),
]


def moments(maps: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Mean and the population's standard deviation over pixels, in double precision."""
    flat = {name: x.double().flatten(2) for name, x in maps.items()}
    return {
        f"{name}/{statistic}": value
        for name, x in flat.items()
        for statistic, value in (
            ("mean", x.mean(2)),
            ("std", (x - x.mean(2, keepdim=True)).square().mean(2).sqrt()),
        )
    }


def same(features, expected, rtol=1e-4, atol=1e-5):
    assert list(features) == list(expected)
    for name, value in features.items():
        torch.testing.assert_close(value.double(), expected[name].double(), rtol=rtol, atol=atol)


def test_efficientnet_gives_the_moments_of_its_maps(pictures):
    image, names = pictures
    blocks = ["stem", "block.3", "head"]
    features = PsiFeatures("e", EfficientNetFeatures(blocks), "mean_std")
    maps = EfficientNetLite()(image, blocks)
    expected = moments({f"e/{name}": value for name, value in maps.items()})
    same(features.hyperfeatures(image, names), expected)


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_gives_the_moments_of_the_calibrated_unit_vectors(net, pictures):
    image, names = pictures[0][:2], pictures[1][:2]
    features = PsiFeatures("l", LPIPSFeatures(net), "mean_std").hyperfeatures(image, names)
    lpips = LPIPS(net)
    maps = {f"l/stage.{i}": x for i, x in enumerate(lpips.maps(image))}
    same(features, moments(maps))
    for x, weight in zip(maps.values(), lpips.weights, strict=True):
        used = weight > 0
        unit = x[:, used] / weight[used].sqrt().view(-1, 1, 1)
        assert (unit.square().sum(1) < 1 + 1e-4).all()
        assert not x[:, ~used].any()


def test_nss_gives_its_features_by_scale_whatever_the_pooling(pictures):
    image, names = pictures
    [expected] = NSS(scales=2)(image)
    for pooling in POOLINGS:
        features = PsiFeatures("nss", NSS(scales=2), pooling).hyperfeatures(image, names)
        same(features, {"nss/scale0": expected[:, :20], "nss/scale1": expected[:, 20:]})


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("psi", PSIS, ids=str)
def test_widths_tell_names_order_and_lengths(psi, pooling, pictures):
    image, names = pictures[0][:2], pictures[1][:2]
    method = PsiFeatures("any name", psi, pooling)
    features = method.hyperfeatures(image, names)
    assert {name: value.shape[1] for name, value in features.items()} == method.widths
    assert list(features) == list(method.widths)
    assert all(name.startswith("any name/") for name in features)
    assert all(value.dtype == torch.float32 for value in features.values())


@pytest.mark.parametrize("psi", PSIS, ids=str)
def test_a_picture_alone_has_the_features_that_it_has_in_a_batch(psi, pictures):
    image, names = pictures[0][:4], pictures[1][:4]
    method = PsiFeatures("psi", psi, "mean_std_correlation")
    batch = method.hyperfeatures(image.flip(0), names)
    alone = method.hyperfeatures(image[:1], ["another name.png"])
    for name, value in batch.items():
        # Maps of four pixels that hardly differ: their rounding is large beside their spread.
        tolerance = 1e-4 if name.endswith("/correlation") else 1e-5
        assert (alone[name][0] - value[3]).abs().max() <= tolerance * value.abs().max()


def test_the_recipe_is_the_psi_and_nothing_else():
    psis = [*PSIS, NSS(), NSS(window=9), EfficientNetFeatures()]
    recipes = [PsiFeatures("a", psi, "mean").recipe() for psi in psis]
    assert len({str(recipe) for recipe in recipes}) == len(psis)
    assert recipes == [PsiFeatures("b", psi, "mean_std").recipe() for psi in psis]
    assert recipes[0]["psi"] == {"class": "NSS", "scales": 3, "window": 7, "sigma": 7 / 6}


@pytest.mark.parametrize(
    ("choice", "blocks", "values"), [("efficientnet", 16, 6176), ("efficientnet_lite2", 21, 7472)]
)
def test_the_yardsticks_are_every_block_and_the_head(choice, blocks, values):
    config = OmegaConf.load(config_folder("conf") / "features" / f"{choice}.yaml")
    widths = PsiFeatures("e", build(config[choice]), "mean_std").widths
    assert sum(widths.values()) == values
    assert list(widths)[:2] == ["e/block.0/mean", "e/block.0/std"]
    assert list(widths)[-1] == "e/head/std"
    assert len(widths) == 2 * (blocks + 1)


def test_a_psi_of_the_backbone_has_no_statistics_of_its_own():
    assert all(isinstance(psi, PooledPsi) for psi in PSIS)
    assert not isinstance(BackboneFeatures(), PooledPsi)
    assert not isinstance(empty(), PooledPsi)
