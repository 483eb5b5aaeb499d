"""Splits: lists of picture names, made from a seed, taken from the dataset or kept in a file."""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal

from latentiqa.data.manifest import Manifest, Record
from latentiqa.errors import ConfigError, DataError, LatentiqaError
from latentiqa.hashing import digest

Group = list[str]

PARTS = ("train", "val", "test")
SAVED = "saved"
"""The kind of a split whose lists stand in a file and are not to be had without it."""


@dataclass(frozen=True)
class Split:
    """Names of the pictures in each part; selection looks at val only, test is read once.

    Attributes:
        train: sorted names.
        val: sorted names.
        test: sorted names.
        kind: how it was made, ``official`` or ``seed-<n>``; or `SAVED`.
        made_by: the arguments of `make_split` that give it; none of a `SAVED` one.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    kind: str
    made_by: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def hash(self) -> str:
        """Digest of the three lists."""
        return digest([self.train, self.val, self.test])

    def to_json(self) -> str:
        """The split as text, with its hash."""
        return json.dumps({**asdict(self), "hash": self.hash}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Split:
        """Read what `to_json` wrote.

        Raises:
            DataError: not such a text, or one whose lists no longer give its hash.
        """
        try:
            value = json.loads(text)
            parts = {part: tuple(value[part]) for part in PARTS}
            made_by = dict(value.get("made_by", {}))
            split, expected = cls(**parts, kind=value["kind"], made_by=made_by), value["hash"]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(
                f"not a split written by latentiqa ({error!r}); make it anew"
            ) from error
        if split.hash != expected:
            raise DataError(
                f"the lists of this split give the hash {split.hash}, its file says {expected}: "
                "it was edited or cut short; make it anew"
            )
        return split


def make_split(
    manifest: Manifest,
    split: int | Literal["official"],
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    validation_fraction: float = 0.125,
) -> Split:
    """Divide a dataset into train, val and test.

    Pictures that share a reference stay together, so that no content is in two parts. The same
    names, references and seed give the same split in any row order, process and Python version.

    Args:
        manifest: the dataset.
        split: a seed for a random split, or ``official`` for the dataset's own parts. If those
            have no val, it is drawn from train with seed 0.
        fractions: wanted shares of train, val and test; met as nearly as references allow. Only
            for seeds.
        validation_fraction: share of an official train that becomes val. Only for ``official``.

    Raises:
        ConfigError: an argument outside its range.
        DataError: the dataset has no official parts, too few contents for three parts, or
            official parts that share a content.

    Example:
        >>> from pathlib import Path
        >>> photos = [Record(f"{n}.png", Path(f"{n}.png"), mos=n) for n in range(10)]
        >>> split = make_split(Manifest("ten", tuple(photos), (0, 9), True), split=0)
        >>> len(split.train), len(split.val), len(split.test)
        (7, 1, 2)
    """
    is_seed = isinstance(split, int) and not isinstance(split, bool) and split >= 0
    if not (is_seed or split == "official"):
        raise ConfigError(f"split={split!r}: expected a seed (0, 1, ...) or official")
    if len(fractions) != 3 or min(fractions) <= 0 or not math.isclose(sum(fractions), 1):
        raise ConfigError(
            f"fractions={fractions}: expected three positive shares of train, val, test; sum 1"
        )
    if not 0 < validation_fraction < 1:
        raise ConfigError(f"validation_fraction={validation_fraction}: expected 0 < x < 1")
    if split == "official":
        made = _official(manifest, validation_fraction)
    else:
        made_by = {"split": split, "fractions": list(fractions)}
        dealt = _deal(manifest.records, fractions, split)
        made = Split(*dealt, kind=f"seed-{split}", made_by=made_by)
    check_disjoint(manifest, made)
    return made


def has_official(manifest: Manifest) -> bool:
    """Whether the dataset comes with a split of its own."""
    return {"train", "test"} <= {record.part for record in manifest}


def load_split(path: str | Path, manifest: Manifest) -> Split:
    """Read a split that was kept in a file, and make sure that it is one of this dataset.

    Returns:
        As it was kept if its arguments still give it; else as `SAVED`: the dataset has changed
        since, or the lists are only a selection.

    Raises:
        DataError: the file cannot be read, was edited, names pictures that the dataset has not, or
            has a picture or a content in two parts.
    """
    try:
        split = Split.from_json(Path(path).read_text(encoding="utf-8"))
        check_disjoint(manifest, split)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    except DataError as error:
        raise DataError(
            f"{path}: {error}. `latentiqa split` writes splits of a dataset; or take split=0 or "
            "another seed."
        ) from error
    return split if _is_made_anew(manifest, split) else replace(split, kind=SAVED, made_by={})


def _is_made_anew(manifest: Manifest, split: Split) -> bool:
    """Whether its own arguments give the same split of this dataset."""
    try:
        return make_split(manifest, **split.made_by) == split
    except (LatentiqaError, TypeError):  # none, or not of this function
        return False


def check_disjoint(manifest: Manifest, split: Split) -> None:
    """Make sure that no picture and no content is in two parts.

    Raises:
        DataError: one is, or a name is not in the dataset.
    """
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    for part in PARTS:
        for record in manifest.subset(getattr(split, part)):
            for key in (("picture", record.name), content(record)):
                other, name = seen.setdefault(key, (part, record.name))
                if other != part:
                    pictures = ", ".join(dict.fromkeys([name, record.name]))
                    raise DataError(
                        f"{manifest.dataset}: {key[0]} {key[1]} is in both {other} and {part} of "
                        f"the {split.kind} split ({pictures}); every content belongs into one part"
                    )


def _official(manifest: Manifest, validation_fraction: float) -> Split:
    """The dataset's own parts, with val drawn from train where there is none."""
    if not has_official(manifest):
        raise DataError(
            f"{manifest.dataset}: no official split (it needs train and test parts); "
            "use a seed: split=0"
        )
    parts: dict[str | None, list[Record]] = defaultdict(list)
    for record in manifest:
        parts[record.part].append(record)
    if parts["val"]:
        train, val = _names(parts["train"]), _names(parts["val"])
    else:
        shares = (1 - validation_fraction, validation_fraction)
        train, val = _deal(parts["train"], shares, seed=0)
    made_by = {"split": "official", "validation_fraction": validation_fraction}
    return Split(train, val, _names(parts["test"]), kind="official", made_by=made_by)


def _deal(
    records: Iterable[Record], fractions: Sequence[float], seed: int
) -> list[tuple[str, ...]]:
    """Shuffle the contents and cut the row where the shares are met most nearly.

    Each cut is put between two contents, nearest to its cumulative share of the pictures, with at
    least one content on either side.
    """
    groups = _shuffled(records, seed)
    if len(groups) < len(fractions):
        raise DataError(
            f"{len(groups)} distinct contents cannot make {len(fractions)} disjoint parts; "
            "add pictures or references"
        )
    ends = list(accumulate(len(group) for group in groups))
    cuts = [0]
    for number, share in enumerate(accumulate(fractions[:-1]), start=1):
        places = range(cuts[-1] + 1, len(groups) - len(fractions) + number + 1)
        misses = {abs(ends[place - 1] - share * ends[-1]): place for place in reversed(places)}
        cuts.append(misses[min(misses)])
    cuts.append(len(groups))
    return [
        tuple(sorted(name for group in groups[start:stop] for name in group))
        for start, stop in pairwise(cuts)
    ]


def _shuffled(records: Iterable[Record], seed: int) -> list[Group]:
    """Names grouped by content, in the random order of a seed."""
    groups: dict[tuple[str, str], Group] = defaultdict(list)
    for record in records:
        groups[content(record)].append(record.name)
    # Of Python's generators only random() is promised to stay the same between versions.
    generator = random.Random(seed)
    order = {content: generator.random() for content in sorted(groups)}
    return [groups[content] for content in sorted(groups, key=order.__getitem__)]


def content(record: Record) -> tuple[str, str]:
    """What must not be in two parts: the reference, or else the picture itself."""
    if record.reference is None:
        return ("picture", record.name)
    return ("reference", record.reference)


def _names(records: Iterable[Record]) -> tuple[str, ...]:
    """Sorted names."""
    return tuple(sorted(record.name for record in records))
