"""psi = DISTS: means, spreads and structure of the maps of a VGG-16.

Ding, Ma, Wang, Simoncelli, "Image Quality Assessment: Unifying Structure and Texture Similarity",
IEEE TPAMI 2020. The weights of its terms are inside torchmetrics (Apache-2.0; the authors' own,
MIT), of which only that file is read: the metric there needs torchvision. The VGG-16 is the one of
torchvision, trained on ImageNet; its file is the user's.
"""

from __future__ import annotations

import importlib.util
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentiqa.errors import LatentiqaError, check_integer
from latentiqa.hyperfeatures.pooling import pool_all, pooled_widths
from latentiqa.perceptual.lpips import vgg16
from latentiqa.perceptual.preprocessing import normalise, resize, with_shorter_side
from latentiqa.perceptual.weights import KnownByContent, fill, once_a_device, read_weights

if TYPE_CHECKING:
    from latentiqa.backbones.ldm import LatentDiffusion

CHANNELS = (3, 64, 128, 256, 512, 512)
"""Channels of the compared maps: the picture itself, then relu1_2 to relu5_3."""

FLOOR = 1e-6
"""The constants c1 and c2: similarities of what is absent are 1."""

WHERE = (
    "torchvision's VGG-16, https://download.pytorch.org/models/vgg16-397923af.pth (528 MB; its "
    "SHA-256 begins with 397923af), or the same tensors in safetensors."
)


class L2Pool(nn.Module):
    """Halves a map by the root of the blurred squares: no aliasing, no lost energy."""

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, h, w)`` -> ``(B, C, (h + 1) // 2, (w + 1) // 2)``; zeros lie around the map."""
        taps = x.new_tensor((0.25, 0.5, 0.25))  # a Hann window
        kernel = torch.outer(taps, taps).expand(x.shape[1], 1, 3, 3)
        # The constant keeps the slope finite where nothing answers.
        return (
            F.conv2d(x.square(), kernel, stride=2, padding=1, groups=len(kernel)) + 1e-12
        ).sqrt()


class DISTS(nn.Module):
    """DISTS, frozen: a distance of two pictures, differentiable in both.

    Args:
        path: VGG-16's weights, see `WHERE`; None leaves random ones.

    Raises:
        ConfigError: the file is not what it should be.
        LatentiqaError: torchmetrics' file with the weights of the terms is not there.

    Example:
        >>> dists = DISTS()
        >>> a, b = torch.rand(2, 4, 3, 32, 32)
        >>> dists(a, b).shape
        torch.Size([4])
        >>> [tuple(x.shape) for x in dists.maps(a)][-1]
        (4, 512, 2, 2)
    """

    alpha: Tensor
    beta: Tensor

    def __init__(self, path: str | None = None) -> None:
        super().__init__()
        self.stages = nn.ModuleList(vgg16(L2Pool))
        terms = torch.load(_terms_file(), map_location="cpu", weights_only=True)
        total = terms["alpha"].sum() + terms["beta"].sum()
        for name in ("alpha", "beta"):
            self.register_buffer(name, terms[name].detach().flatten() / total)
        if path is not None:
            fill(self.stages, read_weights(path), self._published_name, path)
        self.requires_grad_(False)
        self.eval()

    def _published_name(self, name: str) -> str:
        """``features.<n>.weight``, where n counts convolutions, activations and halvings."""
        stage, layer, kind = name.split(".")
        # L2 pooling stands where maximum pooling stood, so that the numbers fit.
        before = sum(len(stage) for stage in list(self.stages)[: int(stage)])  # type: ignore[arg-type]
        return f"features.{before + int(layer)}.{kind}"

    def maps(self, image: Tensor) -> list[Tensor]:
        """The compared maps.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1], in the dtype of the weights.

        Returns:
            Six tensors ``(B, C, h, w)``, C as in `CHANNELS`; the first is the picture.
        """
        maps, x = [image], normalise(image)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of pictures ``(B, 3, H, W)`` in [0, 1], ``(B,)``, 0 for equal ones.

        ``1 - sum alpha l + beta s``, written as differences: similarities close to 1 would lose
        their digits.
        """
        per_map = []
        weights = zip(*(x.split(CHANNELS) for x in (self.alpha, self.beta)), strict=True)
        for x, y, (alpha, beta) in zip(self.maps(a), self.maps(b), weights, strict=True):
            (mean_x, var_x, x), (mean_y, var_y, y) = _moments(x), _moments(y)
            texture = (mean_x - mean_y).square() / (mean_x.square() + mean_y.square() + FLOOR)
            structure = (x - y).square().mean(dim=(2, 3)) / (var_x + var_y + FLOOR)
            per_map.append((alpha * texture + beta * structure).sum(1))
        return torch.stack(per_map).sum(0)

    def features(self, image: Tensor) -> list[Tensor]:
        """Vectors whose squared distance is DISTS, for pictures that are close to each other.

        DISTS divides a squared difference by the size of both pictures' values, so it is no
        squared distance of any finite features. It has the same second-order term at equality as
        that of ``sqrt(alpha / 2) asinh(sqrt(2 / c) mean)``, ``sqrt(beta / 8) log(1 + 2 var / c)``
        and ``sqrt(beta) x / sqrt(n (2 var + c))`` of the centred map x of n pixels (the radial part
        of the last two is exact for spreads far from ``sqrt(c)`` = 0.001, and no more than a
        quarter too small there). Between distant pictures, where DISTS saturates, they keep a
        gradient. The construction is ours.

        Returns:
            Three tensors a map: ``(B, C)``, ``(B, C)``, ``(B, C, h, w)``.
        """
        out = []
        weights = zip(*(x.split(CHANNELS) for x in (self.alpha, self.beta)), strict=True)
        for x, (alpha, beta) in zip(self.maps(image), weights, strict=True):
            mean, var, x = _moments(x)
            size = (x.shape[-2] * x.shape[-1] * (2 * var + FLOOR)).sqrt()
            out += [
                (alpha / 2).sqrt() * torch.asinh((2 / FLOOR) ** 0.5 * mean),
                (beta / 8).sqrt() * torch.log1p(2 * var / FLOOR),
                x * (beta.sqrt() / size)[..., None, None],
            ]
        return out


@dataclass(frozen=True)
class DISTSFeatures(KnownByContent):
    """Features whose squared distance is DISTS near equality, see `DISTS.features`.

    In float32, loaded at the first call.

    Args:
        weights: VGG-16's file, see `WHERE`.
        shorter_side: larger pictures are reduced to it, as the authors do; None takes them as
            they are.

    Attributes:
        content: hash of the file; where it lies does not matter.

    Raises:
        ConfigError: there is no such file, or the side is no positive number.
    """

    weights: InitVar[str]
    shorter_side: int | None = 256
    content: str = field(init=False)

    def __post_init__(self, weights: str) -> None:
        if self.shorter_side is not None:
            check_integer("perceptual.shorter_side", self.shorter_side, 1)
        self._take(weights, WHERE)

    def __call__(self, image: Tensor, backbone: LatentDiffusion | None = None) -> list[Tensor]:
        """Features of the pictures.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1].
            backbone: unused; part of what every psi is called with.

        Returns:
            `DISTS.features` of the pictures, after the resizing.

        Raises:
            ConfigError: the file is not what it should be.
        """
        return self._network(image).features(self.resized(image))

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """DISTS of pictures ``(B, 3, H, W)`` in [0, 1], ``(B,)``, after the resizing."""
        return self._network(a)(self.resized(a), self.resized(b))

    def widths(self, pooling: str = "mean") -> dict[str, int]:
        """``stage.<i>/<statistic>`` and its channels, as in `CHANNELS`; stage 0 is the picture."""
        return pooled_widths({f"stage.{i}": n for i, n in enumerate(CHANNELS)}, pooling)

    def statistics(self, image: Tensor, pooling: str = "mean") -> dict[str, Tensor]:
        """`DISTS.maps` pooled over their pixels, ``(B, C)`` float32, named by `widths`.

        Raises:
            ConfigError: the file is not what it should be, or the pooling is not known.
        """
        maps = self._network(image).maps(self.resized(image))
        return pool_all({f"stage.{i}": x for i, x in enumerate(maps)}, pooling)

    def resized(self, image: Tensor) -> Tensor:
        """Pictures whose shorter side is `shorter_side` at most, float32."""
        image, size = image.float(), (image.shape[-2], image.shape[-1])
        if self.shorter_side is None or min(size) <= self.shorter_side:
            return image
        return resize(image, with_shorter_side(size, self.shorter_side), "bilinear")

    def _network(self, image: Tensor) -> DISTS:
        return _load(self, image.device)


def _moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance ``(B, C)`` of a map over its pixels, and the map less its mean."""
    mean = x.mean(dim=(2, 3), keepdim=True)
    x = x - mean
    return mean.flatten(1), x.square().mean(dim=(2, 3)), x


def _terms_file() -> Path:
    package = importlib.util.find_spec("torchmetrics")  # found, not imported
    for folder in (package and package.submodule_search_locations) or []:
        path = Path(folder) / "functional" / "image" / "dists_models" / "weights.pt"
        if path.is_file():
            return path
    raise LatentiqaError(
        "DISTS: the weights of its terms were not found; expected "
        "torchmetrics/functional/image/dists_models/weights.pt; pip install 'torchmetrics>=1.7.4'"
    )


@once_a_device
def _load(psi: DISTSFeatures) -> DISTS:
    return DISTS(psi.path)
