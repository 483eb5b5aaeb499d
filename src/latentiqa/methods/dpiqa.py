"""DP-IQA: a trained teacher's scores (Fu et al., arXiv 2405.19996)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from latentiqa.dpiqa.teacher import Teacher
from latentiqa.methods.base import FeatureExtractor
from latentiqa.recipe import recipe_of


class DPIQA(FeatureExtractor):
    """The score of a teacher as a feature, so that everything that takes features takes it.

    Args:
        teacher: trained; it is frozen.
        weights: names its weights beyond doubt.

    Example:
        >>> import torch
        >>> from latentiqa.backbones.source import BackboneSource
        >>> from latentiqa.dpiqa.teacher import Design
        >>> backbone = BackboneSource("control", "tiny_random", resolution=64).load()
        >>> dpiqa = DPIQA(Teacher(backbone, Design(side=8, width=16)), weights="untrained")
        >>> features = dpiqa.hyperfeatures(torch.rand(2, 3, 64, 64), ["a.png", "b.png"])
        >>> {name: tuple(value.shape) for name, value in features.items()}
        {'dpiqa/score': (2, 1)}
    """

    def __init__(self, teacher: Teacher, weights: str) -> None:
        super().__init__("dpiqa")
        self.teacher = teacher.requires_grad_(False).eval()
        self.weights = weights

    @property
    def widths(self) -> dict[str, int]:
        """The one score."""
        return {"dpiqa/score": 1}

    def recipe(self) -> dict[str, Any]:
        """The backbone, the design and what was trained."""
        return {
            "method": "dpiqa",
            "backbone": self.teacher.backbone.identity,
            "dtype": str(self.teacher.backbone.dtype).removeprefix("torch."),
            "design": recipe_of(self.teacher.design),
            "seed": self.teacher.seed,
            "weights": self.weights,
        }

    @property
    def quality_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the map of quality."""
        design = self.teacher.design
        return design.narrowing[-1], design.side, design.side

    def both(self, image: Tensor, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Scores ``(B,)`` and maps of quality ``(B, *quality_shape)``, from one pass."""
        quality = self.teacher.quality(image, names)
        return self.teacher.score(quality), quality

    def compute(self, image: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """The scores; names seed samples of latents."""
        return {"dpiqa/score": self.teacher(image, names)[:, None]}
