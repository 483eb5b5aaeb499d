"""What all feature extractors share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

from latentiqa.errors import ConfigError, LatentiqaError
from latentiqa.hyperfeatures.pooling import statistics_of


class FeatureExtractor(LightningModule, ABC):
    """Features of pictures by name, each extractor's in a store of its own.

    A subclass gives `widths`, `recipe` and `compute`.

    Args:
        name: short name, for tables and messages.
        pooling: how maps become features, see `latentiqa.hyperfeatures.pooling.POOLINGS`.

    Raises:
        ConfigError: the pooling is not known.
    """

    def __init__(self, name: str, pooling: str = "mean") -> None:
        super().__init__()
        statistics_of(pooling)
        self.name = name
        self.pooling = pooling

    @property
    @abstractmethod
    def widths(self) -> dict[str, int]:
        """Every feature's name and its length, known before any picture is seen."""

    @property
    def differentiable(self) -> bool:
        """Whether features have a gradient with respect to the picture."""
        return True

    @abstractmethod
    def recipe(self) -> dict[str, Any]:
        """All that changes the value of a feature, as plain data: the address of its store."""

    @abstractmethod
    def compute(self, image: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """The features in the order of `widths`, each ``(B, C)`` float32."""

    def hyperfeatures(self, image: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Features of pictures.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1]; where it requires a gradient, features of a
                `differentiable` extractor have one.
            names: the pictures' names.

        Returns:
            Name -> ``(B, C)`` float32, as `widths` tells.

        Raises:
            ConfigError: there is not one name a picture.
            LatentiqaError: a value is not finite.
        """
        if len(names) != len(image):
            raise ConfigError(f"{len(image)} images but {len(names)} names: expected one each.")
        features = self.compute(image, names)
        finite = torch.stack([value.isfinite().all(dim=1) for value in features.values()]).all(0)
        if not finite.all():
            bad = [name for name, good in zip(names, finite.tolist(), strict=True) if not good]
            raise LatentiqaError(
                f"{self.name}: features of {', '.join(bad[:3])} are not finite; look at these "
                "pictures, or try backbone.dtype=float32 or smaller guidance weights."
            )
        return features

    @torch.no_grad()
    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """The batch's features, ``(B, C)`` each; its pictures come stacked by their shapes."""
        names = iter(batch["name"])
        parts = [self.hyperfeatures(i, list(islice(names, len(i)))) for i in batch["image"]]
        return {name: torch.cat([part[name] for part in parts]) for name in self.widths}
