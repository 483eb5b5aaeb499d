"""Reader of BIQ2021: 12,000 photos with authentic distortions and laboratory scores.

Ahmed and Asif, "BIQ2021: a large-scale blind image quality assessment database", Journal of
Electronic Imaging 31(5), 2022; github.com/nisarahmedrana/BIQ2021.
"""

from __future__ import annotations

from pathlib import Path

from latentiqa.data.manifest import Manifest, Part, Record, check_files
from latentiqa.data.tables import read_rows
from latentiqa.errors import DataError

TABLES: dict[str, Part] = {
    "Train (Images and MOS).csv": "train",
    "Test (Images and MOS).csv": "test",
}
MOS_RANGE = (0.0, 1.0)
LAYOUT = (
    f"expected the authors' layout: Images/, {', '.join(TABLES)} (columns Image Name,MOS); "
    "the dataset is published at github.com/nisarahmedrana/BIQ2021 (Ahmed and Asif, Journal of "
    "Electronic Imaging 31(5), 2022)"
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
    root = Path(root).expanduser()
    expected = [root, root / "Images", *(root / table for table in TABLES)]
    if absent := [str(path) for path in expected if not path.exists()]:
        raise DataError(f"biq2021: {', '.join(absent)} not found; {LAYOUT}")
    records = tuple(
        Record(
            name=row.text("Image Name"),
            path=root / "Images" / row.text("Image Name"),
            mos=row.number("MOS"),
            part=part,
        )
        for table, part in TABLES.items()
        for row in read_rows(root / table, required=("Image Name", "MOS"))
    )
    check_files("biq2021", records, f"complete {root / 'Images'} or remove their rows")
    return Manifest("biq2021", records, MOS_RANGE, higher_is_better=True)
