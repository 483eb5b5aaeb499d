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
from latentiqa.metrics.comparison import bootstrap_correlation, bootstrap_difference
from latentiqa.report.finished import Finished, Predictions
from latentiqa.report.methods import evaluated_on, part_of, split_of, with_figures
from latentiqa.runs import signature

INTERVALS = {"srcc": True, "plcc": False}
"""Figures that get an interval, and whether they are of ranks."""

SEEDED = ("views", "augment")
"""Groups that may take the seed: random crops do."""


def over_seeds(
    finished: Iterable[Finished], against: str | None = None, clusters: str | None = None
) -> list[dict[str, Any]]:
    """Join results that differ in nothing but the seed of the noise.

    Args:
        finished: runs and evaluations, with their predictions.csv.
        against: name of a recipe among them that all others are compared with.
        clusters: column of predictions.csv, such as ``original``: pictures that share its value
            are drawn together for the intervals.

    Returns:
        One result a recipe, dataset and split, in the order in which they come first: that of its
        first seed, with a dict in place of SRCC and PLCC on the test part, of ``mean`` and ``std``
        (of a sample) over seeds and ``low`` and ``high`` (95 % bootstrap interval of the mean,
        over pictures), the means of all other figures, and under ``seeds`` their number ``n``,
        ``spread``, what the noise moves a score by: the root mean square over pictures of a
        score's standard deviation over seeds, as a share of the standard deviation over pictures
        of their mean scores; and ``srcc``, the mean SRCC of the scores of two seeds. Of one seed
        what compares seeds is None. With ``against`` also ``difference`` of the SRCC from that
        recipe's on the same pictures, over the seeds that both have (``mean``, and ``low`` and
        ``high`` over pictures), and ``differences`` of each; None where there are none.

    Raises:
        DataError: a predictions.csv is missing or broken, or lacks the column; one seed comes twice
            in a recipe, or the recipe to compare with is not there, or twice.
    """
    groups: dict[str, list[Finished]] = defaultdict(list)
    for run in with_figures(finished):
        groups[_recipe(run.result)].append(run)
    joined = [_join(group, clusters) for group in groups.values()]
    if against is not None:
        bases = [group for group in groups.values() if group[0].result["name"] == against]
        if not bases:
            names = dict.fromkeys(str(result["name"]) for result in joined)
            raise DataError(
                f"against={against}: no result is of this name; there are {', '.join(names)}"
            )
        for group, result in zip(groups.values(), joined, strict=True):
            result["seeds"] |= _difference(group, bases, clusters)
    return joined


def _recipe(result: Mapping[str, Any]) -> str:
    """What results of one method, dataset and split share, whatever the seed."""
    config = copy.deepcopy(dict(result.get("config") or {}))
    for key in ("seed", "evaluation"):
        config.pop(key, None)
    for group in SEEDED:
        (config.get(group) or {}).pop("seed", None)
    return signature(
        config,
        name=str(result["name"]),
        dataset=evaluated_on(result).fingerprint,
        part=part_of(result),
        split=split_of(result),
        backbone=str(result.get("backbone")),
    )


def _labels(predictions: Predictions, clusters: str | None) -> Sequence[str] | None:
    """What tells which pictures belong together."""
    if clusters is None:
        return None
    if clusters not in predictions.attributes:
        raise DataError(
            f"{predictions.file}: no column {clusters!r}; clusters takes null or one of "
            f"{', '.join(predictions.attributes) or 'none that are there'}"
        )
    return predictions.attributes[clusters]


def _join(group: list[Finished], clusters: str | None) -> dict[str, Any]:
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
    together = _labels(first, clusters)
    for key, ranks in INTERVALS.items():
        values = [m["test"].get(key) for m in metrics]
        if (mean := _mean(values)) is not None:
            low, high = bootstrap_correlation(first.target, *scores, ranks=ranks, clusters=together)
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


def _difference(
    group: list[Finished], bases: Sequence[list[Finished]], clusters: str | None
) -> dict[str, Any]:
    """By how much the SRCC of a recipe is above that of the base on the same pictures."""
    same = [
        base
        for base in bases
        if base is not group
        and evaluated_on(base[0].result) == evaluated_on(group[0].result)
        and base[0].predictions.names == group[0].predictions.names
    ]
    if len(same) > 1:
        told = " and ".join(str(base[0].file) for base in same)
        raise DataError(f"{told}: two recipes of the name to compare with; leave one out")
    own, other = (_by_seed(found) for found in (group, same[0] if same else []))
    pairs = []
    for seed in sorted((own.keys() | other.keys()) - {None}) or [None]:
        # What has no seed is the same with all of them.
        pair = [found.get(seed, found.get(None)) for found in (own, other)]
        if all(scores is not None for scores in pair):
            pairs.append(pair)
    if not pairs:
        return {"difference": None, "differences": None}
    first = group[0].predictions
    target, together = first.target, _labels(first, clusters)
    each = [srcc(a, target) - srcc(b, target) for a, b in pairs]
    low, high = bootstrap_difference(target, *zip(*pairs, strict=True), clusters=together)
    return {"difference": {"mean": _mean(each), "low": low, "high": high}, "differences": each}


def _by_seed(group: Iterable[Finished]) -> dict[Any, Any]:
    """Scores by the seed of the noise, by None where there is no noise."""
    return {_noise_seed(run.result.get("config") or {}): run.predictions.pred for run in group}


def _noise_seed(config: Mapping[str, Any]) -> Any:
    noised = (config.get("timesteps") or {}).get("noised", True)
    seeded = any("seed" in (config.get(group) or {}) for group in SEEDED)
    return config.get("seed") if noised or seeded else None


def _mean(values: Sequence[Any]) -> Any:
    """Of figures; ``None`` where one is undefined, and the first of what is no figure."""
    if isinstance(values[0], bool | str):
        return values[0]
    if any(value is None or not math.isfinite(value) for value in values):
        return None
    mean = sum(values) / len(values)
    return int(mean) if all(isinstance(value, int) for value in values) else mean
