"""KADID-10k: 81 photos, 25 distortions at five levels."""

from __future__ import annotations

from pathlib import Path

from latentiqa.data.manifest import Manifest, Record
from latentiqa.data.readers.source import Source
from latentiqa.data.tables import read_rows

SOURCE = Source(
    name="kadid10k",
    paper="Lin, Hosu and Saupe, QoMEX 2019",
    home="database.mmsp-kn.de/kadid-10k-database.html",
    licence="photos from Pixabay, Pixabay licence; cite the paper",
    pictures=10125,
    layout="dmos.csv (dist_img,ref_img,dmos,var) and images/",
    mos_range=(1.0, 5.0),
    kind="synthetic",
)


def read_kadid10k(root: str | Path) -> Manifest:
    """Read KADID-10k: scores from 1 to 5, *higher is better* although the column is ``dmos``.

    ``var``, a variance, is not read. A name ``I01_TT_L.png`` tells distortion and level.

    Args:
        root: folder with ``dmos.csv`` and ``images/``.

    Raises:
        DataError: something is missing or broken.
    """
    root = SOURCE.locate(root, "dmos.csv", "images")
    records = []
    for row in read_rows(root / "dmos.csv", ("dist_img", "ref_img", "dmos")):
        name = row.text("dist_img")
        parts = name.removesuffix(".png").split("_")
        if len(parts) != 3:
            raise row.error(f"{name!r}; expected <photo>_<distortion>_<level>.png")
        records.append(
            Record(
                name=name,
                path=root / "images" / name,
                mos=row.number("dmos"),
                reference=row.text("ref_img"),
                attributes={"distortion": parts[1], "level": parts[2]},
            )
        )
    return SOURCE.manifest(records)
