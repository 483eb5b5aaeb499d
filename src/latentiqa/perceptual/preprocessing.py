"""What networks expect of a picture: value range, size, crop; all of it differentiable."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from latentiqa.errors import ConfigError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of ImageNet's pixels in [0, 1]."""

FILTERS = {2: "bilinear", 3: "bicubic"}
"""Numbers of Pillow's filters and PyTorch's names of them."""


def normalise(
    image: Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> Tensor:
    """``(image - mean) / std`` for each channel of ``(B, 3, H, W)``."""
    centre, spread = (image.new_tensor(value).view(3, 1, 1) for value in (mean, std))
    return (image - centre) / spread


def resize(image: Tensor, size: tuple[int, int], mode: str = "bicubic") -> Tensor:
    """Resize as Pillow does, without its rounding to 8 bits.

    Pillow's filters widen where they shrink, and its cubic has a = -0.5; PyTorch does the same
    with ``antialias``. Nothing is clipped: that would cut the gradient where a cubic overshoots.

    Args:
        image: ``(B, 3, H, W)``.
        size: height and width to reach, >= 1.
        mode: ``bicubic`` or ``bilinear``.

    Returns:
        ``(B, 3, *size)``; the picture itself where it has that size.
    """
    if tuple(image.shape[-2:]) == size:
        return image
    return F.interpolate(image, size=size, mode=mode, antialias=True, align_corners=False)


def half(image: Tensor) -> Tensor:
    """A picture of half the size, ``(B, 3, H // 2, W // 2)``, as ``Image.resize`` makes it."""
    return resize(image, (image.shape[-2] // 2, image.shape[-1] // 2))


def with_shorter_side(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Height and width in proportion, the longer one rounded down.

    Example:
        >>> with_shorter_side((600, 401), 224)
        (335, 224)
    """
    height, width = size
    if height <= width:
        return shorter, int(shorter * width / height)
    return int(shorter * height / width), shorter


@dataclass(frozen=True)
class Preprocessing:
    """What a ``preprocessor_config.json`` of transformers says of resizing and value range.

    Args:
        shorter_side: the picture's after resizing in proportion, pixels.
        crop: height and width of the part in the middle that is seen.
        mean: subtracted from each channel of a picture in [0, 1].
        std: each channel is divided by it after that.
        mode: ``bicubic`` or ``bilinear``.

    Example:
        >>> import torch
        >>> Preprocessing(shorter_side=8, crop=(6, 6))(torch.rand(1, 3, 16, 32)).shape
        torch.Size([1, 3, 6, 6])
    """

    shorter_side: int
    crop: tuple[int, int]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    mode: str = "bicubic"

    def __call__(self, image: Tensor) -> Tensor:
        """Pictures ``(B, 3, H, W)`` in [0, 1] as the network expects them."""
        size = (image.shape[-2], image.shape[-1])
        image = resize(image, with_shorter_side(size, self.shorter_side), self.mode)
        top, left = ((n - m) // 2 for n, m in zip(image.shape[-2:], self.crop, strict=True))
        image = image[..., top : top + self.crop[0], left : left + self.crop[1]]
        return normalise(image, self.mean, self.std)

    @classmethod
    def from_file(cls, path: Path) -> Preprocessing:
        """Read transformers' ``preprocessor_config.json``.

        Raises:
            ConfigError: it says something that is not done here.
        """
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        mode: Any = FILTERS.get(told.get("resample", 3))
        # Any: whatever the file holds; it is checked below.
        side: Any = told.get("size")
        crop: Any = told.get("crop_size")
        side = side.get("shortest_edge") if isinstance(side, dict) else side
        crop = (crop.get("height"), crop.get("width")) if isinstance(crop, dict) else (crop, crop)
        normal: list[Any] = [told.get(key) for key in ("image_mean", "image_std")]
        done = all(told.get(f"do_{step}", True) for step in ("resize", "center_crop", "normalize"))
        sizes = all(isinstance(value, int) for value in (side, *crop)) and 0 < max(crop) <= side
        values = all(isinstance(value, list) and len(value) == 3 for value in normal)
        if not (done and sizes and values and mode):
            raise ConfigError(
                f"{path}: {told}; expected that pictures are resized (size: a shortest_edge in "
                "pixels; resample: 2 or 3), cropped (crop_size: at most the shortest_edge) and "
                "normalised (image_mean, image_std: of three channels)."
            )
        mean, std = (tuple(value) for value in normal)
        return cls(side, crop, mean, std, mode)
