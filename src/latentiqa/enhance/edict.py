"""EDICT: a denoising chain that is inverted exactly, and differentiated in flat memory.

Wallace, Gokul and Naik, "EDICT: Exact Diffusion Inversion via Coupled Transformations", CVPR 2023
(arXiv 2211.12446), section 4: two copies of the latents, each moved by the noise predicted in the
other one, as in an affine coupling layer, and then mixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from latentiqa.enhance.chain import Chain, Noise, Step
from latentiqa.errors import ConfigError
from latentiqa.recipe import UNRECORDED


@dataclass(frozen=True, kw_only=True)
class EDICT(Chain):
    """The paper's coupled denoising process with mixing layers, for a pair (x, y).

    Towards the clean end::

        x <- a x + b e(y, t)      (1)
        y <- a y + b e(x, t)      (2)
        x <- p x + (1 - p) y      (3)
        y <- p y + (1 - p) x      (4)

    Each line is undone exactly, the last one first. The two copies change their roles from step
    to step, as the paper does; which of them comes first at the clean end, it does not say: here
    x does. Both copies begin as the picture's latents.

    Args:
        mixing: p, in (0, 1]; by default 0.93 for 50 steps, as in the paper, and
            ``0.93^(50 / steps)`` for others, so that the copies are mixed as much in all.
        memory: ``inverse`` computes the states again from the clean ones by the exact inverse, so
            that memory does not grow with the number of steps (Gomez et al., The Reversible
            Residual Network, NeurIPS 2017); ``checkpoint`` keeps each step's state, ``plain``
            everything. All have the same gradient.

    Raises:
        ConfigError: a value is outside its range.
    """

    mixing: float | None = None
    memory: str = field(default="inverse", metadata=UNRECORDED)

    COPIES = 2
    MEMORIES = ("inverse", "checkpoint", "plain")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mixing is not None and not 0 < self.mixing <= 1:
            raise ConfigError(
                f"space.chain.mixing={self.mixing}: expected a value in (0, 1], or null."
            )

    @property
    def p(self) -> float:
        """The share of its own that a copy keeps in a mixing layer.

        Example:
            >>> EDICT(steps=50).p, round(EDICT(steps=20).p, 3)
            (0.93, 0.834)
        """
        return 0.93 ** (50 / self.steps) if self.mixing is None else self.mixing

    def to_clean(self, state: Tensor, step: Step, noise: Noise) -> Tensor:
        """Lines (1) to (4)."""
        p = self.p
        x, y = _ordered(state, step)
        x = step.a * x + step.b * noise(y, step.t)
        y = step.a * y + step.b * noise(x, step.t)
        x = p * x + (1 - p) * y
        y = p * y + (1 - p) * x
        return _stacked(x, y, step)

    def to_noise(self, state: Tensor, step: Step, noise: Noise) -> Tensor:
        """Lines (4) to (1) solved for what they changed."""
        p = self.p
        x, y = _ordered(state, step)
        y = (y - (1 - p) * x) / p
        x = (x - (1 - p) * y) / p
        y = (y - step.b * noise(x, step.t)) / step.a
        x = (x - step.b * noise(y, step.t)) / step.a
        return _stacked(x, y, step)

    def run(self, state: Tensor, steps: Sequence[Step], noise: Noise) -> Tensor:
        """Make the steps one after the other, with the memory that ``memory`` names."""
        if self.memory == "inverse":
            denoised = _Reversible.apply(state, self, steps, noise)
            assert isinstance(denoised, Tensor)
            return denoised
        return super().run(state, steps, noise)


def _ordered(state: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """The copy that line (1) changes, and the other one."""
    first, second = state.unbind() if step.number % 2 else state.flip(0).unbind()
    return first, second


def _stacked(x: Tensor, y: Tensor, step: Step) -> Tensor:
    """`_ordered` undone."""
    return torch.stack((x, y) if step.number % 2 else (y, x))


class _Reversible(torch.autograd.Function):
    """The whole chain, of which only the clean end is kept for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, state: Tensor, chain: EDICT, steps: Sequence[Step], noise: Noise
    ) -> Tensor:
        for step in steps:
            state = chain.to_clean(state, step, noise)
        ctx.chain, ctx.steps, ctx.noise = chain, steps, noise
        ctx.save_for_backward(state)
        return state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (state,) = ctx.saved_tensors
        for step in reversed(ctx.steps):
            state, grad = _undo(state, grad, step, ctx.noise, ctx.chain.p)
        return grad, None, None, None


def _undo(state: Tensor, grad: Tensor, step: Step, noise: Noise, p: float) -> tuple[Tensor, Tensor]:
    """One step undone, and the gradient taken through it on the way, line by line.

    The inverse needs the very noise predictions whose Jacobians the gradient needs: a step costs
    two passes of the denoiser and their backward passes, no more than with its graph kept.

    Args:
        state: after the step, ``(2, B, C, h, w)``.
        grad: with respect to it.
        step: the step.
        noise: predicts noise.
        p: of the mixing layers.

    Returns:
        State before the step, and the gradient with respect to that.
    """
    (x, y), (gx, gy) = _ordered(state, step), _ordered(grad, step)
    y = (y - (1 - p) * x) / p  # (4)
    gx, gy = gx + (1 - p) * gy, p * gy
    x = (x - (1 - p) * y) / p  # (3)
    gy, gx = gy + (1 - p) * gx, p * gx
    e, pulled = _noise_and_pull(noise, x, step.t, step.b * gy)
    y = (y - step.b * e) / step.a  # (2)
    gx, gy = gx + pulled, step.a * gy
    e, pulled = _noise_and_pull(noise, y, step.t, step.b * gx)
    x = (x - step.b * e) / step.a  # (1)
    gy, gx = gy + pulled, step.a * gx
    return _stacked(x, y, step), _stacked(gx, gy, step)


def _noise_and_pull(noise: Noise, z: Tensor, t: int, cotangent: Tensor) -> tuple[Tensor, Tensor]:
    """``e(z, t)`` and ``J_e(z)^T cotangent``."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        e = noise(z, t)
        return e.detach(), torch.autograd.grad(e, z, cotangent)[0]
