"""CLIVE, the LIVE In the Wild Image Quality Challenge Database: photos of many phones."""

from __future__ import annotations

from pathlib import Path

from latentiqa.data.manifest import Manifest, Record
from latentiqa.data.readers.matlab import read_mat
from latentiqa.data.readers.source import Source
from latentiqa.errors import DataError

NAMES, SCORES = "AllImages_release", "AllMOS_release"
TRAINING = 7
"""Pictures at the beginning of the arrays that observers were trained on."""

SOURCE = Source(
    name="clive",
    paper="Ghadiyaram and Bovik, IEEE Trans. Image Processing 25(1), 2016",
    home="live.ece.utexas.edu/research/ChallengeDB (a form gives the password)",
    licence="any purpose, with the copyright notice of UT Austin and the papers cited",
    pictures=1162,
    layout=f"Data/{NAMES}.mat, Data/{SCORES}.mat and Images/",
    mos_range=(0.0, 100.0),
    kind="authentic",
)


def read_clive(root: str | Path) -> Manifest:
    """Read CLIVE: MOS from 0 to 100, higher is better.

    The arrays have 1,169 entries, of which the first seven are the pictures that observers were
    trained on; they are left out, as the authors do.

    Args:
        root: folder with ``Data/`` and ``Images/``.

    Raises:
        DataError: something is missing or broken.
    """
    files = [f"Data/{NAMES}.mat", f"Data/{SCORES}.mat"]
    root = SOURCE.locate(root, *files, "Images")
    (names,) = read_mat(root / files[0], NAMES)
    (scores,) = read_mat(root / files[1], SCORES)
    if len(names) != len(scores) or len(names) <= TRAINING:
        raise DataError(
            f"{root / 'Data'}: {len(names)} names and {len(scores)} scores; expected as many of "
            f"both, {TRAINING} training pictures first"
        )
    pairs = list(zip(names, scores, strict=True))[TRAINING:]
    return SOURCE.manifest(
        Record(name=str(name), path=root / "Images" / str(name), mos=float(score))
        for name, score in pairs
    )
