"""Gradient ascent on the posterior: a quality model's score less the distance to the picture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from latentiqa.enhance.fidelity import Fidelity
from latentiqa.enhance.prior import Logistic, Quality, checked, rate
from latentiqa.enhance.space import Space
from latentiqa.errors import ConfigError, LatentiqaError, check_integer

if TYPE_CHECKING:
    from latentiqa.backbones.ldm import LatentDiffusion

Move = Callable[[Tensor, Tensor], Tensor]
"""z and the gradient of the objective with respect to it -> the next z."""


class Rule(ABC):
    """A small description of an optimiser."""

    @abstractmethod
    def begin(self) -> Move:
        """One ascent's own move, with a memory of its own."""


@dataclass(frozen=True)
class ClippedMomentum(Rule):
    """``g = clip(gain dJ/dz, -clip, clip)``, ``m <- momentum m + g``, ``z <- z + step m``.

    The defaults are those of the authors' entry to a restoration challenge of 2025; whether they
    are the paper's is not known.

    Args:
        gain: of the gradient, > 0.
        clip: of each of its elements, > 0.
        momentum: in [0, 1).
        step: > 0.

    Raises:
        ConfigError: a value is outside its range.
    """

    gain: float = 0.5
    clip: float = 1e-3
    momentum: float = 0.9
    step: float = 2.0

    def __post_init__(self) -> None:
        for key in ("gain", "clip", "step"):
            _check_positive(f"ascent.rule.{key}", getattr(self, key))
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"ascent.rule.momentum={self.momentum}: expected 0 <= x < 1.")

    def begin(self) -> Move:
        """See `Rule`."""
        buffer: Tensor | float = 0.0

        def move(z: Tensor, gradient: Tensor) -> Tensor:
            nonlocal buffer
            buffer = self.momentum * buffer + (self.gain * gradient).clamp(-self.clip, self.clip)
            return z + self.step * buffer

        return move


@dataclass(frozen=True)
class Adam(Rule):
    """Adam (Kingma and Ba, ICLR 2015).

    Args:
        rate: > 0.

    Raises:
        ConfigError: a value is outside its range.
    """

    rate: float = 0.01

    def __post_init__(self) -> None:
        _check_positive("ascent.rule.rate", self.rate)

    def begin(self) -> Move:
        """See `Rule`."""
        optimiser: torch.optim.Adam | None = None
        variable = torch.empty(0)

        def move(z: Tensor, gradient: Tensor) -> Tensor:
            nonlocal optimiser, variable
            if optimiser is None:
                variable = z.detach().clone()
                optimiser = torch.optim.Adam([variable], lr=self.rate, maximize=True)
            variable.grad = gradient
            optimiser.step()
            return variable.detach().clone()

        return move


@dataclass(frozen=True)
class Ascent:
    """How long, and by which rule.

    Args:
        rule: makes the moves.
        iterations: at most so many.
        stop_at: a mapped score on the way that is enough, in (0, 100]; None: never enough. What is
            kept is still the picture with the best objective, whose own score may be below it.
        patience: end after so many iterations in a row without a new best objective; None: never.
        judge_every: iterations between two ratings by the judges; the last one is rated, too.

    Raises:
        ConfigError: a value is outside its range.
    """

    rule: Rule
    iterations: int = 30
    stop_at: float | None = 90.0
    patience: int | None = 10
    judge_every: int = 10

    def __post_init__(self) -> None:
        check_integer("ascent.iterations", self.iterations, 0)
        check_integer("ascent.judge_every", self.judge_every, 1)
        if self.patience is not None:
            check_integer("ascent.patience", self.patience, 1)
        if self.stop_at is not None and not 0 < self.stop_at <= 100:
            raise ConfigError(f"ascent.stop_at={self.stop_at}: expected 0 < x <= 100, or null.")


@dataclass(frozen=True)
class Objective:
    """``J = lambda Q(x) - D(x)``, summed over the pictures that z stands for.

    Attributes:
        quality: the prior's model.
        scale: maps its scores to Q.
        weight: lambda.
        fidelity: D.
    """

    quality: Quality
    scale: Logistic
    weight: float
    fidelity: Fidelity

    def __call__(self, image: Tensor, latents: Tensor | None) -> tuple[Tensor, dict[str, float]]:
        """J of all pictures together, differentiably, and its parts for the first one.

        Raises:
            LatentiqaError: the prior's score is not finite, or does not depend on the picture.
        """
        raw = checked(self.quality(image), image)
        if image.requires_grad and not raw.requires_grad:
            raise LatentiqaError(
                "the prior's score has no gradient, so that nothing leads upwards; it can be a "
                "judge, or must be computed in PyTorch and without torch.no_grad()."
            )
        mapped, distance = self.scale(raw), self.fidelity(image, latents)
        each = self.weight * mapped - distance
        parts = {"objective": each, "prior": raw, "mapped": mapped, "distance": distance}
        return each.sum(), {key: value[0].item() for key, value in parts.items()}


@dataclass(frozen=True)
class Way:
    """What an ascent passed through.

    Attributes:
        rows: of each iteration, 0 is before the first move: its number, ``objective``, ``prior``
            (the raw score), ``mapped``, ``distance`` and a column for each judge, empty where it
            was not asked; all of the first picture.
        best: the iteration with the highest objective.
        picture: its picture, ``(3, H, W)`` in [0, 1].
        frames: pictures on the way by iteration, in 8 bits, ``(3, H, W)``.
        ended: why: ``reached``, ``no progress`` or ``iterations``.
    """

    rows: list[dict[str, Any]]
    best: int
    picture: Tensor
    frames: dict[int, Tensor]
    ended: str


def ascend(
    backbone: LatentDiffusion,
    space: Space,
    ascent: Ascent,
    objective: Objective,
    image: Tensor,
    judges: Mapping[str, Quality] | None = None,
    keep_every: int | None = None,
) -> Way:
    """Raise the objective of a picture.

    Of all iterations, the picture with the highest objective is kept (ours: the last one may lie
    beyond it, as momentum does not stop at a summit).

    Args:
        backbone: the frozen diffusion model.
        space: what is moved.
        ascent: how.
        objective: what is raised.
        image: where it begins, ``(1, 3, H, W)`` in [0, 1].
        judges: other models, which rate the way and do not guide it.
        keep_every: iterations between two of the kept frames; None keeps none.

    Raises:
        LatentiqaError: a model's score is not finite.
    """
    z, move = space.start(backbone, image), ascent.rule.begin()
    residual = space.residual(backbone, image)
    rows: list[dict[str, Any]] = []
    frames: dict[int, Tensor] = {}
    best, picture, ended = 0, image[0], ""
    for i in range(ascent.iterations + 1):
        z = z.detach().requires_grad_()
        pictures, latents = space.pictures(backbone, z, residual)
        total, parts = objective(pictures, latents)
        shown = pictures[0].detach().clone()  # the other one of a pair need not be kept with it
        if i == 0 or parts["objective"] > rows[best]["objective"]:
            best, picture = i, shown
        ended = _end(ascent, i, best, parts["mapped"])
        asked = bool(ended) or i % ascent.judge_every == 0
        ratings = {
            name: rate(judge, shown[None]) if asked else None
            for name, judge in (judges or {}).items()
        }
        rows.append({"iteration": i, **parts, **ratings})
        if keep_every is not None and (ended or i % keep_every == 0):
            frames[i] = (shown.clamp(0, 1) * 255).round().to("cpu", torch.uint8)
        if ended:
            break
        (gradient,) = torch.autograd.grad(total, z)
        z = move(z.detach(), gradient)
    return Way(rows, best, picture, frames, ended)


def _end(ascent: Ascent, i: int, best: int, mapped: float) -> str:
    """Why the ascent ends after iteration i, or nothing."""
    if ascent.stop_at is not None and mapped >= ascent.stop_at:
        return "reached"
    if ascent.patience is not None and i - best >= ascent.patience:
        return "no progress"
    return "iterations" if i == ascent.iterations else ""


def _check_positive(key: str, value: float) -> None:
    if not value > 0:
        raise ConfigError(f"{key}={value}: expected a number > 0.")
