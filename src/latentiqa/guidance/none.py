"""The control: a trajectory that nothing corrects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from latentiqa.backbones.ldm import LatentDiffusion


@dataclass(frozen=True)
class NoGuidance:
    """Plain DDIM."""

    through_unet = False

    def bind(self, image: Tensor, backbone: LatentDiffusion) -> None:
        """There is nothing to correct."""
