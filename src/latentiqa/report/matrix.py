"""Cross-dataset evaluation: what was trained on one dataset, tested on all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, get_args

import numpy as np

from latentiqa.data.readers.source import Kind
from latentiqa.errors import ConfigError
from latentiqa.report.finished import Finished
from latentiqa.report.methods import (
    Dataset,
    by_split,
    dataset_titles,
    evaluated_on,
    figure,
    labels,
    method_of,
    trained_on,
    with_figures,
)
from latentiqa.report.tables import ABSENT, TITLES, Table, cell, notes_of

KINDS: tuple[str, ...] = get_args(Kind)
WITHIN = "*"


class Cell(NamedTuple):
    """What one method reaches on one dataset.

    Attributes:
        value: the figure, of several splits its median; ``None`` if it is undefined on one.
        pictures: how many it is of, of several splits their mean.
        splits: how many there are.
        within: whether the dataset is the one that the method was trained on.
    """

    value: float | None
    pictures: float
    splits: int
    within: bool


Row = Mapping[Dataset, Cell]


def matrix(
    finished: Iterable[Finished],
    metric: str = "srcc",
    kinds: Mapping[str, str] | None = None,
) -> Table:
    """Arrange results by method and dataset.

    Args:
        finished: runs and evaluations.
        metric: a key of ``metrics.test`` in results.json.
        kinds: dataset -> ``synthetic``, ``authentic`` or ``generated``, of those whose results do
            not say, or say otherwise.

    Returns:
        A row a method, a column a dataset: the figure, its median where there are several splits,
        marked where the dataset is the one that the method was trained on. Then a column for each
        kind of dataset: the mean of the row's figures, weighted by pictures; absent where the row
        lacks one of them.

    Raises:
        DataError: no result has the figure, or two are of one method, split and dataset.
        ConfigError: a kind or its dataset is unknown.
    """
    runs = with_figures(finished)
    names = labels(run.result for run in runs)
    rows = _grid(runs, metric)
    kind_of = _kinds(runs, kinds or {})
    # Datasets of a kind stand together, as they first come.
    columns = sorted(kind_of, key=lambda data: [*KINDS, None].index(kind_of[data]))
    titles = dataset_titles(columns)
    totals = {kind: sets for kind in KINDS if (sets := [d for d in columns if kind_of[d] == kind])}
    sources = {method_of(run.result): _source(run.result) for run in reversed(runs)}
    several = any(found.splits > 1 for row in rows.values() for found in row.values())

    header = ["Run", "Trained on", *(["Splits"] if several else []), *titles.values()]
    header += [f"all {kind}" for kind in totals]
    lines = [
        [
            name,
            sources[method],
            *([_splits(rows[method])] if several else []),
            *(_shown(rows[method].get(data), metric) for data in columns),
            *(cell(metric, weighted_mean(rows[method], sets)) for sets in totals.values()),
        ]
        for method, name in names.items()
    ]
    title, medians = TITLES.get(metric, metric), ", medians over the splits" if several else ""
    notes = [f"{title} of the runs' test parts and of what they were evaluated on{medians}"]
    if any(found.within for row in rows.values() for found in row.values()):
        notes.append(f"{WITHIN} on the dataset that the run was trained on, pictures unseen")
    notes += [
        f"all {kind}: mean of the row's figures on {', '.join(titles[d] for d in sets)}, each "
        "weighted by the number of pictures that it is of; absent where the row lacks one"
        for kind, sets in totals.items()
    ]
    if unsaid := [title for data, title in titles.items() if kind_of[data] is None]:
        notes.append(f"in no such mean, as their results do not say a kind: {', '.join(unsaid)}")
    numeric = [False, False, *[True] * (len(header) - 2)]
    return Table(header, lines, numeric, [*notes, *notes_of(run.result for run in runs)])


def weighted_mean(row: Row, sets: Sequence[Dataset]) -> float | None:
    """Mean of a row's figures on some datasets, weighted by pictures, if it has them all.

    Example:
        >>> a, b = Dataset("a", "1"), Dataset("b", "2")
        >>> row = {a: Cell(0.5, 100, 1, False), b: Cell(0.75, 300, 1, False)}
        >>> weighted_mean(row, [a, b])
        0.6875
    """
    cells = [row.get(data) for data in sets]
    pairs = [(found.value, found.pictures) for found in cells if found and found.value is not None]
    if len(pairs) < len(sets):
        return None
    values, weights = zip(*pairs, strict=True)
    return float(np.average(values, weights=weights))


def _grid(runs: Sequence[Finished], metric: str) -> dict[str, dict[Dataset, Cell]]:
    """Cells by method and dataset."""
    groups: dict[tuple[str, Dataset], list[Finished]] = defaultdict(list)
    for run in runs:
        groups[method_of(run.result), evaluated_on(run.result)].append(run)
    grid: dict[str, dict[Dataset, Cell]] = defaultdict(dict)
    for (method, data), group in groups.items():
        splits = list(by_split(group).values())
        values = [figure(run, metric) for run in splits]
        source = trained_on(group[0].result)
        grid[method][data] = Cell(
            None if None in values else float(np.median(np.array(values, dtype=np.float64))),
            float(np.mean([figure(run, "n") or 0 for run in splits])),
            len(splits),
            within=not group[0].result.get("zero_shot")
            and (data.name == source.name or data.fingerprint == source.fingerprint),
        )
    return grid


def _source(result: Mapping[str, Any]) -> str:
    """What a method was trained on: nothing, where it is zero-shot."""
    return ABSENT if result.get("zero_shot") else trained_on(result).name


def _kinds(runs: Sequence[Finished], told: Mapping[str, str]) -> dict[Dataset, str | None]:
    """The kind of each dataset, as results or the user say."""
    found: dict[Dataset, str | None] = {}
    for run in runs:
        data = evaluated_on(run.result)
        found[data] = found.get(data) or run.result.get("dataset_kind")
    names = {data.name for data in found}
    for name, kind in told.items():
        if name not in names or kind not in KINDS:
            raise ConfigError(
                f"kinds.{name}={kind}: expected one of {', '.join(sorted(names))} and "
                f"{', '.join(KINDS)}"
            )
    kinds = {data: told.get(data.name, kind) for data, kind in found.items()}
    return {data: kind if kind in KINDS else None for data, kind in kinds.items()}


def _splits(row: Row) -> str:
    """How many splits a row's medians are over."""
    counts = sorted({found.splits for found in row.values()})
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _shown(found: Cell | None, metric: str) -> str:
    if found is None or found.value is None:
        return cell(metric, None)
    return cell(metric, found.value) + (WITHIN if found.within else "")
