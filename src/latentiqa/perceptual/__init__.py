"""psi: the perceptual features that guidance compares pictures by.

A psi is called with pictures ``(B, 3, H, W)`` in [0, 1] and the backbone, and returns a list of
feature tensors ``(B, ...)``, differentiable with respect to the pictures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from latentiqa.backbones.ldm import LatentDiffusion


class Psi(Protocol):
    """What every psi offers; see the module's docstring."""

    def __call__(self, image: Tensor, backbone: LatentDiffusion) -> list[Tensor]:
        """Features of the pictures."""
        ...


@runtime_checkable
class PooledPsi(Protocol):
    """What a psi offers whose features can stand by themselves, as vectors of fixed length."""

    def widths(self, pooling: str) -> dict[str, int]:
        """Name of each statistic and its length C, known before any picture is seen."""
        ...

    def statistics(self, image: Tensor, pooling: str) -> dict[str, Tensor]:
        """Statistics ``(B, C)`` float32 of pictures ``(B, 3, H, W)`` in [0, 1], by name."""
        ...


def empty() -> None:
    """Psi = empty: PMG without its perceptual term, the paper's second variant."""
