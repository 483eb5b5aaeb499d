"""KonIQ-10k: photos of YFCC100m, rated by a crowd."""

from __future__ import annotations

from pathlib import Path

from latentiqa.data.manifest import Manifest, Part, Record
from latentiqa.data.readers.source import Source
from latentiqa.data.tables import read_rows
from latentiqa.errors import ConfigError

SETS, SCORES = "koniq10k_distributions_sets.csv", "koniq10k_scores_and_distributions.csv"
SIZES = ("1024x768", "512x384")
PARTS: dict[str, Part] = {"training": "train", "validation": "val", "test": "test"}

SOURCE = Source(
    name="koniq10k",
    paper="Hosu, Lin, Sziranyi and Saupe, IEEE Trans. Image Processing 29, 2020",
    home="database.mmsp-kn.de/koniq-10k-database.html",
    licence="photos of YFCC100m, each under a Creative Commons licence; cite the paper",
    pictures=10073,
    layout=f"{SETS} or {SCORES}, and {' or '.join(f'{size}/' for size in SIZES)}",
    mos_range=(1.0, 100.0),
    kind="authentic",
)


def read_koniq10k(root: str | Path, size: str = "1024x768") -> Manifest:
    """Read KonIQ-10k: scores from 1 to 100, higher is better.

    Two tables go round, whose columns ``MOS`` have the same name and different scales. Of
    ``koniq10k_distributions_sets.csv`` it is ``MOS``, from 1 to 100, and ``set`` gives the official
    split; it is read where it is there. Of ``koniq10k_scores_and_distributions.csv`` it is
    ``MOS_zscore``, from 1 to 100, not ``MOS``, from 1 to 5; there is no official split.

    Args:
        root: folder with a table and the pictures.
        size: which folder of pictures, ``1024x768`` or ``512x384``.

    Raises:
        ConfigError: another size.
        DataError: something is missing or broken.
    """
    if size not in SIZES:
        raise ConfigError(f"size={size!r}: expected {' or '.join(SIZES)}")
    root = SOURCE.locate(root, size)
    tables = [root / name for name in (SETS, SCORES) if (root / name).is_file()]
    if not tables:
        raise SOURCE.absent(f"{root / SETS}")
    has_sets = tables[0].name == SETS
    score = "MOS" if has_sets else "MOS_zscore"
    records = []
    for row in read_rows(tables[0], ("image_name", score, *(["set"] if has_sets else []))):
        name = row.text("image_name")
        records.append(
            Record(
                name=name,
                path=root / size / name,
                mos=row.number(score),
                part=row.choice("set", PARTS) if has_sets else None,
            )
        )
    return SOURCE.manifest(records)
