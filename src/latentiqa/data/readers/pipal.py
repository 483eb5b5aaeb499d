"""PIPAL: 200 photos, distortions of restoration and GANs among them."""

from __future__ import annotations

from pathlib import Path

from latentiqa.data.manifest import Manifest, Record
from latentiqa.data.readers.source import Source, finder
from latentiqa.data.tables import read_lines

LABELS = "Train_Label"

SOURCE = Source(
    name="pipal",
    paper="Gu et al., ECCV 2020",
    home="www.jasongt.com/projectpages/pipal.html",
    licence="stated at its home; cite the paper",
    pictures=23200,
    layout=f"{LABELS}/A0001.txt (lines name,elo), ... and Distortion_1/ to Distortion_4/",
    mos_range=None,
    kind="synthetic",
)


def read_pipal(root: str | Path) -> Manifest:
    """Read PIPAL's training part, the one with public scores: Elo, higher is better.

    Args:
        root: folder with ``Train_Label/`` and the folders of pictures.

    Raises:
        DataError: something is missing or broken.
    """
    root = SOURCE.locate(root, LABELS)
    find = finder(root, ".bmp", ".png", ".jpg")
    tables = sorted((root / LABELS).glob("*.txt"))
    if not tables:
        raise SOURCE.absent(f"{root / LABELS}/*.txt")
    return SOURCE.manifest(
        Record(
            name=row.text("name"),
            path=find(row.text("name")),
            mos=row.number("elo"),
            reference=table.stem,
            attributes={"distortion": row.text("name").rpartition(".")[0].split("_")[1]},
        )
        for table in tables
        for row in read_lines(table, ("name", "elo"), separator=",")
    )
