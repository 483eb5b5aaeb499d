"""Pseudo-labels: what full-reference metrics say of a distorted picture and its original.

No person said any of it. A model that is taught by them learns what the metric sees, and what it
does not see: PSNR and SSIM disagree with people on many of KADID-10k's distortions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from latentiqa.errors import ConfigError

BEST_PSNR = 60.0
"""In dB, of equal pictures and all that are nearer than rounding to 8 bits, which costs 59 dB."""

SMALLEST_MS_SSIM = 176
"""Least side of a picture in pixels: four halvings leave the 11 pixels of its window."""

Against = Callable[[Tensor], float]


def psnr(original: Tensor) -> Against:
    """Peak signal-to-noise ratio in dB, at most `BEST_PSNR`."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    return lambda picture: min(
        float(peak_signal_noise_ratio(picture, original, data_range=1.0)), BEST_PSNR
    )


def ssim(original: Tensor) -> Against:
    """Structural similarity (Wang et al., TIP 2004), the mean of the three channels."""
    from torchmetrics.functional.image import structural_similarity_index_measure as measure

    return lambda picture: float(_number(measure(picture[None], original[None], data_range=1.0)))


def ms_ssim(original: Tensor) -> Against:
    """Multi-scale structural similarity (Wang, Simoncelli and Bovik, 2003)."""
    from torchmetrics.functional.image import (
        multiscale_structural_similarity_index_measure as measure,
    )

    height, width = original.shape[-2:]
    if min(height, width) < SMALLEST_MS_SSIM:
        raise ConfigError(
            f"label='ms_ssim' on a picture of {width} x {height}: expected sides of "
            f"{SMALLEST_MS_SSIM} pixels or more; use larger pictures, or label=ssim"
        )
    return lambda picture: float(measure(picture[None], original[None], data_range=1.0))


def lpips(original: Tensor) -> Against:
    """Shift-tolerant LPIPS with AlexNet, a distance, see `latentiqa.perceptual.lpips`."""
    from latentiqa.perceptual.lpips import LPIPSFeatures

    features = LPIPSFeatures()

    @torch.inference_mode()
    def distance(picture: Tensor) -> float:
        pairs = zip(features(picture[None]), of_original, strict=True)
        return float(torch.stack([(x - y).square().sum() for x, y in pairs]).sum())

    with torch.inference_mode():
        of_original = features(original[None])
    return distance


class Metric(NamedTuple):
    """A full-reference metric.

    Attributes:
        against: takes an original, (3, H, W) in [0, 1], and gives what takes a picture of the
            same shape and gives the score.
        ends: of its scale.
        higher_is_better: its direction.
    """

    against: Callable[[Tensor], Against]
    ends: tuple[float, float]
    higher_is_better: bool = True

    def range_of(self, scores: Iterable[float]) -> tuple[tuple[float, float], bool]:
        """Ends of the scale, the upper one moved where a score is above, and its direction."""
        low, high = self.ends
        return (low, max(high, max(scores))), self.higher_is_better


METRICS: dict[str, Metric] = {
    "psnr": Metric(psnr, (0.0, BEST_PSNR)),
    "ssim": Metric(ssim, (-1.0, 1.0)),
    "ms_ssim": Metric(ms_ssim, (0.0, 1.0)),
    "lpips": Metric(lpips, (0.0, 1.0), higher_is_better=False),
}


def check_metric(label: str) -> None:
    """Make sure that pseudo-labels of this name can be had.

    Raises:
        ConfigError: no such metric.
        LatentiqaError: its weights are not installed.
    """
    if label not in METRICS:
        raise ConfigError(
            f"label={label!r}: expected level, or for pseudo-labels one of {', '.join(METRICS)}"
        )
    if label == "lpips":
        from latentiqa.perceptual.lpips import weight_file

        weight_file("alex")


def _number(value: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """The score, of a function that could return a map beside it."""
    return value[0] if isinstance(value, tuple) else value
