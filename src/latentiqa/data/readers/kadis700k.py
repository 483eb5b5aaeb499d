"""KADIS-700k: 140,000 pristine photos and the distortions that are made of them; no scores."""

from __future__ import annotations

from pathlib import Path

from latentiqa.data.manifest import UNRATED, Manifest, Record, check_files
from latentiqa.data.readers.source import Source
from latentiqa.data.tables import read_rows
from latentiqa.errors import ConfigError

TABLE = "kadis700k_ref_imgs.csv"
LEVELS = range(1, 6)

SOURCE = Source(
    name="kadis700k",
    paper="Lin, Hosu and Saupe, QoMEX 2019",
    home="database.mmsp-kn.de/kadid-10k-database.html",
    licence="photos from Pixabay, Pixabay licence; cite the paper",
    pictures=140000,
    layout=f"{TABLE} and ref_imgs/ (dist_imgs/ is made by the authors' MATLAB code)",
    mos_range=None,
    kind="synthetic",
)


def read_kadis700k(root: str | Path, distorted: bool = False) -> Manifest:
    """Read KADIS-700k: pictures without scores, for pretraining and distillation.

    Args:
        root: folder with the table and ``ref_imgs/``.
        distorted: the five distorted copies ``dist_imgs/<photo>_<TT>_<LL>.bmp`` of each photo
            beside it, once the authors' code has made them.

    Raises:
        ConfigError: ``distorted`` is not true or false.
        DataError: something is missing or broken.
    """
    if not isinstance(distorted, bool):
        raise ConfigError(f"distorted={distorted!r}: expected true or false")
    root = SOURCE.locate(root, TABLE, "ref_imgs", *(["dist_imgs"] if distorted else []))
    records = []
    for row in read_rows(root / TABLE, ("ref_im", "dist_type_1")):
        photo = row.text("ref_im")
        stem = photo.rpartition(".")[0]
        names = {f"ref_imgs/{photo}": {"distortion": "none", "level": "0"}}
        if distorted:
            kind = f"{int(row.number('dist_type_1')):02d}"
            names |= {
                f"dist_imgs/{stem}_{kind}_{level:02d}.bmp": {
                    "distortion": kind,
                    "level": str(level),
                }
                for level in LEVELS
            }
        records += [
            Record(name, root / name, UNRATED, reference=stem, attributes=attributes)
            for name, attributes in names.items()
        ]
    check_files(SOURCE.name, records, "complete the folder or remove their rows")
    return Manifest(SOURCE.name, tuple(records), None, source=SOURCE)
