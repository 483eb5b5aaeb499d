"""psi: the perceptual features that guidance compares pictures by.

A psi is called with pictures ``(B, 3, H, W)`` in [0, 1] and the backbone, and returns a list of
feature tensors ``(B, ...)``, differentiable with respect to the pictures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from latentiqa.backbones.ldm import LatentDiffusion


class Psi(Protocol):
    """What every psi offers; see the module's docstring."""

    def __call__(self, image: Tensor, backbone: LatentDiffusion) -> list[Tensor]:
        """Features of the pictures."""
        ...


def empty() -> None:
    """Psi = empty: PMG without its perceptual term, the paper's second variant."""
