"""Quality models that a user might bring: callables of pictures (B, 3, H, W) in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor


def brightness(image: Tensor) -> Tensor:
    return image.mean(dim=(1, 2, 3))


def darkness(image: Tensor) -> Tensor:
    return -brightness(image)


def contrast(image: Tensor) -> Tensor:
    return image.flatten(1).std(dim=1)


def nothing(image: Tensor) -> Tensor:
    return brightness(image) * float("nan")


@torch.no_grad()
def flat(image: Tensor) -> Tensor:
    """Without a gradient."""
    return brightness(image)


def picky(image: Tensor) -> Tensor:
    """Refuses pictures of which more than half is black."""
    if (image < 0.1).float().mean() > 0.5:
        raise RuntimeError("too dark for me")
    return brightness(image)


def plain_number(image: Tensor) -> float:
    return brightness(image).mean().item()


NOT_CALLABLE = 3
