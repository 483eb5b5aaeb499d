"""CSV tables read strictly: every complaint names the file and the line."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latentiqa.errors import DataError


@dataclass(frozen=True)
class Row:
    """One line of a table: its cells by column, and where it stands."""

    file: Path
    line: int
    cells: dict[str, str]

    def error(self, message: str) -> DataError:
        """A complaint about this line, to be raised."""
        return DataError(f"{self.file}, line {self.line}: {message}")

    def text(self, column: str) -> str:
        """The cell of a column that must not be empty.

        Raises:
            DataError: the cell is empty.
        """
        if not (value := self.cells[column]):
            raise self.error(f"column {column} is empty")
        return value

    def number(self, column: str) -> float:
        """The cell as a finite number.

        Raises:
            DataError: it is empty, not a number, NaN or infinite.
        """
        try:
            value = float(self.text(column))
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            found = self.cells[column]
            raise self.error(f"column {column} is {found!r}; expected a finite number")
        return value


def read_rows(path: Path, required: Sequence[str]) -> list[Row]:
    """Read a comma-separated table with a header.

    A byte order mark, blank lines, columns without a name and columns that nobody asked for are
    tolerated; cells are stripped of surrounding blanks and missing ones are empty.

    Args:
        path: the file, UTF-8.
        required: columns that must be in the header.

    Raises:
        DataError: the file is missing, empty, not UTF-8 text, or lacks a column.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a CSV with {','.join(required)}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{path}: not a comma-separated table ({error})") from error
    lines = [(number, cells) for number, cells in lines if any(cells)]
    if not lines:
        raise DataError(f"{path}: the file is empty; expected a header {','.join(required)}")
    header_line, header = lines[0]
    named = [column for column in header if column]
    absent = [column for column in required if column not in named]
    if absent or len(set(named)) < len(named):
        raise DataError(
            f"{path}, line {header_line}: expected a header with the columns "
            f"{','.join(required)}, each once, found {','.join(named)}"
        )
    if len(lines) == 1:
        raise DataError(f"{path}: a header and no rows; expected one row a picture")
    return [Row(path, number, _cells(header, cells)) for number, cells in lines[1:]]


def _cells(header: list[str], cells: list[str]) -> dict[str, str]:
    """Pair cells with the named columns; a short row has empty ones."""
    padded = cells + [""] * (len(header) - len(cells))
    return {column: cell for column, cell in zip(header, padded, strict=False) if column}
