"""SPAQ: photos of 66 smartphones."""

from __future__ import annotations

from pathlib import Path

from latentiqa.data.manifest import Manifest, Record
from latentiqa.data.readers.source import Source
from latentiqa.data.tables import read_sheet

TABLE = "MOS and Image attribute scores.xlsx"
FOLDERS = ("Annotations", "annotations", ".")
ATTRIBUTES = ("Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness")

SOURCE = Source(
    name="spaq",
    paper="Fang, Zhu, Zeng, Ma and Wang, CVPR 2020",
    home="github.com/h4nwei/SPAQ",
    licence="research use; cite the paper",
    pictures=11125,
    layout=f"Annotations/{TABLE} and TestImage/",
    mos_range=(0.0, 100.0),
    kind="authentic",
)


def read_spaq(root: str | Path) -> Manifest:
    """Read SPAQ: MOS from 0 to 100, higher is better; the five attributes' scores beside.

    Mirrors write the workbook's name with underscores. Pictures have many megapixels: the field
    scales their short side to 512, ``views=short_side`` at 512 pixels.

    Args:
        root: folder with ``Annotations/`` and ``TestImage/``.

    Raises:
        DataError: something is missing or broken.
    """
    root = SOURCE.locate(root, "TestImage")
    names = (TABLE, TABLE.replace(" ", "_"))
    tables = [root / folder / name for folder in FOLDERS for name in names]
    table = next((path for path in tables if path.is_file()), None)
    if table is None:
        raise SOURCE.absent(f"{tables[0]}")
    return SOURCE.manifest(
        Record(
            name=row.text("Image name"),
            path=root / "TestImage" / row.text("Image name"),
            mos=row.number("MOS"),
            attributes={name.lower(): row.text(name) for name in ATTRIBUTES},
        )
        for row in read_sheet(table, ("Image name", "MOS", *ATTRIBUTES))
    )
