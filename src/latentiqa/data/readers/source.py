"""What is known of a published dataset before any of its files is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from latentiqa.data.manifest import Manifest, Record, check_files
from latentiqa.errors import DataError

Kind = Literal["synthetic", "authentic", "generated"]


@dataclass(frozen=True)
class Source:
    """A published dataset.

    Attributes:
        name: short name, that of its choice in ``conf/dataset/``.
        paper: authors, title or venue, year.
        home: where it is published.
        licence: its terms in a few words, as far as they are stated.
        pictures: how many with a score were published.
        layout: files and folders below the root, for messages.
        mos_range: the ends of the scale; none where it has no ends, such as Elo: then the lowest
            and the highest score of the table stand for them.
        kind: where its flaws come from: ``synthetic`` ones were made from pristine photos,
            ``authentic`` ones happened to cameras, and ``generated`` pictures are a model's.
        higher_is_better: direction of the scores.
    """

    name: str
    paper: str
    home: str
    licence: str
    pictures: int
    layout: str
    mos_range: tuple[float, float] | None
    kind: Kind
    higher_is_better: bool = True

    @property
    def how_to_get(self) -> str:
        """What to download from where, for messages."""
        return (
            f"{self.pictures:,} pictures, {self.paper}; to be had from {self.home} "
            f"(licence: {self.licence}); nothing is downloaded for you"
        )

    def locate(self, root: str | Path, *parts: str) -> Path:
        """The root folder, once it holds what the layout promises.

        Args:
            root: folder that the user named.
            *parts: files and folders below it that must be there.

        Raises:
            DataError: some are not; tells the layout and where the dataset is published.
        """
        root = Path(root).expanduser()
        absent = [str(path) for path in (root, *(root / p for p in parts)) if not path.exists()]
        if absent:
            raise self.absent(", ".join(absent[:1] if absent[0] == str(root) else absent))
        return root

    def absent(self, what: str) -> DataError:
        """The error of a dataset that is not there, to be raised."""
        return DataError(
            f"{self.name}: {what} not found; expected the authors' layout: {self.layout}. "
            f"{self.how_to_get}"
        )

    def manifest(self, records: Iterable[Record], note: str = "") -> Manifest:
        """The dataset, once every picture listed is there.

        Args:
            records: one a picture, in the order of the authors' table.
            note: a caveat that goes wherever the numbers go.

        Raises:
            DataError: pictures are missing, or names or scores are wrong.
        """
        records = tuple(records)
        check_files(self.name, records, "complete the folder or remove their rows")
        mos_range = self.mos_range
        if mos_range is None and records:
            # One that is not finite is refused by its picture's name below.
            scores = [record.mos for record in records if math.isfinite(record.mos)]
            mos_range = (min(scores, default=0.0), max(scores, default=1.0))
        return Manifest(self.name, records, mos_range, self.higher_is_better, note, self)


def finder(folder: Path, *suffixes: str) -> Callable[[str], Path]:
    """What gives a file anywhere below a folder by its name, whatever its case.

    For datasets whose tables and archives disagree about upper and lower case, or whose mirrors
    put pictures into different folders. Of two files of one name it gives the first path, of a
    name that is not there the path directly below the folder.
    """
    wanted = tuple(suffix.lower() for suffix in suffixes)
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.name.lower().endswith(wanted):
            found.setdefault(path.name.lower(), path)
    return lambda name: found.get(name.lower(), folder / name)
