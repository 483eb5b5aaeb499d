"""What each model says of each model's pictures."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence

from latentiqa.report.tables import ABSENT, Table

Scores = Mapping[str, Mapping[str, Sequence[float]]]
"""Whose pictures -> by which judge or measure -> a score a picture, the same ones everywhere."""

OTHERS = "mean of the others"


def means(scores: Scores) -> dict[str, dict[str, float]]:
    """Means over the pictures.

    Example:
        >>> means({"a": {"b": [1.0, 3.0]}})
        {'a': {'b': 2.0}}
    """
    return {
        maker: {judge: statistics.fmean(values) for judge, values in row.items()}
        for maker, row in scores.items()
    }


def by_others(row: Mapping[str, float], maker: str, models: Collection[str]) -> float | None:
    """Mean of what the models but the maker itself say; None where there is no other one.

    Example:
        >>> by_others({"a": 90.0, "b": 40.0, "c": 60.0}, "a", ["a", "b", "c"])
        50.0
    """
    found = [row[model] for model in models if model != maker]
    return statistics.fmean(found) if found else None


def matrix(
    scores: Scores, models: Sequence[str], titles: Mapping[str, str], notes: Sequence[str]
) -> Table:
    """A row for each maker of pictures, a column for each judge and measure.

    Args:
        scores: see there.
        models: judges that also make pictures, on one scale; their mean, the maker's own left out,
            is a column behind them.
        titles: judge or measure -> what it is called, in the order of the columns, models first;
            one that a row lacks stays empty.
        notes: what must be read with it.
    """

    def shown(value: float | None) -> str:
        return ABSENT if value is None else f"{value:.4g}"

    rows = []
    for maker, row in means(scores).items():
        cells = [shown(row.get(key)) for key in titles]
        cells.insert(len(models), shown(by_others(row, maker, models)))
        rows.append([maker, *cells])
    header = ["pictures of", *titles.values()]
    header.insert(1 + len(models), OTHERS)
    return Table(header, rows, [False] + [True] * (len(header) - 1), list(notes))
