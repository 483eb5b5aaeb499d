"""Distillation: a student learns from a teacher's scores and maps, and from human scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from latentiqa.errors import ConfigError, is_number
from latentiqa.losses import mse
from latentiqa.student.network import Student
from latentiqa.training import recipe
from latentiqa.training.module import RaterTraining, stacks


@dataclass(frozen=True)
class Recipe(recipe.Recipe):
    """Ours, with the paper's milestones; see `latentiqa.training.recipe.Recipe`."""

    epochs: int = 30
    batch_size: int = 24
    milestones: Sequence[int] = (5,)
    patience: int = 30


@dataclass(frozen=True)
class Terms:
    """Weights of what a student learns from; the paper has mos = map = 1 and score = 0.

    Args:
        mos: human scores, of pictures that have one: the mean over those of a pass on a device.
        score: the teacher's scores.
        map: the map of quality that the teacher's decoder draws.

    Raises:
        ConfigError: a weight is negative, or nothing teaches it to score.
    """

    mos: float = 1.0
    score: float = 1.0
    map: float = 0.0

    def __post_init__(self) -> None:
        for term in fields(self):
            value = getattr(self, term.name)
            if not is_number(value) or value < 0:
                raise ConfigError(f"terms.{term.name}={value!r}: expected a weight >= 0.")
        if not self.mos and not self.score:
            raise ConfigError("terms.mos=0 with terms.score=0: nothing teaches it to score.")


class StudentTraining(RaterTraining):
    """Training of a student (Fu et al., arXiv 2405.19996, section 3.4).

    ``L = mos L(p, y) + score L(p, p_teacher) + map MSE(F_student, F_quality)``, L the recipe's
    losses. Pictures whose target is NaN have no human score.

    Args:
        student: what is trained, in place; it draws a map where ``terms.map`` is not 0.
        recipe: how.
        terms: weights of what it learns from.
        steps_an_epoch: unit of the milestones.
    """

    def __init__(
        self, student: Student, recipe: recipe.Recipe, terms: Terms, steps_an_epoch: int
    ) -> None:
        super().__init__(student, recipe, steps_an_epoch, key="training")
        self.terms = terms

    def on_fit_start(self) -> None:
        """The student's own modes: Lightning leaves a model in those that it comes in."""
        super().on_fit_start()
        self.rater.train()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The weighted terms of one pass.

        Args:
            batch: of `latentiqa.data.datamodule.RatedModule`, with ``teacher`` (B,) and ``map``
                (B, C h w) of those terms that are not 0, from `latentiqa.student.teachers`.
            batch_idx: unused.
        """
        terms = self.terms
        both = [self.rater.both(*stack) for stack in stacks(batch)]
        pred = torch.cat([score for score, _ in both])
        # A gradient even where no picture of the pass has a human score and nothing else teaches.
        total = 0 * pred.sum()
        rated = batch["target"].isfinite()
        if terms.mos and rated.any():
            total = total + terms.mos * self.losses_of(pred[rated], batch["target"][rated])
        if terms.score:
            total = total + terms.score * self.losses_of(pred, batch["teacher"], "train/teacher")
        if terms.map:
            drawn = torch.cat([quality for _, quality in both if quality is not None])
            value = mse(drawn.flatten(1), batch["map"])
            self.log("train/map", value, batch_size=len(pred))
            total = total + terms.map * value
        return total
