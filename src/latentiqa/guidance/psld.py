"""Posterior sampling with latent diffusion (PSLD; Rout et al., NeurIPS 2023).

    z_{t-1} <- z_{t-1} - omega * grad_{z_t} || y - A D(z_{0|t}) ||
                       - gamma * grad_{z_t} || z_{0|t} - E(A^T y + (I - A^T A) D(z_{0|t})) ||

The second is their gluing term (algorithm 2): it asks the estimate to be a fixed point of decoder
and encoder where the measurement says nothing, and to encode the measurement where it does. Here
the operator A is the identity, the measurement says everything, and the gluing term becomes
``|| z_{0|t} - E(y) ||``: the latent measurement that PMG offers as ``measured_in=latents``.
Algorithm 2 squares the norms; the authors' code does not, and neither is it squared here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from latentiqa.guidance.base import DecodingGuidance
from latentiqa.guidance.distances import l2
from latentiqa.guidance.step_size import check_weight
from latentiqa.guidance.terms import gradient, latent_term, pixel_term

if TYPE_CHECKING:
    from latentiqa.backbones.ldm import LatentDiffusion
    from latentiqa.trajectory import Guide, Step


@dataclass(frozen=True)
class PSLD(DecodingGuidance):
    """Posterior sampling with latent diffusion.

    Args:
        omega: step size of the measurement term; 0.1 in the authors' scripts.
        gamma: step size of the gluing term; 0.01 there.
        decoder: see `DecodingGuidance`.
        checkpointing: see there.

    Raises:
        ConfigError: a value is outside its range.
    """

    omega: float = 0.1
    gamma: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weight("guidance.omega", self.omega)
        check_weight("guidance.gamma", self.gamma)

    @property
    def through_unet(self) -> bool:
        """The gradients are with respect to ``z_t``."""
        return True

    def bind(self, image: Tensor, backbone: LatentDiffusion) -> Guide:
        """The correction of one step over these pictures; see `Guidance.bind`."""
        measurement = pixel_term(image, self.prepare(image, backbone), l2)
        gluing = latent_term(image, backbone, l2)

        def error(z0: Tensor) -> Tensor:
            return self.omega * measurement(z0) + self.gamma * gluing(z0)

        def guide(step: Step) -> Tensor:
            return step.z0 - step.as_estimate(gradient(error, step, through_unet=True))

        return guide
