"""Pictures among files and folders, without reading any; a folder as a dataset without scores."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from latentiqa.data.manifest import UNRATED, Manifest, Record
from latentiqa.errors import ConfigError, DataError

log = logging.getLogger(__name__)

SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".avif"),
    *(".jp2", ".tif", ".tiff", ".gif", ".tga", ".ppm", ".pgm", ".pnm"),
}
"""What is looked for in folders; a file that is named itself may have any that Pillow reads."""

NOT_READ = {
    ".heic",
    ".heif",
    ".jxl",
    ".dng",
    ".cr2",
    ".cr3",
    ".nef",
    ".arw",
    ".orf",
    ".raf",
    ".rw2",
}
"""Photos of formats that Pillow does not read by itself."""


def find_pictures(inputs: Iterable[str | Path]) -> list[Path]:
    """Pictures among files and folders; folders are searched through, in sorted order.

    Photos there of formats that cannot be read are counted in a warning.

    Raises:
        DataError: there is no picture at all.
    """
    inputs = list(inputs)
    paths: dict[Path, None] = {}
    left_out: Counter[str] = Counter()
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.is_file())
            paths.update(dict.fromkeys(p for p in files if p.suffix.lower() in SUFFIXES))
            left_out.update(s for p in files if (s := p.suffix.lower()) in NOT_READ)
        else:  # one that does not exist is listed with the unreadable ones
            paths[path] = None
    if left_out:
        log.warning(
            "%d photos are left out, which cannot be read (%s): save them as JPEG or PNG",
            left_out.total(),
            ", ".join(f"{count} {suffix}" for suffix, count in sorted(left_out.items())),
        )
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
