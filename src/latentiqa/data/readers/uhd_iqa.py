"""UHD-IQA: photos of high quality, 3840 pixels wide, rated by experts."""

from __future__ import annotations

from pathlib import Path

from latentiqa.data.manifest import Manifest, Part, Record
from latentiqa.data.readers.source import Source, finder
from latentiqa.data.tables import read_rows

TABLE = "uhd-iqa-metadata.csv"
PARTS: dict[str, Part] = {"training": "train", "validation": "val", "test": "test"}

SOURCE = Source(
    name="uhd_iqa",
    paper="Hosu, Agnolucci, Wiedemann, Iso and Saupe, ECCV Workshops 2024",
    home="database.mmsp-kn.de/uhd-iqa-benchmark-database.html",
    licence="photos from Pixabay, CC0; cite the paper",
    pictures=6073,
    layout=f"{TABLE} (image_name,quality_mos,set) and the pictures in training/, validation/, "
    "test/",
    mos_range=(0.0, 1.0),
    kind="authentic",
)


def read_uhd_iqa(root: str | Path) -> Manifest:
    """Read UHD-IQA: MOS from 0 to 1, higher is better, with the official split.

    Args:
        root: folder with the table and, anywhere below, the pictures.

    Raises:
        DataError: something is missing or broken.
    """
    root = SOURCE.locate(root, TABLE)
    find = finder(root, ".jpg")
    records = []
    for row in read_rows(root / TABLE, ("image_name", "quality_mos", "set")):
        name = row.text("image_name")
        records.append(
            Record(
                name=name,
                path=find(name),
                mos=row.number("quality_mos"),
                part=row.choice("set", PARTS),
            )
        )
    return SOURCE.manifest(records)
