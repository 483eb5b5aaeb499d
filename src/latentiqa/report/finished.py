"""Finished runs and evaluations: their results.json, and their predictions.csv when asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentiqa.data.tables import read_rows
from latentiqa.errors import DataError
from latentiqa.runs import PREDICTION_COLUMNS


@dataclass(frozen=True, eq=False)
class Predictions:
    """A predictions.csv.

    Attributes:
        file: where it stands.
        names: of the pictures, N.
        target: human scores in [0, 1], higher is better, (N,).
        pred: predicted scores, (N,).
        attributes: column -> its N cells, such as distortion and level.
    """

    file: Path
    names: tuple[str, ...]
    target: NDArray[np.float64]
    pred: NDArray[np.float64]
    attributes: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class Finished:
    """What `latentiqa train` or `latentiqa evaluate` left in a folder.

    Attributes:
        file: the results.json.
        result: its content, and under ``cost`` that of a cost.json beside it, where there is one.
    """

    file: Path
    result: Mapping[str, Any]

    @cached_property
    def predictions(self) -> Predictions:
        """The predictions.csv beside it; see `read_predictions`."""
        return read_predictions(self.file.with_name("predictions.csv"))


def load_results(paths: Sequence[Path]) -> list[Finished]:
    """Read results files.

    Args:
        paths: results files, or folders that are searched for ``results.json`` at any depth.

    Returns:
        One a file, in the order given, by path within a folder; each file once.

    Raises:
        DataError: a path does not exist, a folder has no results, or a file is broken.
    """
    files: dict[Path, Path] = {}
    for path in map(Path, paths):
        found = sorted(path.rglob("results.json")) if path.is_dir() else [path]
        if not found:
            raise DataError(f"{path}: no results.json in it; expected the folder of finished runs")
        files.update((file.resolve(), file) for file in found)
    return [Finished(file, _load(file) | _cost(file)) for file in files.values()]


def _cost(file: Path) -> dict[str, Any]:
    beside = file.with_name("cost.json")
    return {"cost": _load(beside)} if beside.is_file() else {}


def _load(file: Path) -> dict[str, Any]:
    try:
        result = json.loads(file.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file; expected a results.json or a folder") from error
    except ValueError as error:
        raise DataError(f"{file}: broken JSON ({error}); remove it and run again") from error
    if not isinstance(result, dict):
        raise DataError(f"{file}: expected a JSON object, got {type(result).__name__}")
    return result


def read_predictions(file: Path) -> Predictions:
    """Read a predictions.csv.

    Raises:
        DataError: it is missing or broken, or a picture stands in it twice.
    """
    if not file.is_file():
        raise DataError(
            f"{file}: no such file; it is written beside results.json: run again with force=true, "
            "or copy it there too"
        )
    rows = read_rows(file, PREDICTION_COLUMNS)
    names = tuple(row.text("name") for row in rows)
    if len(set(names)) < len(names):
        raise DataError(f"{file}: a picture stands in it twice; run again with force=true")
    columns = [column for column in rows[0].cells if column not in PREDICTION_COLUMNS]
    return Predictions(
        file,
        names,
        target=np.array([row.number("target") for row in rows]),
        pred=np.array([row.number("pred") for row in rows]),
        attributes={column: tuple(row.cells[column] for row in rows) for column in columns},
    )
