"""Deterministic chains between clean latents and noise: one interface for EDICT and DDIM.

A chain is a small frozen description. Its state at any timestep is one tensor ``(S, B, C, h, w)``:
S = 2 coupled copies of the latents for EDICT, S = 1 for DDIM.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from latentiqa.backbones.process import Rates
from latentiqa.errors import ConfigError, check_integer
from latentiqa.recipe import UNRECORDED

if TYPE_CHECKING:
    from latentiqa.backbones.ldm import LatentDiffusion

CLEAN = Rates(1.0, 0.0)
"""Where every chain begins: an encoded picture."""

Noise = Callable[[Tensor, int], Tensor]
"""Noisy latents ``(B, C, h, w)`` and their timestep -> the noise predicted in them."""


class Step(NamedTuple):
    """One step towards the clean end, ``z_s = a z_t + b e(z, t)`` (DDIM with eta = 0).

    Attributes:
        number: 1 is the one that arrives at the clean end.
        t: timestep that it leaves.
        a: a_s / a_t, of the rates of signal.
        b: b_s - a b_t, of the rates of noise.
    """

    number: int
    t: int
    a: float
    b: float


@dataclass(frozen=True, kw_only=True)
class Chain(ABC):
    """A deterministic way from clean latents to noisy ones, and back.

    Args:
        steps: of the whole way, 1 to 500; at the timesteps 1, 1 + d, 1 + 2 d, ... with
            d = 1000 // steps, as Stable Diffusion's schedule.
        at: the chain ends at its last timestep that is not above; 1000 is the whole way, and
            with 0 it has no step: noisy latents are the clean ones.
        prompt: what the denoiser is told.
        memory: how the backward pass of `denoise` gets at the states between; each chain says
            what it knows.

    Attributes:
        COPIES: S.
        MEMORIES: what ``memory`` may be.

    Raises:
        ConfigError: a value is outside its range.
    """

    steps: int = 20
    at: int = 1000
    prompt: str = ""
    memory: str = field(default="checkpoint", metadata=UNRECORDED)

    COPIES = 1
    MEMORIES = ("checkpoint", "plain")

    def __post_init__(self) -> None:
        check_integer("space.chain.steps", self.steps, 1)
        check_integer("space.chain.at", self.at, 0)
        if self.steps > 500:
            raise ConfigError(f"space.chain.steps={self.steps}: expected an integer in 1..500.")
        if self.memory not in self.MEMORIES:
            raise ConfigError(
                f"space.chain.memory={self.memory!r}: expected one of {', '.join(self.MEMORIES)}."
            )

    @property
    def timesteps(self) -> tuple[int, ...]:
        """The timesteps of its noisy states, rising.

        Example:
            >>> from latentiqa.enhance.inversion import DDIM
            >>> DDIM(steps=4).timesteps, DDIM(steps=4, at=300).timesteps
            ((1, 251, 501, 751), (1, 251))
        """
        spacing = 1000 // self.steps
        return tuple(t for t in range(1, 1 + spacing * self.steps, spacing) if t <= self.at)

    def coefficients(self, rates: Callable[[int], Rates]) -> list[Step]:
        """Its steps, from the clean end on; ``rates`` are the backbone's."""
        made, cleaner = [], CLEAN
        for number, t in enumerate(self.timesteps, 1):
            a = cleaner.signal / rates(t).signal
            made.append(Step(number, t, a, cleaner.noise - a * rates(t).noise))
            cleaner = rates(t)
        return made

    @torch.no_grad()
    def invert(self, backbone: LatentDiffusion, z0: Tensor) -> Tensor:
        """Noisy latents that `denoise` takes to the clean ones, as exactly as the chain can.

        Args:
            backbone: the frozen model.
            z0: clean latents ``(B, C, h, w)``; the chain runs in their dtype, and the model in
                its own. Float64 costs nothing beside the model; what a model in float32 then errs
                by is its own rounding of states that differ in the last bit.

        Returns:
            State ``(S, B, C, h, w)`` in the dtype of ``z0``.
        """
        noise, state = self._noise(backbone, len(z0)), z0.expand(self.COPIES, *z0.shape)
        for step in self.coefficients(backbone.rates):
            state = self.to_noise(state, step, noise)
        return state.clone()

    def denoise(self, backbone: LatentDiffusion, state: Tensor) -> Tensor:
        """Take noisy latents to the clean end, differentiably.

        Args:
            backbone: the frozen model.
            state: ``(S, B, C, h, w)``.

        Returns:
            Clean latents ``(S, B, C, h, w)``.
        """
        noise = self._noise(backbone, state.shape[1])
        return self.run(state, self.coefficients(backbone.rates)[::-1], noise)

    def run(self, state: Tensor, steps: Sequence[Step], noise: Noise) -> Tensor:
        """Make the steps one after the other, with the memory that ``memory`` names."""
        from torch.utils.checkpoint import checkpoint

        for step in steps:
            if self.memory == "checkpoint":
                state = checkpoint(self.to_clean, state, step, noise, use_reentrant=False)
            else:
                state = self.to_clean(state, step, noise)
        return state

    @abstractmethod
    def to_clean(self, state: Tensor, step: Step, noise: Noise) -> Tensor:
        """One step towards the clean end."""

    @abstractmethod
    def to_noise(self, state: Tensor, step: Step, noise: Noise) -> Tensor:
        """That step undone."""

    def _noise(self, backbone: LatentDiffusion, batch_size: int) -> Noise:
        context = backbone.context(self.prompt, batch_size)
        return lambda z, t: backbone.predict_noise(z, t, context)[0]
