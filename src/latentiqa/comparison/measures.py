"""Full-reference measures of results against pristine pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from latentiqa.enhance.nlpd import nlpd
from latentiqa.errors import ConfigError, DataError

Measure = Callable[[Tensor, Tensor], Tensor]
"""A picture and the pristine one, both ``(1, 3, H, W)`` in [0, 1] -> one number."""


WINDOW = 11
"""Pixels a side that SSIM looks at together."""


def psnr(image: Tensor, pristine: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, higher is better."""
    return peak_signal_noise_ratio(image, pristine, data_range=1.0)


def ssim(image: Tensor, pristine: Tensor) -> Tensor:
    """Structural similarity, higher is better.

    Raises:
        DataError: the pictures have fewer than 11 pixels a side, the size of its window.
    """
    if min(image.shape[-2:]) < WINDOW:
        height, width = image.shape[-2:]
        raise DataError(f"SSIM of {width} x {height} pixels: expected {WINDOW} a side or more.")
    found = structural_similarity_index_measure(image, pristine, data_range=1.0)
    assert isinstance(found, Tensor)
    return found


def pyramid(image: Tensor, pristine: Tensor) -> Tensor:
    """Normalised Laplacian pyramid distance over all bands, lower is better."""
    return nlpd(image, pristine, bands="all")[0]


MEASURES: dict[str, Measure] = {"psnr": psnr, "ssim": ssim, "nlpd": pyramid}
"""Those that need no weights."""

TITLES = {"psnr": "PSNR (dB)", "ssim": "SSIM", "nlpd": "NLPD", "lpips": "LPIPS", "dists": "DISTS"}


def check_measures(names: Sequence[str]) -> None:
    """Refuse what is no measure.

    Raises:
        ConfigError: a name is not known, or stands twice.
    """
    if not set(names) <= TITLES.keys() or len(set(names)) < len(names):
        raise ConfigError(
            f"measures={list(names)}: expected some of {', '.join(TITLES)}, each once."
        )


@torch.no_grad()
def measured(image: Tensor, pristine: Tensor, measures: dict[str, Measure]) -> dict[str, float]:
    """What all measures say of a picture.

    Args:
        image: ``(3, H, W)`` in [0, 1].
        pristine: the same size.
        measures: by name.

    Example:
        >>> x = torch.full((3, 16, 16), 0.5)
        >>> round(measured(x + 0.1, x, {"psnr": psnr})["psnr"], 3)
        20.0
    """
    return {name: f(image[None], pristine[None]).item() for name, f in measures.items()}
