"""The control: a trajectory that nothing corrects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from latentiqa.guidance.base import Guidance

if TYPE_CHECKING:
    from torch import Tensor

    from latentiqa.backbones.ldm import LatentDiffusion


@dataclass(frozen=True)
class NoGuidance(Guidance):
    """Plain DDIM."""

    def bind(self, image: Tensor, backbone: LatentDiffusion) -> None:
        """There is nothing to correct."""
