"""Reader of BIQ2021: 12,000 photos with authentic distortions and laboratory scores.

Ahmed and Asif, "BIQ2021: a large-scale blind image quality assessment database", Journal of
Electronic Imaging 31(5), 2022; github.com/nisarahmedrana/BIQ2021.
"""

from __future__ import annotations

from pathlib import Path

from latentiqa.data.manifest import Manifest, Part, Record
from latentiqa.data.readers.source import Source
from latentiqa.data.tables import read_rows

TABLES: dict[str, Part] = {
    "Train (Images and MOS).csv": "train",
    "Test (Images and MOS).csv": "test",
}

SOURCE = Source(
    name="biq2021",
    paper="Ahmed and Asif, Journal of Electronic Imaging 31(5), 2022",
    home="github.com/nisarahmedrana/BIQ2021",
    licence="research use; cite the paper",
    pictures=12000,
    layout=f"Images/, {', '.join(TABLES)} (columns Image Name,MOS)",
    mos_range=(0.0, 1.0),
    kind="authentic",
)


def read_biq2021(root: str | Path) -> Manifest:
    """Read BIQ2021 in the authors' layout, with the official train and test parts.

    The tables may list fewer pictures than the 12,000 that were published; each one listed must
    be there. Scores are the means of 30 observers, scaled to [0, 1], higher is better.

    Args:
        root: folder with ``Images/`` and the two tables.

    Raises:
        DataError: folder, table or pictures are missing, or a table is broken.
    """
    root = SOURCE.locate(root, "Images", *TABLES)
    return SOURCE.manifest(
        Record(
            name=row.text("Image Name"),
            path=root / "Images" / row.text("Image Name"),
            mos=row.number("MOS"),
            part=part,
        )
        for table, part in TABLES.items()
        for row in read_rows(root / table, required=("Image Name", "MOS"))
    )
