"""What each model says of each model's pictures."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from latentiqa.report.tables import ABSENT, Table

Scores = Mapping[str, Mapping[str, Sequence[float]]]
"""Whose pictures -> by which judge or measure -> a score a picture, the same ones everywhere."""


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


def to_table(scores: Scores, columns: Mapping[str, str], notes: Sequence[str]) -> Table:
    """A row for each maker of pictures, a column for each judge and measure.

    Args:
        scores: see there.
        columns: judge or measure -> its title; those that a row lacks stay empty.
        notes: what must be read with it.
    """
    found = means(scores)
    rows = [
        [maker, *(f"{row[key]:.4g}" if key in row else ABSENT for key in columns)]
        for maker, row in found.items()
    ]
    return Table(["Pictures of", *columns.values()], rows, [False] + [True] * len(columns), list(notes))
