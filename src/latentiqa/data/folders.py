"""Pictures among files and folders, without reading any; a folder as a dataset without scores."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from latentiqa.data.manifest import UNRATED, Manifest, Record
from latentiqa.errors import ConfigError, DataError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm"}


def find_pictures(inputs: Iterable[str | Path]) -> list[Path]:
    """Pictures among files and folders; folders are searched through, in sorted order.

    Raises:
        DataError: there is no picture at all.
    """
    inputs = list(inputs)
    paths: dict[Path, None] = {}
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            found = sorted(
                p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()
            )
            paths.update(dict.fromkeys(found))
        else:  # one that does not exist is listed with the unreadable ones
            paths[path] = None
    if not paths:
        raise DataError(
            f"{', '.join(map(str, inputs))}: no pictures there; expected files ending in "
            f"{', '.join(sorted(SUFFIXES))}."
        )
    return list(paths)


def read_folder(root: str | Path) -> Manifest:
    """All pictures below a folder as a dataset without scores, named by their paths in it.

    Raises:
        ConfigError: there is no such folder.
        DataError: it holds no picture.
    """
    if not Path(root).is_dir():
        raise ConfigError(f"dataset.root={root}: no such folder; expected one with pictures.")
    records = [
        Record(path.relative_to(root).as_posix(), path, UNRATED) for path in find_pictures([root])
    ]
    return Manifest("folder", tuple(records), None)
