"""Tables read strictly, CSV, Excel and plain text: every complaint names the file and the line."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from latentiqa.errors import DataError

T = TypeVar("T")


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

    def choice(self, column: str, choices: Mapping[str, T]) -> T:
        """What the cell stands for.

        Raises:
            DataError: it is empty or none of the choices.
        """
        if (value := self.text(column)) not in choices:
            expected = f"expected one of {', '.join(choices)}"
            raise self.error(f"column {column} is {value!r}; {expected}")
        return choices[value]

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
    return _below_header(path, lines, required)


def read_sheet(path: Path, required: Sequence[str], sheet: str | None = None) -> list[Row]:
    """Read a sheet of an Excel workbook (.xlsx).

    The header is the first row that holds all the required columns, wherever it stands: authors
    put titles above and empty columns before it. Whole numbers are written without a point, so
    that a picture's name of digits stays one.

    Args:
        path: the workbook.
        required: columns that must be in the header.
        sheet: name of the sheet; default: the one that was open when the workbook was saved.

    Raises:
        DataError: the file or sheet is missing, not a workbook, or lacks a column.
    """
    from openpyxl import load_workbook  # half a second that only some datasets need

    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a workbook with {','.join(required)}")
    try:
        workbook = load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # a broken archive makes openpyxl raise almost anything
        raise DataError(f"{path}: not an Excel workbook ({error})") from error
    with closing(workbook):
        if sheet is not None and sheet not in workbook.sheetnames:
            found = ", ".join(workbook.sheetnames)
            raise DataError(f"{path}: no sheet {sheet!r}; the workbook has {found}")
        chosen = workbook.active if sheet is None else workbook[sheet]
        rows = [] if chosen is None else chosen.iter_rows(values_only=True)
        lines = [(number, [_text(cell) for cell in row]) for number, row in enumerate(rows, 1)]
    header = next((i for i, (_, cells) in enumerate(lines) if set(required) <= set(cells)), 0)
    if lines:
        # What nobody asked for may share a name in a sheet that was made for people.
        number, names = lines[header]
        lines[header] = number, [n if n in required or names.count(n) == 1 else "" for n in names]
    return _below_header(path, lines[header:], required)


def read_lines(path: Path, columns: Sequence[str], separator: str | None = None) -> list[Row]:
    """Read a text file without a header, one row a line.

    Args:
        path: the file, UTF-8.
        columns: what stands in a line, in this order; the last takes the rest of it.
        separator: what stands between; default: blanks.

    Raises:
        DataError: the file is missing or empty, or a line has too few columns.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected lines of {' '.join(columns)}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from error
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.strip().split(separator, len(columns) - 1)]
        if len(cells) < len(columns):
            raise DataError(
                f"{path}, line {number}: {line.strip()!r}; expected {' '.join(columns)}"
            )
        rows.append(Row(path, number, dict(zip(columns, cells, strict=True))))
    if not rows:
        raise DataError(f"{path}: the file is empty; expected lines of {' '.join(columns)}")
    return rows


def _below_header(
    path: Path, lines: list[tuple[int, list[str]]], required: Sequence[str]
) -> list[Row]:
    """Rows under the header, which is the first line that is not empty."""
    lines = [(number, cells) for number, cells in lines if any(cells)]
    if not lines:
        raise DataError(f"{path}: the file is empty; expected a header {','.join(required)}")
    header_line, names = lines[0]
    named = [column for column in names if column]
    absent = [column for column in required if column not in named]
    if absent or len(set(named)) < len(named):
        raise DataError(
            f"{path}, line {header_line}: expected a header with the columns "
            f"{','.join(required)}, each once, found {','.join(named)}"
        )
    if len(lines) == 1:
        raise DataError(f"{path}: a header and no rows; expected one row a picture")
    return [Row(path, number, _cells(names, cells)) for number, cells in lines[1:]]


def _cells(header: list[str], cells: list[str]) -> dict[str, str]:
    """Pair cells with the named columns; a short row has empty ones."""
    padded = cells + [""] * (len(header) - len(cells))
    return {column: cell for column, cell in zip(header, padded, strict=False) if column}


def _text(cell: object) -> str:
    """An Excel cell as text; 1600.0 as 1600."""
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()
