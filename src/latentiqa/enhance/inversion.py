"""DDIM inversion, plain and by fixed-point iteration: what EDICT is compared with."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from latentiqa.enhance.chain import Chain, Noise, Step
from latentiqa.errors import check_integer


@dataclass(frozen=True, kw_only=True)
class DDIM(Chain):
    """DDIM with eta = 0 (Song, Meng and Ermon, ICLR 2021), undone approximately.

    ``z_s = a z_t + b e(z_t, t)`` cannot be solved for z_t, as the noise depends on it. The fixed
    point of ``z_t <- (z_s - b e(z_t, t)) / a``, from z_s on, solves it where the iteration
    converges (Pan et al., Effective Real Image Editing with Accelerated Iterative Diffusion
    Inversion, ICCV 2023; without their acceleration). One iteration is plain DDIM inversion.

    Args:
        iterations: of each step; 1 is plain.

    Raises:
        ConfigError: a value is outside its range.
    """

    iterations: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("space.chain.iterations", self.iterations, 1)

    def to_clean(self, state: Tensor, step: Step, noise: Noise) -> Tensor:
        """``z_s = a z_t + b e(z_t, t)`` for the state ``(1, B, C, h, w)``."""
        return step.a * state + step.b * noise(state[0], step.t)

    def to_noise(self, state: Tensor, step: Step, noise: Noise) -> Tensor:
        """``z_t = (z_s - b e(z_t, t)) / a``, iterated."""
        noisy = state
        for _ in range(self.iterations):
            noisy = (state - step.b * noise(noisy[0], step.t)) / step.a
        return noisy
