"""Training-free energy guidance with time travel (FreeDoM; Yu et al., ICCV 2023).

    z_{t-1} <- z_{t-1} - rho_t * grad_{z_t} E(c, z_{0|t})
    z_t     <- a_t/a_{t-1} z_{t-1} + b_{t|t-1} n,   and the step again

The first line is their algorithm 1, both are algorithm 2; a and b are the rates of
`latentiqa.backbones.process`.

The energy is a distance in the features of a network that was trained on clean pictures: here
``E = || psi(y) - psi(D(z_{0|t})) ||``, the condition c being the picture itself. Their step is an
ancestral one; ``timesteps.eta=1`` has its variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from latentiqa.errors import check_integer
from latentiqa.guidance.base import DecodingGuidance
from latentiqa.guidance.distances import l2
from latentiqa.guidance.step_size import StepSize, check_window
from latentiqa.guidance.terms import gradient, perceptual_term, pixel_term

if TYPE_CHECKING:
    from latentiqa.backbones.ldm import LatentDiffusion
    from latentiqa.perceptual import Psi
    from latentiqa.trajectory import Guide, Step


@dataclass(frozen=True)
class FreeDoM(DecodingGuidance):
    """Energy guidance with time travel.

    Without travelling it is PMG's perceptual term alone, with ``route=score`` and
    ``perceptual_distance=l2``.

    Args:
        psi: the energy's features; ``None`` compares pixels.
        step_size: ``rho_t / a_{t-1}``: it moves the estimate. The paper chooses rho by
            the task; its code divides by the gradient's RMS, as ``normalised`` does.
        passes_each: r_t, how often each step is made: after all but the last of them the
            trajectory travels back; 1 travels never. The authors' take 1, 3 or 10.
        travel_window: ``[t_high, t_low]``, where steps are made so often, as they do in the middle
            of the trajectory; everywhere by default.
        decoder: see `DecodingGuidance`.
        checkpointing: see there.

    Raises:
        ConfigError: a value is outside its range.
    """

    psi: Psi | None = None
    step_size: StepSize = field(default_factory=StepSize)
    passes_each: int = 2
    travel_window: Sequence[int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("guidance.passes_each", self.passes_each, least=1)
        window = check_window("guidance.travel_window", self.travel_window)
        object.__setattr__(self, "travel_window", window)

    @property
    def through_unet(self) -> bool:
        """The gradient is with respect to ``z_t``."""
        return True

    def passes(self, t: int) -> int:
        """r_t, inside the window."""
        high, low = self.travel_window or (999, 0)
        return self.passes_each if high >= t >= low else 1

    def bind(self, image: Tensor, backbone: LatentDiffusion) -> Guide:
        """The correction of one step over these pictures; see `Guidance.bind`."""
        decode = self.prepare(image, backbone)
        if self.psi is None:
            energy = pixel_term(image, decode, l2)
        else:
            energy = perceptual_term(self.psi, image, backbone, decode, l2)

        def guide(step: Step) -> Tensor:
            if self.step_size.at(step.t, step.rates) == 0:
                return step.z0
            slope = gradient(energy, step, through_unet=True)
            return step.z0 - self.step_size.move(step.z0, slope, step)

        return guide
