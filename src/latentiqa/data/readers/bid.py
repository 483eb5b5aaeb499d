"""BID: photos with realistic blur."""

from __future__ import annotations

from pathlib import Path

from latentiqa.data.manifest import Manifest, Record
from latentiqa.data.readers.source import Source, finder
from latentiqa.data.tables import read_sheet

TABLE = "DatabaseGrades.xlsx"
NUMBER, GRADE = "Image Number", "Average Subjective Grade"

SOURCE = Source(
    name="bid",
    paper="Ciancio et al., IEEE Trans. Image Processing 20(1), 2011",
    home="www02.smt.ufrj.br/~eduardo/ImageDatabase.htm (a copy: github.com/zwx8981/UNIQUE)",
    licence="research use; cite the paper",
    pictures=586,
    layout=f"{TABLE} ({NUMBER},{GRADE}) and DatabaseImage0001.JPG, ...",
    mos_range=(0.0, 5.0),
    kind="authentic",
)


def read_bid(root: str | Path) -> Manifest:
    """Read BID: grades from 0 to 5, higher is better.

    The workbook has numbers in place of names: number 7 is ``DatabaseImage0007.JPG``. Numbers have
    gaps.

    Args:
        root: folder with the workbook and the pictures.

    Raises:
        DataError: something is missing or broken.
    """
    root = SOURCE.locate(root, TABLE)
    find = finder(root, ".jpg")
    records = []
    for row in read_sheet(root / TABLE, (NUMBER, GRADE)):
        if not row.cells[NUMBER]:
            continue
        name = f"DatabaseImage{int(row.number(NUMBER)):04d}.JPG"
        path = find(name)
        records.append(Record(name=name, path=path, mos=row.number(GRADE)))
    return SOURCE.manifest(records)
