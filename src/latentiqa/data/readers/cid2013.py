"""CID2013: photos of 79 cameras and phones, in six sets."""

from __future__ import annotations

from pathlib import Path

from latentiqa.data.manifest import Manifest, Record
from latentiqa.data.readers.source import Source, finder
from latentiqa.data.tables import read_sheet

TABLE, SHEET = "CID2013 data - version 12112014.xlsx", "CID2013 MOS"

SOURCE = Source(
    name="cid2013",
    paper="Virtanen, Nuutinen, Vaahteranoksa, Oittinen and Hakkinen, IEEE TIP 24(1), 2015",
    home="zenodo.org/record/2647033",
    licence="stated at its home; cite the paper",
    pictures=474,
    layout=f"{TABLE} and IS1/co1/*.jpg to IS6/",
    mos_range=None,
    kind="authentic",
)


def read_cid2013(root: str | Path) -> Manifest:
    """Read CID2013: realigned MOS, higher is better; some lie below 0.

    The realigned scores are on one scale over the six image sets; the sets, which share scenes and
    observers, are what a split keeps together.

    Args:
        root: folder with the workbook and the sets' folders.

    Raises:
        DataError: something is missing or broken.
    """
    root = SOURCE.locate(root, TABLE)
    find = finder(root, ".jpg")
    records = []
    for row in read_sheet(root / TABLE, ("Source_ID", "Realigned MOS"), SHEET):
        if not row.cells["Source_ID"]:
            continue
        name = row.text("Source_ID").rpartition("/")[2].removesuffix(".jpg") + ".jpg"
        image_set = name.rpartition("_C")[0]
        if not image_set.startswith("IS_"):
            raise row.error(f"Source_ID {name!r}; expected such as IS_I_C01_D01")
        records.append(
            Record(
                name=name,
                path=find(name),
                mos=row.number("Realigned MOS"),
                reference=image_set,
            )
        )
    return SOURCE.manifest(records)
