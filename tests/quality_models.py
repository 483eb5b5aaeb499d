"""Quality models that a user might bring: callables of pictures (B, 3, H, W) in [0, 1]."""

from __future__ import annotations

from torch import Tensor


def brightness(image: Tensor) -> Tensor:
    return image.mean(dim=(1, 2, 3))


def darkness(image: Tensor) -> Tensor:
    return -brightness(image)


def contrast(image: Tensor) -> Tensor:
    return image.flatten(1).std(dim=1)


def nothing(image: Tensor) -> Tensor:
    return brightness(image) * float("nan")


NOT_CALLABLE = 3
