"""TID2008 and TID2013: 25 photos, 17 distortions at four levels and 24 at five."""

from __future__ import annotations

from pathlib import Path

from latentiqa.data.manifest import Manifest, Record
from latentiqa.data.readers.source import Source, finder
from latentiqa.data.tables import read_lines

TABLE, PICTURES = "mos_with_names.txt", "distorted_images"
LAYOUT = f'{TABLE} (lines "<mos> <name>") and {PICTURES}/'

TID2008 = Source(
    name="tid2008",
    paper="Ponomarenko et al., Advances of Modern Radioelectronics 10, 2009",
    home="www.ponomarenko.info/tid2008.htm",
    licence="free for research; cite the paper",
    pictures=1700,
    layout=LAYOUT,
    mos_range=(0.0, 9.0),
    kind="synthetic",
)
TID2013 = Source(
    name="tid2013",
    paper="Ponomarenko et al., Signal Processing: Image Communication 30, 2015",
    home="www.ponomarenko.info/tid2013.htm",
    licence="free for research; cite the paper",
    pictures=3000,
    layout=LAYOUT,
    mos_range=(0.0, 9.0),
    kind="synthetic",
)


def read_tid2008(root: str | Path) -> Manifest:
    """Read TID2008; see `read_tid2013`."""
    return _read(TID2008, root)


def read_tid2013(root: str | Path) -> Manifest:
    """Read TID2013: MOS from 0 to 9, higher is better, with the photo that each was made from.

    Table and archive mix upper and lower case (``I01_01_1.bmp``, ``i01_04_1.bmp``, ``.BMP``): files
    are found whatever their case, names stay as the table has them, and references are in lower
    case, so that ``I25`` and ``i25`` are one content.

    Args:
        root: folder with the table and the pictures.

    Raises:
        DataError: something is missing or broken.
    """
    return _read(TID2013, root)


def _read(source: Source, root: str | Path) -> Manifest:
    root = source.locate(root, TABLE, PICTURES)
    find = finder(root / PICTURES, ".bmp")
    records = []
    for row in read_lines(root / TABLE, ("mos", "name")):
        name = row.text("name")
        parts = name.lower().removesuffix(".bmp").split("_")
        if len(parts) != 3:
            raise row.error(f"{name!r}; expected <photo>_<distortion>_<level>.bmp")
        records.append(
            Record(
                name=name,
                path=find(name),
                mos=row.number("mos"),
                reference=parts[0],
                attributes={"distortion": parts[1], "level": parts[2]},
            )
        )
    return source.manifest(records)
