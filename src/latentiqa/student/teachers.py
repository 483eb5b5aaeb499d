"""What teachers say of pictures: computed once, kept in the feature store, brought to one scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentiqa.errors import ConfigError, DataError
from latentiqa.hyperfeatures.store import FeatureStore
from latentiqa.methods.base import FeatureExtractor
from latentiqa.methods.rated import Rated
from latentiqa.metric import Metric


class TeacherOutputs(FeatureExtractor):
    """A finished run's scores as features, with its map of quality where that is wanted.

    The pictures that it is given may be augmented: the run sees them as it sees any picture.

    Args:
        metric: of the run.
        identity: names the run and its weights beyond doubt.
        draws: the map, too.

    Raises:
        ConfigError: the map of a run that has none, or not one of each picture.
    """

    def __init__(self, metric: Metric, identity: str, draws: bool = False) -> None:
        super().__init__("teacher")
        self.metric = metric
        self.identity = identity
        self.drawer: Rated | None = None
        if draws:
            self.drawer = _drawer(metric)

    @property
    def quality_shape(self) -> tuple[int, int, int] | None:
        """Of the map, where it is wanted."""
        return None if self.drawer is None else self.drawer.rater.quality_shape

    @property
    def widths(self) -> dict[str, int]:
        """``score``, and ``map`` with all its values in a row."""
        shape = self.quality_shape
        if shape is None:
            return {"score": 1}
        return {"score": 1, "map": shape[0] * shape[1] * shape[2]}

    def recipe(self) -> dict[str, Any]:
        """The run; its map is a tensor beside the score, and changes no address."""
        return {"method": "teacher", "run": self.identity}

    def compute(self, image: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """What the run says; names seed noise, as everywhere."""
        if self.drawer is None:
            return {"score": self.metric(image, names)[:, None]}
        pairs = zip(image, names, strict=True)
        views = torch.cat([self.metric.views(one, name) for one, name in pairs])
        with torch.no_grad():
            scores, quality = self.drawer.both(views, names)
        assert quality is not None
        return {"score": scores[:, None], "map": quality.flatten(1)}


def _drawer(metric: Metric) -> Rated:
    extractors = list(metric.scorer.extractors)
    only = extractors[0]
    if len(extractors) > 1 or not isinstance(only, Rated) or only.rater.quality_shape is None:
        raise ConfigError(
            f"terms.map with the teacher {metric.method}: it draws no map of quality; set "
            "terms.map=0, or take a run of method=dpiqa, or a student that has learnt one."
        )
    if metric.views.number != 1:
        raise ConfigError(
            f"terms.map with a teacher that sees {metric.views.number} views of a picture: which "
            "of their maps? Set terms.map=0, or take a run with one view, such as views=square."
        )
    return only


@dataclass(frozen=True)
class Scale:
    """Brings a teacher's scores to the scale of the targets: ``slope * score + intercept``."""

    slope: float
    intercept: float

    @classmethod
    def between(cls, scores: Tensor, targets: Tensor) -> Scale:
        """The rising line that gives scores the mean and standard deviation of targets.

        Not least squares: it would pull the scores of a poor teacher together, or turn them round.

        Args:
            scores: (N,) of the training part.
            targets: (N,) of the same pictures.

        Raises:
            DataError: the teacher says the same of all pictures.

        Example:
            >>> Scale.between(torch.tensor([10.0, 30.0]), torch.tensor([0.25, 0.75]))
            Scale(slope=0.025, intercept=0.0)
        """
        x, y = scores.double(), targets.double()
        spread = x.std(correction=0).item()
        if not spread > 0:
            raise DataError(
                "the teacher says the same of all training pictures: nothing can be learnt from "
                "it; train it longer, or choose another one."
            )
        slope = y.std(correction=0).item() / spread
        return cls(slope, y.mean().item() - slope * x.mean().item())

    def __call__(self, scores: Tensor) -> Tensor:
        """Scores on the scale of the targets."""
        return self.slope * scores + self.intercept


class TeacherLabels:
    """Adds to a batch what teachers say of its pictures, read from their stores.

    Args:
        stores: one a teacher, filled by `TeacherOutputs` for the pictures.
        scales: of each of them.
        drawn: the store that has maps of quality, if they are wanted.
    """

    def __init__(
        self,
        stores: Sequence[FeatureStore],
        scales: Sequence[Scale],
        drawn: FeatureStore | None = None,
    ) -> None:
        self.stores = stores
        self.scales = scales
        self.drawn = drawn

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with ``teacher`` (B,), the mean of the teachers' scores, and ``map``.

        Raises:
            StoreError: the stores lack a picture.
        """
        keys = batch["key"]
        pairs = zip(self.stores, self.scales, strict=True)
        scores = [scale(scores_in(store, keys)) for store, scale in pairs]
        added = {"teacher": torch.stack(scores).mean(dim=0)}
        if self.drawn is not None:
            added["map"] = self.drawn.read(keys, ["map"])["map"]
        return batch | added


def scores_in(store: FeatureStore, keys: Sequence[str]) -> Tensor:
    """A teacher's raw scores ``(N,)`` of views by their keys."""
    return store.read(keys, ["score"])["score"].squeeze(1)
