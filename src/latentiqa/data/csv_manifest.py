"""Reader of anyone's own data: a CSV with one row a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from latentiqa.data.manifest import Manifest, Part, Record, check_files
from latentiqa.data.tables import Row, read_rows
from latentiqa.errors import ConfigError, DataError

PARTS: dict[str, Part] = {"train": "train", "val": "val", "validation": "val", "test": "test"}
COLUMNS = ("path", "mos", "ref", "split")


def read_csv(
    path: str | Path,
    root: str | Path | None = None,
    mos_range: Sequence[float] | None = None,
    higher_is_better: bool = True,
    name: str | None = None,
) -> Manifest:
    """Read a manifest with the columns ``path,mos[,ref][,split]``.

    A picture's name is its path as written, with forward slashes. ``ref`` names the content that
    a picture shares with others: a split keeps such pictures together. ``split`` is train, val
    (or validation) or test and makes ``split=official`` possible; fill it in for all rows or for
    none. Other columns are kept as attributes.

    Args:
        path: the CSV, UTF-8, with a header.
        root: folder that relative paths start from; default: the CSV's own folder.
        mos_range: ends of the score's scale, for instance ``(1, 5)``. Default: the lowest and
            the highest score in the file. That is an affine map of the targets only (no rank
            and no linear correlation changes), but it differs between two files of one scale.
        higher_is_better: direction of the scores; ``False`` for DMOS.
        name: name of the dataset; default: the CSV's name without suffix.

    Raises:
        DataError: a broken table, with file and line; missing pictures; repeated names; scores
            outside ``mos_range``.
        ConfigError: ``mos_range`` is not an ascending pair, or ``higher_is_better`` not a bool.
    """
    if not isinstance(higher_is_better, bool):
        raise ConfigError(f"higher_is_better={higher_is_better!r}: expected true or false")
    if mos_range is not None and len(mos_range) != 2:
        raise ConfigError(f"mos_range={mos_range}: expected [lowest,highest] or null")
    path = Path(path).expanduser()
    folder = path.parent if root is None else Path(root).expanduser()
    rows = read_rows(path, required=("path", "mos"))
    records = tuple(_record(row, folder) for row in rows)
    dataset = name or path.stem
    _check_parts(path, records)
    check_files(dataset, records, f"relative paths start from {folder}, root=... changes that")
    low, high = _range_of(path, records) if mos_range is None else mos_range
    return Manifest(dataset, records, (float(low), float(high)), higher_is_better)


def _record(row: Row, folder: Path) -> Record:
    """One row as a record."""
    name = row.text("path").replace("\\", "/")
    return Record(
        name=name,
        path=folder / name,
        mos=row.number("mos"),
        reference=row.cells.get("ref") or None,
        part=row.choice("split", PARTS) if row.cells.get("split") else None,
        attributes={key: cell for key, cell in row.cells.items() if key not in COLUMNS},
    )


def _check_parts(path: Path, records: tuple[Record, ...]) -> None:
    """Refuse a split column that is filled in for some rows only."""
    without = [record.name for record in records if record.part is None]
    if 0 < len(without) < len(records):
        raise DataError(
            f"{path}: column split is empty for {len(without)} of {len(records)} rows, the first "
            f"is {without[0]}; fill in all or none"
        )


def _range_of(path: Path, records: tuple[Record, ...]) -> tuple[float, float]:
    """Lowest and highest score in the file."""
    scores = [record.mos for record in records]
    if min(scores) == max(scores):
        raise DataError(f"{path}: every score is {scores[0]}; state mos_range=[lowest,highest]")
    return min(scores), max(scores)
