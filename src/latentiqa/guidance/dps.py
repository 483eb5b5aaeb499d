"""Diffusion posterior sampling (DPS; Chung et al., ICLR 2023), in latent space.

    z_{t-1} <- z_{t-1} - zeta * grad_{z_t} || y - A(D(z_{0|t})) ||

Their algorithm 1 takes the gradient of the squared norm times ``zeta_t = zeta' / || y - A(x) ||``,
which is that of the norm times ``2 zeta'``; the authors' code takes the norm, as here. The
operator A is the identity: the picture itself is the measurement. Their ancestral step is this
trajectory's DDIM step, with ``timesteps.eta=1`` of the same variance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from latentiqa.guidance.base import DecodingGuidance
from latentiqa.guidance.distances import l2
from latentiqa.guidance.step_size import check_weight
from latentiqa.guidance.terms import gradient, pixel_term

if TYPE_CHECKING:
    from latentiqa.backbones.ldm import LatentDiffusion
    from latentiqa.trajectory import Guide, Step


@dataclass(frozen=True)
class DPS(DecodingGuidance):
    """Diffusion posterior sampling.

    PMG's measurement term with ``route=score``, ``measurement_distance=l2`` and raw steps differs
    in one thing: its step moves the clean-latent estimate, DPS's the next latents.

    Args:
        scale: zeta.
        decoder: see `DecodingGuidance`.
        checkpointing: see there.

    Raises:
        ConfigError: a value is outside its range.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weight("guidance.scale", self.scale)

    @property
    def through_unet(self) -> bool:
        """The gradient is with respect to ``z_t``."""
        return True

    def bind(self, image: Tensor, backbone: LatentDiffusion) -> Guide:
        """The correction of one step over these pictures; see `Guidance.bind`."""
        residual = pixel_term(image, self.prepare(image, backbone), l2)

        def guide(step: Step) -> Tensor:
            slope = gradient(residual, step, through_unet=True)
            return step.z0 - step.as_estimate(self.scale * slope)

        return guide
