"""Manifold-preserving guided diffusion (MPGD; He et al., ICLR 2024).

    LDM:          z_{0|t} <- z_{0|t} - c_t * grad_{z_{0|t}} L(D(z_{0|t}), y)
    autoencoder:  z_{0|t} <- E(x - c_t * grad_x L(x, y)),   x = D(z_{0|t})

The noise prediction is a constant in both: no gradient passes the U-Net (their "shortcut"). A
latent diffusion model's estimate stays on the manifold of the decoder's pictures by itself
(MPGD-LDM, which is PMG's measurement term with ``route=latent``); in pixels a guided picture is
brought back there by an autoencoder (MPGD-AE), of a latent model the one that it has. With the
squared distance to the picture itself as the loss L, ``x - c_t grad_x L = x + 2 c_t (y - x)``:
a step towards y in pixels, and no backward pass at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from latentiqa.errors import ConfigError
from latentiqa.guidance.base import DecodingGuidance
from latentiqa.guidance.distances import squared
from latentiqa.guidance.step_size import StepSize
from latentiqa.guidance.terms import gradient, pixel_term

if TYPE_CHECKING:
    from latentiqa.backbones.ldm import LatentDiffusion
    from latentiqa.trajectory import Guide, Step


@dataclass(frozen=True)
class MPGD(DecodingGuidance):
    """Manifold-preserving guided diffusion.

    Args:
        step_size: c_t; with ``projection=autoencoder`` it is one in pixels.
        projection: ``ldm`` or ``autoencoder``, see above.
        decoder: see `DecodingGuidance`; a projection encodes with the backbone's encoder.
        checkpointing: see there.

    Raises:
        ConfigError: a value is outside its range.
    """

    step_size: StepSize = field(default_factory=StepSize)
    projection: str = "autoencoder"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.projection not in {"ldm", "autoencoder"}:
            raise ConfigError(
                f"guidance.projection={self.projection!r}: expected 'ldm' or 'autoencoder'."
            )

    def bind(self, image: Tensor, backbone: LatentDiffusion) -> Guide:
        """The correction of one step over these pictures; see `Guidance.bind`."""
        decode = self.prepare(image, backbone)
        loss = pixel_term(image, decode, squared)

        def in_latents(step: Step) -> Tensor:
            return step.z0 - self.step_size.move(step.z0, gradient(loss, step), step)

        def in_pixels(step: Step) -> Tensor:
            x = decode(step.z0)
            return backbone.encode(x - self.step_size.move(x, 2 * (x - image), step))

        correct = in_pixels if self.projection == "autoencoder" else in_latents

        def guide(step: Step) -> Tensor:
            return correct(step) if self.step_size.at(step.t, step.rates) > 0 else step.z0

        return guide
