"""What corrects a denoising step: nothing, or Perceptual Manifold Guidance.

A guidance is a small frozen description with two members: ``bind(image, backbone)`` prepares what
depends on the picture and returns the callback of the trajectory (a `trajectory.Guide`, or
``None`` where there is nothing to correct); ``through_unet`` says whether that callback needs the
graph from ``z_t`` to the clean-latent estimate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from latentiqa.guidance.none import NoGuidance
from latentiqa.guidance.pmg import PMG, StepSize

if TYPE_CHECKING:
    from torch import Tensor

    from latentiqa.backbones.ldm import LatentDiffusion
    from latentiqa.trajectory import Guide

__all__ = ["PMG", "Guidance", "NoGuidance", "StepSize"]


class Guidance(Protocol):
    """What every guidance offers; see the module's docstring."""

    @property
    def through_unet(self) -> bool:
        """Whether the callback differentiates through the U-Net."""
        ...

    def bind(self, image: Tensor, backbone: LatentDiffusion) -> Guide | None:
        """The callback for these pictures, ``(B, 3, H, W)`` in [0, 1]."""
        ...
