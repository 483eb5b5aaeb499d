"""The runs of one recipe over several splits as one result: median, mean, spread, interval."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from latentiqa.errors import DataError
from latentiqa.metrics.comparison import bootstrap_interval
from latentiqa.report.methods import method_of, split_of


def over_splits(results: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Join results that differ in nothing but their split.

    Args:
        results: contents of results.json files.

    Returns:
        One result a recipe and dataset, in the order in which they come first: that of its first
        split, with ``splits``, their number, and in place of each figure under ``metrics`` a dict
        of ``median``, ``mean``, ``std`` (of a sample), ``low`` and ``high`` (95 % bootstrap
        interval of the median) and ``values``; of a single split a figure stays as it is.

    Raises:
        DataError: one split comes twice in a recipe.

    Example:
        >>> def run(split, srcc):
        ...     config = {"split": split, "seed": 0}
        ...     return {"split_hash": str(split), "config": config, "metrics": {"srcc": srcc}}
        >>> [joined] = over_splits([run(0, 0.80), run(1, 0.82), run(2, 0.81)])
        >>> joined["splits"], joined["metrics"]["srcc"]["median"]
        (3, 0.81)
    """
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for result in results:
        groups[_recipe(result)].append(result)
    return [_join(group) for group in groups.values()]


def _recipe(result: Mapping[str, Any]) -> tuple[str, ...]:
    """What results of one method and dataset share."""
    told = (str(result.get(key) or "") for key in ("kind", "dataset_fingerprint", "part"))
    return (method_of(result), *told)


def _join(group: list[Mapping[str, Any]]) -> dict[str, Any]:
    # Of evaluations the split that counts is the run's: their pictures may be the same each time.
    hashes = [(split_of(result), result.get("split_hash")) for result in group]
    if len(set(hashes)) < len(hashes):
        name = group[0].get("name", "a run")
        raise DataError(f"{name}: one split comes twice; leave one of its results out")
    joined = copy.deepcopy(dict(group[0]))
    joined["splits"] = len(group)
    if len(group) > 1:
        joined["metrics"] = _summaries([result.get("metrics", {}) for result in group])
    return joined


def _summaries(values: list[Any]) -> Any:
    """The same tree with a summary at each figure."""
    first = values[0]
    if isinstance(first, Mapping):
        return {key: _summaries([value.get(key) for value in values]) for key in first}
    if isinstance(first, bool | str):
        return first
    if any(value is None or not math.isfinite(value) for value in values):
        return None  # undefined on a split, and so over all of them
    array = np.asarray(values, dtype=np.float64)
    low, high = bootstrap_interval(array.tolist())
    return {
        "median": float(np.median(array)),
        "mean": float(array.mean()),
        "std": float(array.std(ddof=1)),
        "low": low,
        "high": high,
        "values": array.tolist(),
    }
