"""What corrects a denoising step: nothing, Perceptual Manifold Guidance (PMG), or one of its peers.

A guidance is a small frozen description, a `Guidance`: ``bind(image, backbone)`` prepares what
depends on the picture and returns the callback of the trajectory (a `trajectory.Guide`, or
``None`` where there is nothing to correct); ``through_unet`` says whether that callback needs the
graph from ``z_t`` to the clean-latent estimate, ``passes`` how often a step is made.
`latentiqa.guidance.callback` takes one into the pipelines of diffusers.
"""

from __future__ import annotations

from latentiqa.guidance.base import DecodingGuidance, Guidance
from latentiqa.guidance.decoder import Decoder
from latentiqa.guidance.dps import DPS
from latentiqa.guidance.freedom import FreeDoM
from latentiqa.guidance.mpgd import MPGD
from latentiqa.guidance.none import NoGuidance
from latentiqa.guidance.pmg import PMG
from latentiqa.guidance.psld import PSLD
from latentiqa.guidance.step_size import StepSize

__all__ = [
    "DPS",
    "MPGD",
    "PMG",
    "PSLD",
    "Decoder",
    "DecodingGuidance",
    "FreeDoM",
    "Guidance",
    "NoGuidance",
    "StepSize",
]
