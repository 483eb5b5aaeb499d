"""What a trajectory passes through."""

from __future__ import annotations

import pytest
import torch

from latentiqa.backbones.addresses import Layers
from latentiqa.errors import ConfigError
from latentiqa.guidance import PMG, FreeDoM, NoGuidance, StepSize
from latentiqa.methods.lgdm import LGDM
from latentiqa.perceptual.nss import NSS
from latentiqa.trace import measure, principal_colours, trace
from latentiqa.trajectory import Timesteps

LATENT = PMG(None, StepSize(0.05), measured_in="latents")


@pytest.fixture(autouse=True)
def _one_thread():
    """More would wait for each other on the micro model."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def image(pictures):
    return pictures[0][:1].double()


def lgdm(micro64, guidance, values=(60, 20)) -> LGDM:
    layers = Layers(["mid.resnet.0", "up.3.resnet.0"])
    return LGDM(micro64, Timesteps(values), layers, guidance, pooling="mean", seed=3)


TRAVELS = FreeDoM(step_size=StepSize(0.05), passes_each=2)


@pytest.mark.parametrize(
    "guidance", [NoGuidance(), LATENT, TRAVELS], ids=["none", "pmg", "freedom"]
)
def test_the_maps_are_those_of_the_hyperfeatures(micro64, image, guidance):
    method = lgdm(micro64, guidance)
    found = trace(method, image, "a.png")
    features = method.hyperfeatures(image, ["a.png"])
    assert list(found.maps) == list(found.predicted) == [60, 20]
    for t, maps in found.maps.items():
        for layer, value in maps.items():
            torch.testing.assert_close(value.float().mean((2, 3)), features[f"{t}/{layer}/mean"])
    same = all(torch.equal(found.predicted[t], found.corrected[t]) for t in (60, 20))
    assert same == isinstance(guidance, NoGuidance)


def test_at_timestep_0_there_is_nothing_to_go_to(micro64, image):
    found = trace(lgdm(micro64, NoGuidance(), (60, 0)), image, "a.png")
    assert list(found.maps) == [60, 0]
    assert list(found.predicted) == [60]


def test_a_correction_towards_the_picture_shortens_the_distance(micro64, image):
    found = trace(lgdm(micro64, LATENT, (600, 20)), image, "a.png")
    estimates = [found.predicted[600], found.corrected[600], micro64.encode(image)]

    def metric(picture, names):
        assert names == ["a.png"]
        assert picture.min() >= 0
        return picture.mean()[None]

    figures = measure(micro64, image, estimates, NSS(), metric, "a.png")
    assert list(figures) == ["pixels", "latents", "score", "psi"]
    assert figures["latents"][0] > figures["latents"][1] > figures["latents"][2] == 0
    decoded = micro64.decode(estimates[0])
    rms = (decoded - image).square().mean().sqrt().item()
    assert figures["pixels"][0] == pytest.approx(rms)
    assert figures["score"][0] == pytest.approx(decoded.clamp(0, 1).mean().item())
    moved = NSS()(decoded, micro64)[0] - NSS()(image, micro64)[0]
    assert figures["psi"][0] == pytest.approx(moved.square().sum().item(), rel=1e-4)
    assert "psi" not in measure(micro64, image, estimates, None, metric, "a.png")


def test_components_and_scale_are_shared_by_the_timesteps():
    """Of maps in a plane of eight channels two components say all, and the third nothing."""
    generator = torch.Generator().manual_seed(0)
    plane = torch.linalg.qr(torch.randn(8, 2, generator=generator))[0].T
    coordinates = torch.randn(2, 36, 2, generator=generator) * torch.tensor([3.0, 1.0])
    maps = {
        t: (c @ plane).T.reshape(1, 8, 6, 6) for t, c in zip((100, 10), coordinates, strict=True)
    }
    colours = principal_colours(maps)
    assert list(colours) == [100, 10]
    both = torch.cat([x.flatten(0, 1) for x in colours.values()])
    assert both.min() == 0
    assert both.max() == 1
    for component in range(2):
        r = torch.corrcoef(
            torch.stack([both[:, component], coordinates.flatten(0, 1)[:, component]])
        )
        assert abs(r[0, 1]) > 0.97
    # Alone each would fill the range by itself.
    smaller = principal_colours({100: maps[100], 10: 0.1 * maps[10]})
    first, second = (smaller[t][..., :2].flatten(0, 1).std(0) for t in (100, 10))
    assert (second < 0.3 * first).all()
    turned = principal_colours({t: -x for t, x in maps.items()})
    torch.testing.assert_close(turned[10], 1 - colours[10], atol=0.05, rtol=0)


def test_sides_that_the_backbone_cannot_halve_are_told(micro64):
    with pytest.raises(ConfigError, match="100"):
        trace(lgdm(micro64, LATENT), torch.rand(1, 3, 100, 100, dtype=torch.float64), "a.png")
