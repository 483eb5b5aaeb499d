"""How far a term moves the estimate, and at which timesteps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentiqa.errors import ConfigError

if TYPE_CHECKING:
    from latentiqa.backbones.process import Rates
    from latentiqa.trajectory import Step

SCHEDULES: dict[str, Callable[[float, Rates], float]] = {
    "constant": lambda u, rates: 1.0,
    "linear": lambda u, rates: u,
    "cosine": lambda u, rates: (1 - math.cos(math.pi * u)) / 2,
    "noise": lambda u, rates: rates.noise,
}
"""Factor of the weight over t, from u (1 at the window's first timestep, 0 at its last) and rates.

``noise`` is the standard deviation of the noise in ``z_t``: far from the end the estimate is vague
and may be led, near it the model knows better. All are ours.
"""


def rms(x: Tensor) -> Tensor:
    """Root mean square of each picture's latents, ``(B, 1, 1, 1)``."""
    return x.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()


def check_weight(key: str, value: float) -> None:
    """Refuse what is no weight.

    Raises:
        ConfigError: it is negative or not finite.
    """
    if not 0 <= value < float("inf"):
        raise ConfigError(f"{key}={value}: expected a finite value >= 0.")


def check_window(key: str, window: Sequence[int] | None) -> tuple[int, int] | None:
    """The window as a pair ``(t_high, t_low)``.

    Raises:
        ConfigError: it is something else.
    """
    if window is None:
        return None
    if not (
        isinstance(window, Sequence)
        and len(window) == 2
        and all(isinstance(t, int) for t in window)
        and 999 >= window[0] >= window[1] >= 0
    ):
        raise ConfigError(
            f"{key}={window}: expected two timesteps [t_high, t_low] in 999..0, both inside, or "
            "null for all."
        )
    return window[0], window[1]


@dataclass(frozen=True)
class StepSize:
    """How far a term moves the estimate along its gradient.

    Args:
        weight: ``lambda`` for ``normalised``, ``zeta`` itself for ``raw``; 0 switches the term
            off, and its cost with it.
        normalisation: ``normalised`` takes ``zeta = lambda * RMS(z0) / RMS(grad)`` for each
            picture, so ``lambda`` is the relative size of the move; ``raw`` takes
            ``zeta = weight``. The paper publishes no step size: both are ours.
        schedule: a factor of the weight over t: ``constant``; ``linear`` or ``cosine``, from 1 at
            the window's first timestep to 0 at its last; ``noise``, the rate of noise in ``z_t``.
        window: ``[t_high, t_low]``, both inside; at other timesteps the term is off. All by
            default, and for the schedules 999 to 0.

    Raises:
        ConfigError: a value is outside its range.

    Example:
        >>> from latentiqa.backbones.process import Rates
        >>> StepSize(0.1, schedule="linear", window=[900, 100]).at(500, Rates(0.8, 0.6))
        0.05
    """

    weight: float = 0.1
    normalisation: str = "normalised"
    schedule: str = "constant"
    window: Sequence[int] | None = None

    def __post_init__(self) -> None:
        check_weight("guidance weight", self.weight)
        if self.normalisation not in {"normalised", "raw"}:
            raise ConfigError(
                f"guidance normalisation={self.normalisation!r}: expected 'normalised' or 'raw'."
            )
        if self.schedule not in SCHEDULES:
            raise ConfigError(
                f"guidance schedule={self.schedule!r}: expected one of {', '.join(SCHEDULES)}."
            )
        object.__setattr__(self, "window", check_window("guidance window", self.window))

    def at(self, t: int, rates: Rates) -> float:
        """The weight at a timestep.

        Args:
            t: 0..999.
            rates: of signal and noise at it.
        """
        high, low = self.window or (999, 0)
        if not high >= t >= low:
            return 0.0
        u = (t - low) / (high - low) if high > low else 1.0
        return self.weight * SCHEDULES[self.schedule](u, rates)

    def move(self, z0: Tensor, gradient: Tensor, step: Step) -> Tensor:
        """``zeta * gradient``; a vanishing gradient moves nothing.

        Args:
            z0: what is moved, ``(B, C, h, w)``.
            gradient: the same shape.
            step: tells the timestep.

        Returns:
            ``(B, C, h, w)``, to be subtracted.
        """
        weight = self.at(step.t, step.rates)
        if self.normalisation == "raw":
            return weight * gradient
        tiny = torch.finfo(gradient.dtype).tiny
        return weight * rms(z0.detach()) / rms(gradient).clamp_min(tiny) * gradient
