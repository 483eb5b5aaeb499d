"""The scores of a rater: of DP-IQA's teacher, of GenzIQA's prompts, or of a student."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from latentiqa.methods.base import FeatureExtractor
from latentiqa.precision import MIXED, warn_if_slow
from latentiqa.recipe import recipe_of
from latentiqa.training.rater import Rater


class Rated(FeatureExtractor):
    """The score of a rater as a feature, so that everything that takes features takes it.

    Args:
        name: of the method.
        rater: trained; it is frozen.
        weights: names what was trained of it beyond doubt.
        precision: that it scores in, usually what it was trained and validated in.

    Example:
        >>> import torch
        >>> from latentiqa.backbones.source import BackboneSource
        >>> from latentiqa.dpiqa.teacher import Design, Teacher
        >>> backbone = BackboneSource("control", "tiny_random", resolution=64).load()
        >>> teacher = Teacher(backbone, Design(side=8, width=16))
        >>> dpiqa = Rated("dpiqa", teacher, weights="untrained")
        >>> features = dpiqa.hyperfeatures(torch.rand(2, 3, 64, 64), ["a.png", "b.png"])
        >>> {name: tuple(value.shape) for name, value in features.items()}
        {'dpiqa/score': (2, 1)}
    """

    def __init__(self, name: str, rater: Rater, weights: str, precision: str = "32-true") -> None:
        super().__init__(name)
        self.rater = rater.requires_grad_(False).eval()
        self.weights = weights
        self.precision = precision

    @property
    def widths(self) -> dict[str, int]:
        """The one score."""
        return {f"{self.name}/score": 1}

    def recipe(self) -> dict[str, Any]:
        """The backbone, if there is one, the design and what was trained."""
        rater = self.rater
        recipe = {
            "method": self.name,
            "design": recipe_of(rater.design),
            "seed": rater.seed,
            "weights": self.weights,
            "precision": self.precision,
        }
        if rater.backbone is None:
            return recipe
        dtype = str(rater.backbone.dtype).removeprefix("torch.")
        return recipe | {"backbone": rater.backbone.identity, "dtype": dtype}

    def compute(self, image: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """The scores; names seed what is drawn for a picture."""
        with self.precision_of(image):
            return {f"{self.name}/score": self.rater(image, names)[:, None]}

    def both(self, image: Tensor, names: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """See `Rater.both`, whose map is of the image's dtype here."""
        with self.precision_of(image):
            scores, quality = self.rater.both(image, names)
        return scores, None if quality is None else quality.to(image.dtype)

    def precision_of(self, image: Tensor) -> torch.autocast:
        """The context that scores of a picture are computed in."""
        dtype = MIXED.get(self.precision)
        warn_if_slow(dtype, image.device.type)
        return torch.autocast(image.device.type, dtype, enabled=dtype is not None)
