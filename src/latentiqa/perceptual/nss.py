"""psi = natural-scene statistics: moments of MSCN coefficients, differentiable.

After BRISQUE (Mittal, Moorthy, Bovik, "No-Reference Image Quality Assessment in the Spatial
Domain", IEEE TIP 2012). BRISQUE fits (asymmetric) generalised Gaussians; the fits look parameters
up in a table and have no gradient. The moments that those fits match are used in their place:
that, the bounded forms of skewness and kurtosis, the padding and the half-size filter are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from latentiqa.errors import ConfigError

if TYPE_CHECKING:
    from latentiqa.backbones.ldm import LatentDiffusion

LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601 weights of R, G, B."""

HALF = (0.125, 0.375, 0.375, 0.125)
"""Low-pass filter before every second pixel is dropped; between pixels, so nothing shifts."""

VARIANCE_FLOOR = 1e-4
"""In squared grey levels of 255: keeps the slope of the local deviation finite on flat areas."""

MOMENT_FLOOR = 1e-6
"""Keeps the normalised moments of MSCN coefficients, of order 1 on photos, defined on flat ones."""

MOMENTS = ("mean", "variance", "skewness", "inverse_kurtosis")
PAIRS = ("horizontal", "vertical", "main_diagonal", "secondary_diagonal")
PAIR_MOMENTS = ("mean", "mean_abs", "left_square", "right_square")
PER_SCALE = len(MOMENTS) + len(PAIRS) * len(PAIR_MOMENTS)


@dataclass(frozen=True)
class NSS:
    """Natural-scene statistics of the luma over scales, 20 features a scale.

    Of the MSCN coefficients: mean, variance, skewness ``m3 / sqrt(m2 m4)`` in [-1, 1] and inverse
    kurtosis ``m2^2 / m4`` in [0, 1]; bounded, so that no heavy tail outweighs the rest in a
    squared distance. Of the products of neighbours in four directions: mean, mean absolute value
    and mean squares of the negative and the positive part, the moments that BRISQUE's asymmetric
    fit matches. Gradients are finite everywhere, on constant pictures too.

    Args:
        scales: number of scales, >= 1; each has half the size of the one before.
        window: side of the Gaussian window in pixels, odd, >= 3.
        sigma: its standard deviation in pixels, > 0.

    Raises:
        ConfigError: a value is outside its range.

    Example:
        >>> [features] = NSS()(torch.rand(2, 3, 32, 32))
        >>> features.shape
        torch.Size([2, 40])
    """

    scales: int = 2
    window: int = 7
    sigma: float = 7 / 6

    def __post_init__(self) -> None:
        if self.scales < 1:
            raise ConfigError(f"perceptual.scales={self.scales}: expected 1 or more.")
        if self.window < 3 or self.window % 2 == 0:
            raise ConfigError(f"perceptual.window={self.window}: expected an odd number >= 3.")
        if not 0 < self.sigma < math.inf:
            raise ConfigError(f"perceptual.sigma={self.sigma}: expected a finite value > 0.")

    @property
    def feature_names(self) -> list[str]:
        """One name a feature, e.g. ``scale0.mscn.variance``, ``scale1.vertical.mean_abs``."""
        groups = [("mscn", MOMENTS), *((pair, PAIR_MOMENTS) for pair in PAIRS)]
        return [
            f"scale{scale}.{group}.{moment}"
            for scale in range(self.scales)
            for group, moments in groups
            for moment in moments
        ]

    def __call__(self, image: Tensor, backbone: LatentDiffusion | None = None) -> list[Tensor]:
        """Features of the pictures.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1], float32 or float64.
            backbone: unused; part of what every psi is called with.

        Returns:
            One tensor ``(B, 20 scales)``, named by `feature_names`.

        Raises:
            ConfigError: the last scale is smaller than the window.
        """
        height, width = image.shape[-2:]
        if min(height, width) // 2 ** (self.scales - 1) < self.window:
            raise ConfigError(
                f"perceptual.scales={self.scales}: a picture of {height} x {width} is smaller than "
                f"the window ({self.window}) at the last scale; use fewer scales or larger pictures"
            )
        # Local variances are small differences of large numbers: never in low precision.
        with torch.autocast(image.device.type, enabled=False):
            grey = luma(image)
            features = []
            for scale in range(self.scales):
                if scale > 0:
                    grey = blur(grey, grey.new_tensor(HALF), stride=2)
                coefficients = mscn(grey, gaussian(self.window, self.sigma).to(grey))
                features += moments(coefficients)
                for product in neighbour_products(coefficients):
                    features += pair_moments(product)
            return [torch.stack(features, dim=1)]

    def widths(self, pooling: str = "mean") -> dict[str, int]:
        """``scale<i>`` -> 20, whatever the pooling: moments are statistics already."""
        return {f"scale{scale}": PER_SCALE for scale in range(self.scales)}

    def statistics(self, image: Tensor, pooling: str = "mean") -> dict[str, Tensor]:
        """The features by scale, ``(B, 20)`` float32 each, named by `widths`.

        Raises:
            ConfigError: the last scale is smaller than the window.
        """
        [features] = self(image.float())
        return dict(zip(self.widths(), features.split(PER_SCALE, dim=1), strict=True))


def luma(image: Tensor) -> Tensor:
    """Grey levels ``(B, 1, H, W)`` in [0, 255] of RGB ``(B, 3, H, W)`` in [0, 1]."""
    return 255 * torch.einsum("bchw,c->bhw", image, image.new_tensor(LUMA)).unsqueeze(1)


def gaussian(window: int, sigma: float) -> Tensor:
    """Samples of a Gaussian, ``(window,)`` float64, sum 1."""
    x = torch.arange(window, dtype=torch.float64) - (window - 1) / 2
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    return kernel / kernel.sum()


def blur(x: Tensor, kernel: Tensor, stride: int = 1) -> Tensor:
    """Filter rows and columns ``(B, 1, H, W)`` by ``kernel`` (K,), edge pixels repeated outwards.

    Returns:
        ``(B, 1, H // stride, W // stride)``.
    """
    pad = (len(kernel) - stride) // 2
    x = F.pad(x, (pad, pad, pad, pad), mode="replicate")
    x = F.conv2d(x, kernel.view(1, 1, -1, 1), stride=(stride, 1))
    return F.conv2d(x, kernel.view(1, 1, 1, -1), stride=(1, stride))


def mscn(grey: Tensor, kernel: Tensor) -> Tensor:
    """Mean-subtracted contrast-normalised coefficients ``(I - mu) / (sigma + 1)``, eqs. 1 to 3.

    Args:
        grey: ``(B, 1, H, W)`` in [0, 255]; edges are padded by repetition.
        kernel: ``(K,)``, sum 1.
    """
    # A shift changes nothing but the rounding of the difference of squares, for the better.
    grey = grey - 127.5
    mu = blur(grey, kernel)
    variance = (blur(grey.square(), kernel) - mu.square()).clamp_min(0)
    return (grey - mu) / ((variance + VARIANCE_FLOOR).sqrt() + 1)


def moments(x: Tensor) -> list[Tensor]:
    """`MOMENTS` of each picture's coefficients ``(B, 1, H, W)``, each ``(B,)``."""
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    m2, m3, m4 = ((x - mean).pow(power).mean(dim=(1, 2, 3)) for power in (2, 3, 4))
    skewness = m3 / ((m2 + MOMENT_FLOOR) * (m4 + MOMENT_FLOOR)).sqrt()
    return [mean.flatten(), m2, skewness, m2.square() / (m4 + MOMENT_FLOOR)]


def neighbour_products(x: Tensor) -> list[Tensor]:
    """Products of neighbours in the directions of `PAIRS`, eqs. 7 to 10, within the picture."""
    return [
        x[..., :, :-1] * x[..., :, 1:],
        x[..., :-1, :] * x[..., 1:, :],
        x[..., :-1, :-1] * x[..., 1:, 1:],
        x[..., :-1, 1:] * x[..., 1:, :-1],
    ]


def pair_moments(x: Tensor) -> list[Tensor]:
    """`PAIR_MOMENTS` of each picture's products ``(B, 1, h, w)``, each ``(B,)``."""
    parts = (x, x.abs(), x.clamp_max(0).square(), x.clamp_min(0).square())
    return [part.mean(dim=(1, 2, 3)) for part in parts]
