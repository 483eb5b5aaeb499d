"""What a dataset is once it is read: named pictures with one score each."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from latentiqa.errors import ConfigError, DataError
from latentiqa.hashing import digest

if TYPE_CHECKING:
    from latentiqa.data.readers.source import Source

Part = Literal["train", "val", "test"]

UNRATED = math.nan
"""The score of a picture without one."""


@dataclass(frozen=True)
class Record:
    """One picture.

    Attributes:
        name: unique in its dataset; what splits, seeds and predictions refer to.
        path: the file.
        mos: the raw score, on the dataset's own scale, or `UNRATED`.
        reference: name of the content it was made from, where the dataset has such.
        part: the part of the official split that it belongs to, where there is one.
        attributes: anything else worth grouping results by, such as distortion and level.
    """

    name: str
    path: Path
    mos: float
    reference: str | None = None
    part: Part | None = None
    attributes: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Manifest:
    """A dataset: its records and what its scores mean.

    Attributes:
        dataset: short name.
        records: in the dataset's own order; the position is a batch's ``index``.
        mos_range: the ends of the raw scale; none of a dataset without scores.
        higher_is_better: direction of the raw scale.
        note: a caveat that is printed wherever numbers from this dataset appear.
        source: what was published, of a published dataset.

    Raises:
        ConfigError: the range is not two finite numbers in ascending order.
        DataError: no records, a name twice, or a score that is not finite or outside the range.

    Example:
        >>> records = (Record("a.png", Path("a.png"), mos=20), Record("b.png", Path("b.png"), 80))
        >>> manifest = Manifest("dmos", records, mos_range=(0, 100), higher_is_better=False)
        >>> [manifest.target(record.mos) for record in manifest]
        [0.8, 0.2]
    """

    dataset: str
    records: tuple[Record, ...]
    mos_range: tuple[float, float] | None
    higher_is_better: bool = True
    note: str = ""
    source: Source | None = None

    def __post_init__(self) -> None:
        low, high = (-math.inf, math.inf) if self.mos_range is None else self.mos_range
        if self.is_rated and not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ConfigError(
                f"mos_range={self.mos_range}: expected (lowest, highest), two finite numbers"
            )
        if not self.records:
            raise DataError(f"{self.dataset}: no pictures; expected at least one record")
        counts = Counter(self.names)
        if repeated := [name for name, count in counts.items() if count > 1]:
            raise DataError(
                f"{self.dataset}: {len(repeated)} names occur more than once: "
                f"{_first(repeated)}; names must be unique, remove or rename the copies"
            )
        for record in self.records:
            if math.isfinite(record.mos) != self.is_rated:
                raise DataError(f"{self.dataset}: the score of {record.name} is {record.mos}")
            if self.is_rated and not low <= record.mos <= high:
                raise DataError(
                    f"{self.dataset}: the score of {record.name} is {record.mos}, outside "
                    f"mos_range=[{low}, {high}]; mend the score or state the true range"
                )

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    @property
    def is_rated(self) -> bool:
        """Whether its pictures have scores: all of them, or none."""
        return self.mos_range is not None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names in the order of the records."""
        return tuple(record.name for record in self.records)

    @cached_property
    def by_name(self) -> Mapping[str, Record]:
        """Records by their names."""
        return {record.name: record for record in self.records}

    def target(self, mos: float) -> float:
        """Map a raw score to [0, 1], higher better: what heads are trained on.

        Raises:
            DataError: the score is outside ``mos_range``, or the dataset has no scores.
        """
        if self.mos_range is None:
            raise DataError(f"{self.dataset}: has no scores; it is for pretraining")
        low, high = self.mos_range
        if not low <= mos <= high:
            raise DataError(f"{self.dataset}: score {mos} is outside mos_range=[{low}, {high}]")
        return (mos - low if self.higher_is_better else high - mos) / (high - low)

    def subset(self, names: Iterable[str]) -> Manifest:
        """The same dataset with only these pictures, in the order of ``names``.

        Raises:
            DataError: a name is not in the manifest.
        """
        names = tuple(names)
        if unknown := [name for name in names if name not in self.by_name]:
            raise DataError(
                f"{self.dataset}: {len(unknown)} names are not in the dataset: {_first(unknown)}"
            )
        return replace(self, records=tuple(self.by_name[name] for name in names))

    @property
    def fingerprint(self) -> str:
        """Hash of names, raw scores and references, and of what the scores mean.

        Neither the paths nor the order of the records count: a moved folder and a re-sorted
        table are the same dataset. Range and direction count where they are the user's to say,
        and neither the lowest and highest score nor higher is better.
        """
        rows: list[list[Any]] = [[r.name, float(r.mos), r.reference or ""] for r in self.records]
        told = sorted(rows)
        if self.source is None and self.mos_range is not None:
            scores = [r.mos for r in self.records]
            scale = [*map(float, self.mos_range), self.higher_is_better]
            if scale != [float(min(scores)), float(max(scores)), True]:
                told.append(scale)
        return digest(told)


def check_files(dataset: str, records: Iterable[Record], way_out: str) -> None:
    """Make sure that every listed picture is there, before any of them is needed.

    Args:
        dataset: name for the message.
        records: what to look for.
        way_out: end of the message: what the user can do.

    Raises:
        DataError: files are missing; all are counted and the first few named.
    """
    records = tuple(records)
    if missing := [str(record.path) for record in records if not record.path.is_file()]:
        raise DataError(
            f"{dataset}: {len(missing)} of {len(records)} image files are missing: "
            f"{_first(missing)}; {way_out}"
        )


def _first(items: list[str], count: int = 5) -> str:
    """The first few of a long list, for messages."""
    rest = f" and {len(items) - count} more" if len(items) > count else ""
    return ", ".join(items[:count]) + rest
