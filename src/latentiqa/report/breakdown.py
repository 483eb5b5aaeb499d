"""How well scores follow opinion within groups of pictures: distortions, ranges of quality."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from latentiqa.errors import ConfigError, DataError, check_integer
from latentiqa.metrics import plcc, rmse, srcc
from latentiqa.report.finished import Finished, Predictions
from latentiqa.report.methods import (
    Dataset,
    by_split,
    dataset_titles,
    evaluated_on,
    labels,
    method_of,
    part_of,
    with_figures,
)
from latentiqa.report.tables import ABSENT, TITLES, Table, cell, notes_of

QUALITY = "quality"
METRICS = {"srcc": srcc, "plcc": plcc, "rmse": rmse}
FEWEST = 3
"""Pictures that a group needs for figures."""

Figures = dict[str, float | None]


def breakdown(
    finished: Iterable[Finished], by: Sequence[str] = ("distortion", QUALITY), ranges: int = 3
) -> Table:
    """Figures of each group of pictures of each method on each dataset.

    Args:
        finished: runs and evaluations; only their predictions.csv is read.
        by: what groups pictures: columns of predictions.csv, such as ``distortion``, and
            ``quality``, which is ranges of the human scores.
        ranges: number of ranges: 3 for terciles, 4 for quartiles.

    Returns:
        A row a group with the number of its pictures, SRCC, PLCC and RMSE, of several splits
        their medians; absent are those of a group that has fewer than three pictures or whose
        scores or predictions are all the same, on any split.

    Raises:
        DataError: a predictions.csv is missing, broken or lacks a column, or two results are of
            one method, split and dataset.
        ConfigError: nothing to group by, or fewer than two ranges.
    """
    if not by:
        raise ConfigError(f"by=[]: expected columns of predictions.csv, or {QUALITY}")
    check_integer("ranges", ranges, least=2)
    runs = with_figures(finished)
    names = labels(run.result for run in runs)
    titles = dataset_titles(list(dict.fromkeys(evaluated_on(run.result) for run in runs)))
    groups: dict[tuple[str, Dataset, str], list[Finished]] = defaultdict(list)
    for run in runs:
        groups[method_of(run.result), evaluated_on(run.result), part_of(run.result)].append(run)
    joined = {key: list(by_split(group).values()) for key, group in groups.items()}
    parts = {data: {part for _, other, part in joined if other == data} for _, data, _ in joined}
    several = any(len(splits) > 1 for splits in joined.values())
    rows = []
    for (method, data, part), splits in joined.items():
        title = titles[data] if len(parts[data]) == 1 else f"{titles[data]} ({part})"
        tables = [by_group(run.predictions, by, ranges) for run in splits]
        leading = [names[method], title, *([str(len(splits))] if several else [])]
        for group in dict.fromkeys(group for table in tables for group in table):
            figures = _medians([table.get(group, _figures([], [])) for table in tables])
            cells = [cell(metric, figures[metric]) for metric in METRICS]
            rows.append([*leading, group, f"{figures['n']:g}", *cells])
    header = ["Run", "Dataset", *(["Splits"] if several else []), "Group", "n"]
    header += [TITLES[metric] for metric in METRICS]
    numeric = [False, False, *([True] if several else []), False, True, *[True] * len(METRICS)]
    notes = [f"absent: fewer than {FEWEST} pictures, or all scores or predictions the same"]
    if several:
        notes.append("medians over the splits; absent where a figure is undefined on one of them")
    if QUALITY in by:
        notes.append(
            f"{QUALITY}: cut at {ranges}-quantiles of the human scores of the pictures tested, 1 "
            "the worst; scores vary less within a range, and correlations are lower for it"
        )
    return Table(header, rows, numeric, [*notes, *notes_of(run.result for run in runs)])


def by_group(predictions: Predictions, by: Sequence[str], ranges: int = 3) -> dict[str, Figures]:
    """Figures of all pictures and of each group of them.

    Args:
        predictions: of one run.
        by: what groups pictures; see `breakdown`.
        ranges: number of ranges of quality.

    Returns:
        Name of the group -> ``n``, ``srcc``, ``plcc``, ``rmse``.

    Raises:
        DataError: predictions.csv lacks a column.
    """
    target, pred = predictions.target, predictions.pred
    found = {"all": _figures(pred, target)}
    for column in by:
        if column == QUALITY:
            members = quality_ranges(target, ranges)
            groups = {f"{n + 1} of {ranges}": members == n for n in range(ranges)}
        else:
            cells = np.array(_cells(predictions, column))
            groups = {value or ABSENT: cells == value for value in sorted(set(cells), key=_order)}
        for name, chosen in groups.items():
            found[f"{column} {name}"] = _figures(pred[chosen], target[chosen])
    return found


def quality_ranges(target: NDArray[np.float64], ranges: int) -> NDArray[np.intp]:
    """The range of quality of each picture, cut at the quantiles of all scores.

    Pictures of one score are in one range, so that ranges may differ in size or be empty.

    Args:
        target: human scores, (N,).
        ranges: how many.

    Returns:
        0 (worst) to ``ranges`` - 1, (N,).

    Example:
        >>> quality_ranges(np.array([0.9, 0.1, 0.5, 0.2, 0.6, 0.8]), 3).tolist()
        [2, 0, 1, 0, 1, 2]
    """
    edges = np.quantile(target, np.arange(1, ranges) / ranges)
    return np.searchsorted(edges, target, side="left")


def _cells(predictions: Predictions, column: str) -> tuple[str, ...]:
    if column not in predictions.attributes:
        known = ", ".join([*predictions.attributes, QUALITY])
        raise DataError(
            f"{predictions.file}: no column {column}; by= can be {known}. If the dataset knows it, "
            "the file is an older version's: run that command again with force=true"
        )
    return predictions.attributes[column]


def _order(value: str) -> tuple[float, str]:
    """Numbers by value, before all else by its text."""
    try:
        return float(value), value
    except ValueError:
        return math.inf, value


def _figures(pred: Sequence[float] | np.ndarray, target: Sequence[float] | np.ndarray) -> Figures:
    if len(pred) < FEWEST:
        return {"n": len(pred), **dict.fromkeys(METRICS)}
    values = {metric: function(pred, target) for metric, function in METRICS.items()}
    finite = {key: value if math.isfinite(value) else None for key, value in values.items()}
    return {"n": len(pred), **finite}


def _medians(figures: Sequence[Figures]) -> Figures:
    """Of each figure; ``None`` where it is undefined on a split."""
    joined: Figures = {}
    for key in figures[0]:
        values = [found[key] for found in figures]
        joined[key] = None if None in values else float(np.median(np.array(values, dtype=float)))
    return joined
