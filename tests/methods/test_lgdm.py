from __future__ import annotations

import pytest
import torch

from latentiqa.backbones.addresses import Layers
from latentiqa.errors import ConfigError, LatentiqaError
from latentiqa.guidance import DPS, MPGD, PMG, PSLD, FreeDoM, NoGuidance, StepSize
from latentiqa.methods.lgdm import LGDM
from latentiqa.perceptual.nss import NSS
from latentiqa.perceptual.sd import BackboneFeatures
from latentiqa.trajectory import Timesteps

UP = Layers(["up.*.resnet.*"])


def lgdm(tiny, guidance=None, **kwargs) -> LGDM:
    arguments = {"timesteps": Timesteps([60, 20]), "layers": UP, "pooling": "mean_std"} | kwargs
    return LGDM(tiny, guidance=guidance, **arguments)


@pytest.mark.parametrize(
    "guidance",
    [
        NoGuidance(),
        PMG(psi=BackboneFeatures()),
        PMG(psi=NSS()),
        PMG(psi=BackboneFeatures(), route="score"),
        DPS(),
        PSLD(),
        MPGD(),
        FreeDoM(psi=BackboneFeatures(), step_size=StepSize(0.02)),
    ],
    ids=["none", "sd", "nss", "score", "dps", "psld", "mpgd", "freedom"],
)
def test_features_are_the_same_alone_in_a_batch_and_in_another_order(micro64, pictures, guidance):
    image, names = pictures
    # Computed in float64, given in float32, whose last place this is.
    check_independence(lgdm(micro64, guidance), image.double(), names, 2e-7)


def test_features_in_single_precision_depend_on_no_neighbour(tiny, pictures):
    # Guidance enlarges float32's rounding, by how much depends on the CPU: above in float64.
    check_independence(lgdm(tiny), *pictures, 1e-5)


def check_independence(method, image, names, bound):
    batch = method.hyperfeatures(image, names)
    turned = method.hyperfeatures(image.flip(0), names[::-1])
    alone = method.hyperfeatures(image[3:4], names[3:4])
    for name, value in batch.items():
        scale = value.abs().max()
        assert (turned[name].flip(0) - value).abs().max() <= bound * scale
        assert (alone[name][0] - value[3]).abs().max() <= bound * scale


def test_the_seed_and_the_name_change_features(tiny, pictures):
    image, names = pictures
    one = lgdm(tiny).hyperfeatures(image[:1], names[:1])
    for other in (
        lgdm(tiny, seed=1).hyperfeatures(image[:1], names[:1]),
        lgdm(tiny).hyperfeatures(image[:1], ["another.png"]),
    ):
        # The spread of a map of one pixel is 0 whatever the noise.
        means = [name for name in one if name.endswith("/mean")]
        assert not any(torch.allclose(one[name], other[name]) for name in means)


def test_widths_tell_names_order_and_lengths(tiny, pictures):
    image, names = pictures
    method = lgdm(tiny, timesteps=Timesteps([60, 40, 20], use=[60, 20]))
    features = method.hyperfeatures(image, names)
    assert {name: value.shape[1] for name, value in features.items()} == method.widths
    assert list(features) == list(method.widths)
    assert len(features) == 2 * 12 * 2
    assert all(value.dtype == torch.float32 for value in features.values())


def test_hyperfeatures_are_the_pooled_maps(tiny, pictures):
    image, names = pictures
    method = lgdm(tiny, timesteps=Timesteps([20]))
    features = method.hyperfeatures(image, names)
    from latentiqa.noise import image_noise
    from latentiqa.trajectory import add_noise

    with torch.no_grad():
        z0 = tiny.encode(image)
        z_t = add_noise(z0, image_noise(names, 20, z0.shape[1:]), tiny.rates(20))
        maps = []
        hook = (
            tiny.unet.up_blocks[2]
            .resnets[1]
            .register_forward_hook(lambda *arguments: maps.append(arguments[2]))
        )
        tiny.unet(z_t, 20, **tiny.context("", 8))
        hook.remove()
    flat = maps[0].flatten(2)
    torch.testing.assert_close(features["20/up.2.resnet.1/mean"], flat.mean(2))
    torch.testing.assert_close(features["20/up.2.resnet.1/std"], flat.std(2, correction=0))


def test_the_recipe_holds_what_changes_values_and_only_that(tiny):
    base = lgdm(tiny).recipe()
    for changed in (
        lgdm(tiny, seed=1),
        lgdm(tiny, prompt="a photo"),
        lgdm(tiny, timesteps=Timesteps([60, 30])),
        lgdm(tiny, timesteps=Timesteps([60, 20], eta=0.5)),
        lgdm(tiny, timesteps=Timesteps([60, 20], noised=False)),
        lgdm(tiny, PMG()),
    ):
        assert changed.recipe() != base
    for same in (
        lgdm(tiny, layers=Layers(["mid.*"])),
        lgdm(tiny, pooling="mean"),
        lgdm(tiny, timesteps=Timesteps([60, 20], use=[20])),
    ):
        assert same.recipe() == base
    # A trajectory that ends at 60 makes one pass of it, a longer one two.
    freedom = FreeDoM(step_size=StepSize(0.02), passes_each=2)
    shorter = lgdm(tiny, freedom, timesteps=Timesteps([60, 20], use=[60]))
    assert shorter.recipe() != lgdm(tiny, freedom).recipe()
    last = lgdm(tiny, freedom, timesteps=Timesteps([60, 20], use=[20]))
    assert last.recipe() == lgdm(tiny, freedom).recipe()
    psis = [BackboneFeatures(), BackboneFeatures(timestep=1), NSS(), NSS(scales=1), None]
    recipes = [str(lgdm(tiny, PMG(psi=psi)).recipe()) for psi in psis]
    assert len(set(recipes)) == len(psis)


def test_values_that_are_not_finite_name_the_picture(tiny, pictures):
    image, names = pictures
    image = image.clone()
    image[2] = float("nan")
    with pytest.raises(LatentiqaError, match=r"photo \(2\).png are not finite"):
        lgdm(tiny).hyperfeatures(image, names)


def test_an_unknown_pooling_is_refused(tiny):
    with pytest.raises(ConfigError, match="pooling='max'"):
        lgdm(tiny, pooling="max")


@pytest.mark.parametrize("guidance", [NoGuidance(), PMG(psi=BackboneFeatures())])
def test_pictures_need_not_be_square(tiny, pictures, guidance):
    image, names = pictures
    wide = torch.cat([image[:2], image[2:4]], dim=3)  # (2, 3, 64, 128)
    method = lgdm(tiny, guidance, layers=Layers(["mid.*"]), timesteps=Timesteps([20]))
    both = method.hyperfeatures(wide, names[:2])
    alone = method.hyperfeatures(wide[1:], names[1:2])
    for name, value in both.items():
        assert (alone[name][0] - value[1]).abs().max() <= 1e-5 * value.abs().max()
    # The middle has a map of 1 x 2, so that there is a spread, unlike that of a square's 1 x 1.
    square = method.hyperfeatures(image[:1], names[:1])
    assert square["20/mid.resnet.0/std"].abs().max() < 1e-6
    assert both["20/mid.resnet.0/std"].abs().max() > 1e-3


def test_sides_that_the_latents_cannot_halve_are_refused(tiny):
    assert tiny.multiple == 64
    with pytest.raises(
        ConfigError, match=r"pictures of 96 x 64 pixels: .* multiples of 64; set vi"
    ):
        lgdm(tiny).hyperfeatures(torch.rand(1, 3, 64, 96), ["a.png"])
