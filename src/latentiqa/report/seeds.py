"""The runs of one recipe with several draws of the noise as one result: how far it matters."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from latentiqa.errors import DataError
from latentiqa.metrics import srcc
from latentiqa.metrics.comparison import bootstrap_correlation
from latentiqa.report.finished import Finished
from latentiqa.report.methods import evaluated_on, part_of, split_of, with_figures
from latentiqa.runs import signature

INTERVALS = {"srcc": True, "plcc": False}
"""Figures that get an interval, and whether they are of ranks."""


def over_seeds(finished: Iterable[Finished]) -> list[dict[str, Any]]:
    """Join results that differ in nothing but the seed of the noise.

    Args:
        finished: runs and evaluations, with their predictions.csv.

    Returns:
        One result a recipe, dataset and split, in the order in which they come first: that of its
        first seed, with a dict in place of SRCC and PLCC on the test part, of ``mean`` and ``std``
        (of a sample) over seeds and ``low`` and ``high`` (95 % bootstrap interval of the mean,
        over pictures), the means of all other figures, and under ``seeds`` their number ``n``,
        ``spread``, what the noise moves a score by: the root mean square over pictures of a
        score's standard deviation over seeds, as a share of the standard deviation over pictures
        of their mean scores; and ``srcc``, the mean SRCC of the scores of two seeds. Of one seed
        what compares seeds is None.

    Raises:
        DataError: a predictions.csv is missing or broken, or one seed comes twice in a recipe.
    """
    groups: dict[str, list[Finished]] = defaultdict(list)
    for run in with_figures(finished):
        groups[_recipe(run.result)].append(run)
    return [_join(group) for group in groups.values()]


def _recipe(result: Mapping[str, Any]) -> str:
    """What results of one method, dataset and split share, whatever the seed."""
    config = copy.deepcopy(dict(result.get("config") or {}))
    for key in ("seed", "evaluation"):
        config.pop(key, None)
    # Random crops take it from there.
    (config.get("views") or {}).pop("seed", None)
    return signature(
        config,
        name=str(result["name"]),
        dataset=evaluated_on(result).fingerprint,
        part=part_of(result),
        split=split_of(result),
        backbone=str(result.get("backbone")),
    )


def _join(group: list[Finished]) -> dict[str, Any]:
    seeds = [(run.result.get("config") or {}).get("seed") for run in group]
    if len(set(seeds)) < len(seeds):
        raise DataError(
            f"{group[0].file} and {group[-1].file}: one seed comes twice; leave one result out"
        )
    joined = copy.deepcopy(dict(group[0].result))
    metrics: list[Mapping[str, Any]] = [run.result["metrics"] for run in group]
    joined["metrics"] = {
        part: {key: _mean([m.get(part, {}).get(key) for m in metrics]) for key in figures}
        for part, figures in metrics[0].items()
    }
    predictions = [run.predictions for run in group]
    first = predictions[0]
    for other in predictions[1:]:
        if other.names != first.names:
            raise DataError(f"{first.file} and {other.file}: expected the same pictures in order")
    scores = [found.pred for found in predictions]
    for key, ranks in INTERVALS.items():
        values = [m["test"].get(key) for m in metrics]
        if (mean := _mean(values)) is not None:
            low, high = bootstrap_correlation(first.target, *scores, ranks=ranks)
            std = float(np.std(values, ddof=1)) if len(values) > 1 else None
            joined["metrics"]["test"][key] = {"mean": mean, "std": std, "low": low, "high": high}
    joined["seeds"] = {"n": len(group), "spread": None, "srcc": None}
    if len(group) > 1:
        matrix = np.stack(scores)
        moved = math.sqrt(matrix.var(axis=0, ddof=1).mean())
        over_pictures = float(matrix.mean(axis=0).std(ddof=1))
        joined["seeds"] |= {
            "spread": moved / over_pictures if over_pictures else None,
            "srcc": _mean([srcc(a, b) for a, b in combinations(scores, 2)]),
        }
    return joined


def _mean(values: Sequence[Any]) -> Any:
    """Of figures; ``None`` where one is undefined, and the first of what is no figure."""
    if isinstance(values[0], bool | str):
        return values[0]
    if any(value is None or not math.isfinite(value) for value in values):
        return None
    mean = sum(values) / len(values)
    return int(mean) if all(isinstance(value, int) for value in values) else mean
