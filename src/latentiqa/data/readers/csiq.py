"""CSIQ: 30 photos, six distortions at four or five levels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from latentiqa.data.manifest import Manifest, Record
from latentiqa.data.readers.source import Source, finder
from latentiqa.data.tables import read_lines, read_sheet

WORKBOOK, SHEET = "csiq.DMOS.xlsx", "all_by_image"
LINES = "csiq_label.txt"

TOKENS = {
    "noise": "AWGN",
    "blur": "BLUR",
    "contrast": "contrast",
    "fnoise": "fnoise",
    "jpeg": "JPEG",
    "jpeg 2000": "jpeg2000",
}
"""What the workbook calls a distortion -> what the files do."""

SOURCE = Source(
    name="csiq",
    paper="Larson and Chandler, Journal of Electronic Imaging 19(1), 2010",
    home="vision.eng.shizuoka.ac.jp (CSIQ Image Quality Database)",
    licence="not stated; cite the paper",
    pictures=866,
    layout=f"dst_imgs/<distortion>/<photo>.<DISTORTION>.<level>.png and {WORKBOOK} or {LINES}",
    mos_range=(0.0, 1.0),
    kind="synthetic",
    higher_is_better=False,
)


def read_csiq(root: str | Path) -> Manifest:
    """Read CSIQ: DMOS in [0, 1], lower is better, with the photo that each was made from.

    The scores come from the authors' workbook, whose header is on row 4, or from the text file
    that many repositories pass on in its place. Files are found whatever the case of folders and
    names and however deep they lie, since mirrors differ; a picture's name is the authors'
    (``1600.AWGN.1.png``). The photo "1600" is a number in the workbook.

    Args:
        root: folder with ``dst_imgs/`` and a table.

    Raises:
        DataError: something is missing or broken.
    """
    root = SOURCE.locate(root)
    tables = [root / name for name in (WORKBOOK, LINES) if (root / name).is_file()]
    if not tables:
        raise SOURCE.absent(f"{root / WORKBOOK}")
    rows = _of_workbook(tables[0]) if tables[0].name == WORKBOOK else _of_lines(tables[0])
    find = finder(root, ".png")
    return SOURCE.manifest(
        Record(
            name=name,
            path=find(name),
            mos=score,
            reference=photo.lower(),
            attributes={"distortion": token.lower(), "level": level},
        )
        for name, photo, token, level, score in rows
    )


Rows = Iterator[tuple[str, str, str, str, float]]
"""Name, photo, distortion, level, score."""


def _of_workbook(path: Path) -> Rows:
    columns = ("image", "dst_type", "dst_lev", "dmos")
    for row in read_sheet(path, columns, SHEET):
        if not row.cells["image"]:  # remarks and padding below the table
            continue
        photo, token, level = row.text("image"), row.choice("dst_type", TOKENS), row.text("dst_lev")
        yield f"{photo}.{token}.{level}.png", photo, token, level, row.number("dmos")


def _of_lines(path: Path) -> Rows:
    for row in read_lines(path, ("name", "dmos")):
        parts = row.text("name").split(".")
        if len(parts) != 4:
            raise row.error(f"{row.cells['name']!r}; expected <photo>.<DISTORTION>.<level>.png")
        yield row.text("name"), parts[0], parts[1], parts[2], row.number("dmos")
