"""Perceptual Manifold Guidance (PMG; Saini et al., LGDM, ICML 2025).

    z'  = z_{0|t} - zeta1 * grad || y - D(z_{0|t}) ||^2           measurement term
    z'' = z'      - zeta2 * grad || psi(y) - psi(D(z')) ||^2      perceptual term

The paper gives the perceptual correction ``zeta2 * grad Phi(z_{0|t})``; that both terms act in
this order on the clean-latent estimate, the step sizes, the two gradient routes and all further
options are our reading.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentiqa.errors import ConfigError, check_integer
from latentiqa.guidance.base import DecodingGuidance
from latentiqa.guidance.distances import DISTANCES, check_distance
from latentiqa.guidance.step_size import StepSize
from latentiqa.guidance.terms import gradient, latent_term, perceptual_term, pixel_term

if TYPE_CHECKING:
    from latentiqa.backbones.ldm import LatentDiffusion
    from latentiqa.perceptual import Psi
    from latentiqa.trajectory import Guide, Step


@dataclass(frozen=True)
class PMG(DecodingGuidance):
    """Perceptual Manifold Guidance.

    Args:
        psi: the perceptual features; ``None`` leaves the measurement term alone (the paper's
            "psi = empty").
        measurement: step size of the measurement term.
        perceptual: step size of the perceptual term.
        route: what the gradient is taken with respect to. ``latent``: the clean-latent estimate,
            with the noise prediction held constant (manifold-preserving guidance, He et al., ICLR
            2024); ``score``: ``z_t``, through the U-Net as well (DPS, Chung et al., ICLR 2023).
        measured_in: where the measurement term compares: ``pixels``; or ``latents``, the distance
            of the estimate to ``E(y)``, which decodes nothing.
        measurement_distance: of `latentiqa.guidance.distances`: ``squared``, ``l2``, ``cosine``.
        perceptual_distance: likewise.
        repeats: how often both terms act at each timestep, 1 and more.
        decoder: see `DecodingGuidance`.
        checkpointing: see there.

    Raises:
        ConfigError: a value is outside its range.
    """

    psi: Psi | None = None
    measurement: StepSize = field(default_factory=StepSize)
    perceptual: StepSize = field(default_factory=StepSize)
    route: str = "latent"
    measured_in: str = "pixels"
    measurement_distance: str = "squared"
    perceptual_distance: str = "squared"
    repeats: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.route not in {"latent", "score"}:
            raise ConfigError(f"guidance.route={self.route!r}: expected 'latent' or 'score'.")
        if self.measured_in not in {"pixels", "latents"}:
            raise ConfigError(
                f"guidance.measured_in={self.measured_in!r}: expected 'pixels' or 'latents'."
            )
        check_distance("guidance.measurement_distance", self.measurement_distance)
        check_distance("guidance.perceptual_distance", self.perceptual_distance)
        check_integer("guidance.repeats", self.repeats, least=1)

    @property
    def through_unet(self) -> bool:
        """Whether gradients pass the U-Net, and the trajectory must keep its graph."""
        return self.route == "score"

    def bind(self, image: Tensor, backbone: LatentDiffusion) -> Guide:
        """The correction of one step over these pictures; see `Guidance.bind`."""
        decode = self.prepare(image, backbone)
        terms = []
        if self.measurement.weight > 0:
            distance = DISTANCES[self.measurement_distance]
            if self.measured_in == "latents":
                term = latent_term(image, backbone, distance)
            else:
                term = pixel_term(image, decode, distance)
            terms.append((self.measurement, term))
        if self.psi is not None and self.perceptual.weight > 0:
            distance = DISTANCES[self.perceptual_distance]
            term = perceptual_term(self.psi, image, backbone, decode, distance)
            terms.append((self.perceptual, term))

        def guide(step: Step) -> Tensor:
            move = torch.zeros_like(step.z0)
            for size, term in terms * self.repeats:
                if size.at(step.t, step.rates) > 0:
                    slope = gradient(term, step, move, through_unet=self.through_unet)
                    move = move + size.move(step.z0, slope, step)
            return (step.z0 - move).detach()

        return guide
