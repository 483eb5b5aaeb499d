"""LIVE Image Quality Assessment Database, release 2: 29 photos, five distortions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from latentiqa.data.manifest import Manifest, Record
from latentiqa.data.readers.matlab import read_mat
from latentiqa.data.readers.source import Source
from latentiqa.errors import DataError

DISTORTIONS = ("jp2k", "jpeg", "wn", "gblur", "fastfading")
"""Folders, in the order in which the MATLAB arrays go through them."""

SCORES, REFERENCES = "dmos_realigned.mat", "refnames_all.mat"

SOURCE = Source(
    name="live",
    paper="Sheikh, Sabir and Bovik, IEEE Trans. Image Processing 15(11), 2006",
    home="live.ece.utexas.edu/research/quality/subjective.htm (a form gives the password)",
    licence="any purpose, with the copyright notice of UT Austin and the papers cited",
    pictures=779,
    layout=f"{SCORES}, {REFERENCES} and the folders {', '.join(DISTORTIONS)} of imgN.bmp",
    mos_range=None,
    kind="synthetic",
    higher_is_better=False,
)


def read_live(root: str | Path) -> Manifest:
    """Read LIVE: realigned DMOS, lower is better, with the photo that each was made from.

    Of the arrays' 982 entries those of undistorted copies (``orgs`` = 1) are left out, which
    leaves 779. The scores are those of ``dmos_realigned.mat``: in ``dmos.mat`` the five
    distortions are not on one scale.

    Args:
        root: folder with the two MATLAB files and the five folders.

    Raises:
        DataError: something is missing, broken, or the arrays do not fit the folders.
    """
    root = SOURCE.locate(root, SCORES, REFERENCES, *DISTORTIONS)
    dmos, originals = read_mat(root / SCORES, "dmos_new", "orgs")
    (references,) = read_mat(root / REFERENCES, "refnames_all")
    places = [(kind, number) for kind in DISTORTIONS for number in _numbers(root / kind)]
    if not len(places) == len(dmos) == len(references):
        raise DataError(
            f"{root}: {SCORES} has {len(dmos)} entries and {REFERENCES} {len(references)}, but the "
            f"folders {', '.join(DISTORTIONS)} have {len(places)} pictures imgN.bmp; complete them"
        )
    return SOURCE.manifest(
        Record(
            name=f"{kind}/img{number}.bmp",
            path=root / kind / f"img{number}.bmp",
            mos=float(score),
            reference=str(reference).lower(),
            attributes={"distortion": kind},
        )
        for (kind, number), score, original, reference in zip(
            places, dmos, originals, references, strict=True
        )
        if not original
    )


def _numbers(folder: Path) -> Iterator[int]:
    """1 to the highest N of the imgN.bmp in a folder."""
    found = [re.fullmatch(r"img(\d+)\.bmp", path.name, re.IGNORECASE) for path in folder.iterdir()]
    yield from range(1, max((int(match[1]) for match in found if match), default=0) + 1)
