"""NNID, the Natural Night-time Image Database, at three resolutions."""

from __future__ import annotations

from pathlib import Path

from latentiqa.data.manifest import Manifest, Record
from latentiqa.data.readers.source import Source
from latentiqa.data.tables import read_lines
from latentiqa.errors import ConfigError

SIDES = (512, 1024, 2048)

SOURCE = Source(
    name="nnid",
    paper="Xiang, Yang and Guo, 'Blind Night-Time Image Quality Assessment', IEEE TMM 22, 2020",
    home="its authors",
    licence="not stated; cite the paper",
    pictures=2240,
    layout="mos512_with_names.txt (lines mos, name), sub512/, and so on for 1024 and 2048",
    mos_range=None,
    kind="authentic",
)


def read_nnid(root: str | Path, side: int | None = None) -> Manifest:
    """Read NNID: MOS, higher is better.

    The folder of the largest pictures is ``Sub2048``, those of the others ``sub512`` and
    ``sub1024``. A picture's name has its folder, since names repeat.

    Args:
        root: folder with the tables and the pictures.
        side: one resolution of 512, 1024 and 2048; default: all three.

    Raises:
        ConfigError: another side.
        DataError: something is missing or broken.
    """
    if side not in (None, *SIDES):
        raise ConfigError(f"side={side!r}: expected one of {', '.join(map(str, SIDES))} or null")
    chosen = SIDES if side is None else (side,)
    root = SOURCE.locate(root, *(f"mos{n}_with_names.txt" for n in chosen))
    folders = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    return SOURCE.manifest(
        Record(
            name=f"sub{n}/{row.text('name')}",
            path=folders.get(f"sub{n}", root / f"sub{n}") / row.text("name"),
            mos=row.number("mos"),
            attributes={"side": str(n)},
        )
        for n in chosen
        for row in read_lines(root / f"mos{n}_with_names.txt", ("mos", "name"))
    )
