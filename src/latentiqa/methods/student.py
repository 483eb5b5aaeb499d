"""A trained student's scores (Fu et al., arXiv 2405.19996)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from latentiqa.methods.base import FeatureExtractor
from latentiqa.recipe import recipe_of
from latentiqa.student.network import Student


class StudentScores(FeatureExtractor):
    """The score of a student as a feature, so that everything that takes features takes it.

    Args:
        student: trained; it is frozen.
        weights: names its weights beyond doubt.

    Example:
        >>> import torch
        >>> from latentiqa.student.network import Design
        >>> from latentiqa.student.trunks import LiteTrunk
        >>> scores = StudentScores(Student(Design(LiteTrunk())), weights="untrained")
        >>> features = scores.hyperfeatures(torch.rand(2, 3, 64, 64), ["a.png", "b.png"])
        >>> {name: tuple(value.shape) for name, value in features.items()}
        {'student/score': (2, 1)}
    """

    def __init__(self, student: Student, weights: str) -> None:
        super().__init__("student")
        self.student = student.requires_grad_(False).eval()
        self.weights = weights

    @property
    def widths(self) -> dict[str, int]:
        """The one score."""
        return {"student/score": 1}

    @property
    def quality_shape(self) -> tuple[int, int, int] | None:
        """Channels, height and width of the map of quality; None where it draws none."""
        design = self.student.design
        if self.student.quality is None:
            return None
        return design.channels, design.side, design.side

    def recipe(self) -> dict[str, Any]:
        """The design and the weights."""
        design = recipe_of(self.student.design)
        return {"method": "student", "design": design, "weights": self.weights}

    def compute(self, image: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """The scores; names do not matter."""
        return {"student/score": self.student(image)[:, None]}

    def both(self, image: Tensor, names: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """Scores ``(B,)``, and maps of quality where it draws them."""
        return self.student.both(image)
