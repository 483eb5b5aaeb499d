"""Datasets made from any folder of pristine pictures, distorted as KADID-10k's are.

Nobody has rated these pictures. Their score is the *level of the distortion* or, by choice, a
*pseudo-label*: what a full-reference metric says of a picture and its original. They are there
for pretraining, for ablations and to see that scores follow damage; numbers on them are no
results on human scores.
"""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch.nn.functional as F
from PIL import Image

from latentiqa.data.distortions import Picture, to_bytes
from latentiqa.data.folders import find_pictures
from latentiqa.data.images import MAX_PIXELS, inspect_images, read_image
from latentiqa.data.kadid import KINDS, NAMES, UNORDERED, check_kinds, check_levels, distort
from latentiqa.data.manifest import UNRATED, Manifest, Record
from latentiqa.data.pseudo_labels import METRICS, check_metric
from latentiqa.data.tables import read_rows
from latentiqa.errors import ConfigError, DataError, check_integer
from latentiqa.files import remove_leftovers, write_atomic
from latentiqa.hashing import digest, file_digest
from latentiqa.paths import cache_dir

log = logging.getLogger(__name__)

BEST = 5
SMALLEST = 16
"""Least side of an original in pixels, see `latentiqa.data.kadid`."""

TABLE = "levels.csv"
COLUMNS = ("dist_img", "ref_img", "distortion", "level", "original", "bytes")


def read_synthetic(
    root: str | Path,
    types: Sequence[int | str] | None = None,
    levels: Sequence[int] | None = None,
    size: int | None = None,
    label: str = "level",
    seed: int = 0,
    output: str | Path | None = None,
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Manifest:
    """Read a dataset of synthetic distortions, making first what is not there yet.

    The pictures are in a folder named by its recipe, in KADID-10k's layout: ``images/I01.png``
    (an original), ``images/I01_07_03.png`` (its distortion 7 at level 3), and a table, written
    last, of what they are. A killed process leaves a folder without the table, and the next goes
    on where it was; pictures that were lost or cut short are made again.

    Args:
        root: folder of the originals, searched through.
        types: which of `latentiqa.data.kadid.KINDS`, by numbers or names; default: all 25.
        levels: which of 1 to 5; default: all.
        size: the shorter side to which larger originals are scaled down first; default: they
            stay as they are. KADID-10k's own originals are 512 x 384.
        label: what the scores are: ``level``, or a pseudo-label by one of
            `latentiqa.data.pseudo_labels.METRICS`, which is kept in a table of its own.
        seed: of noise, places and colours.
        output: parent of the folder; default: `latentiqa.paths.cache_dir`.
        workers: threads; default: one a core, at most 8. Each holds one original and its copy.
        max_pixels: larger originals are refused, see `latentiqa.data.images.read_image`.

    Returns:
        The originals and the distorted pictures. ``mos`` is 5 - level, 5 for originals, or the
        pseudo-label; ``reference`` is the same for all pictures of an original, so that splits
        are disjoint in content; ``attributes`` hold ``distortion``, ``level`` and ``original``.

    Raises:
        ConfigError: an argument is wrong.
        DataError: there are no pictures, or broken, too small or equal ones.
        LatentiqaError: something that a kind or a label needs is not installed.
    """
    if label != "level":
        check_metric(label)
    if workers is not None:
        check_integer("workers", workers, 1)
    recipe = _recipe(root, types, levels, size, seed, output)
    if not recipe.is_complete():
        _make(recipe, workers or min(8, os.cpu_count() or 1), max_pixels)
    if label == "level":
        scores = {picture.name: float(BEST - picture.level) for picture in recipe.pictures}
        mos_range, higher_is_better = (0.0, float(BEST)), True
        note = "synthetic: the target is the distortion level, not human scores"
        if unordered := [name for name in UNORDERED if name in map(NAMES.get, recipe.kinds)]:
            note += f"; the levels of {' and '.join(unordered)} are no order of damage"
    else:
        scores = _pseudo_labels(recipe, label, max_pixels)
        mos_range, higher_is_better = METRICS[label].range_of(scores.values())
        note = f"synthetic: the target is a pseudo-label ({label}), not human scores"
    records = [_record(recipe, picture, scores[picture.name]) for picture in recipe.pictures]
    return Manifest("synthetic", tuple(records), mos_range, higher_is_better, note)


class SyntheticPicture(NamedTuple):
    """One picture of the dataset; level 0 is an original."""

    name: str
    original: int
    kind: int
    level: int


@dataclass(frozen=True)
class Recipe:
    """All that determines the pictures.

    Attributes:
        root: folder of the originals.
        originals: path below it -> hash of the file.
        kinds: numbers of the distortions.
        levels: their levels.
        size: the shorter side of the pictures at most, or none.
        seed: of what is drawn.
        output: parent of the folder of pictures.
    """

    root: Path
    originals: Mapping[str, str]
    kinds: tuple[int, ...]
    levels: tuple[int, ...]
    size: int | None
    seed: int
    output: Path

    @cached_property
    def folder(self) -> Path:
        """The folder of pictures, named by the hash of everything but its place."""
        kinds = {NAMES[kind]: KINDS[kind].strengths for kind in self.kinds}
        recipe = {"version": 1, "originals": dict(self.originals), "kinds": kinds}
        recipe |= {"levels": self.levels, "size": self.size, "seed": self.seed}
        return self.output / f"synthetic-{digest(recipe)}"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The originals' paths below their folder, in the order of their numbers."""
        return tuple(self.originals)

    @cached_property
    def pictures(self) -> tuple[SyntheticPicture, ...]:
        """All pictures, original by original."""
        return tuple(
            picture for index in range(len(self.originals)) for picture in self.pictures_of(index)
        )

    def pictures_of(self, index: int) -> Iterator[SyntheticPicture]:
        """The original at this place, and what is made of it."""
        photo = self.photo(index)
        yield SyntheticPicture(f"{photo}.png", index, 0, 0)
        for kind in self.kinds:
            for level in self.levels:
                yield SyntheticPicture(f"{photo}_{kind:02d}_{level:02d}.png", index, kind, level)

    def photo(self, index: int) -> str:
        """KADID-10k's name of an original, for example ``I01``."""
        return f"I{index + 1:0{max(2, len(str(len(self.originals))))}d}"

    def path(self, name: str) -> Path:
        """Where a picture is."""
        return self.folder / "images" / name

    def recorded_sizes(self) -> dict[str, int]:
        """Bytes of each picture by the table; none where it is missing or broken."""
        try:
            rows = read_rows(self.folder / TABLE, COLUMNS)
            return {row.text("dist_img"): int(row.number("bytes")) for row in rows}
        except DataError:
            return {}

    def is_complete(self) -> bool:
        """Whether table and pictures are there, and none is cut short."""
        sizes = self.recorded_sizes()
        return all(_is_there(self.path(p.name), sizes.get(p.name, -1)) for p in self.pictures)


def _recipe(
    root: str | Path,
    types: Sequence[int | str] | None,
    levels: Sequence[int] | None,
    size: int | None,
    seed: int,
    output: str | Path | None,
) -> Recipe:
    """Check the arguments and hash the originals."""
    kinds, chosen_levels = check_kinds(types), check_levels(levels)
    if size is not None:
        check_integer("size", size, SMALLEST)
    check_integer("seed", seed, 0)
    root = Path(root).expanduser()
    if not root.is_dir():
        raise DataError(f"synthetic: {root} is no folder; expected one of pristine pictures")
    output = cache_dir() if output is None else Path(output).expanduser()
    if root.resolve() in (output.resolve(), *output.resolve().parents):
        raise ConfigError(
            f"output={output}: is inside root={root}, where its pictures would be taken for "
            "originals; expected a folder elsewhere"
        )
    originals: dict[str, str] = {}
    names: dict[str, str] = {}
    for path in find_pictures([root]):
        name = path.relative_to(root).as_posix()
        originals[name] = file_digest(path)
        if (same := names.setdefault(originals[name], name)) != name:
            raise DataError(
                f"{root}: {same} and {name} are the same picture, which a split could part; "
                "remove one of them"
            )
    return Recipe(root, originals, kinds, chosen_levels, size, seed, output)


def _make(recipe: Recipe, workers: int, max_pixels: int) -> None:
    """Make the pictures that are not there and, last, the table."""
    _check_originals(recipe, workers, max_pixels)
    recipe.path("").mkdir(parents=True, exist_ok=True)
    remove_leftovers(recipe.path(""))
    sizes, number = recipe.recorded_sizes(), len(recipe.originals)
    log.info(
        "%s: making %d pictures of %d originals, once",
        recipe.folder,
        len(recipe.pictures) - number,
        number,
    )
    with ThreadPoolExecutor(workers) as pool:
        try:
            list(pool.map(lambda index: _make_of(recipe, index, sizes, max_pixels), range(number)))
        except BaseException:
            # Otherwise an interrupted process would finish all that it has begun.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    rows = [(*_row(recipe, p), recipe.path(p.name).stat().st_size) for p in recipe.pictures]
    _write_table(recipe.folder / TABLE, COLUMNS, rows)


def _check_originals(recipe: Recipe, workers: int, max_pixels: int) -> None:
    """Find all broken originals before the first picture is made."""
    records = [Record(name, recipe.root / name, UNRATED) for name in recipe.originals]
    _, bad = inspect_images(records, workers, max_pixels=max_pixels)
    if bad:
        listing = "; ".join(f"{image.path}: {image.reason}" for image in bad[:5])
        raise DataError(
            f"{recipe.root}: {len(bad)} of {len(records)} pictures cannot be read: {listing}; "
            "mend them or take them out of the folder"
        )


def _make_of(recipe: Recipe, index: int, sizes: Mapping[str, int], max_pixels: int) -> None:
    """Make what is missing of one original."""
    missing = [
        picture
        for picture in recipe.pictures_of(index)
        if not _is_there(recipe.path(picture.name), sizes.get(picture.name))
    ]
    if not missing:
        return
    name = recipe.names[index]
    pristine = _pristine(recipe.root / name, recipe.size, max_pixels)
    for picture in missing:
        image = pristine
        if picture.level > 0:
            # A picture does not depend on which others are made, nor on its original's number.
            seed = int(digest([recipe.seed, name, NAMES[picture.kind], picture.level]), 16)
            image = distort(pristine, picture.kind, picture.level, seed)
        buffer = io.BytesIO()
        # Compression level 1: a third of the time for a tenth more bytes.
        Image.fromarray(to_bytes(image)).save(buffer, format="PNG", compress_level=1)
        write_atomic(recipe.path(picture.name), buffer.getvalue())


def _pristine(path: Path, size: int | None, max_pixels: int) -> Picture:
    """An original in 8 bits, scaled down if it is larger; (H, W, 3) in [0, 1]."""
    image = read_image(path, max_pixels)
    height, width = image.shape[-2:]
    shorter = min(height, width)
    if shorter < SMALLEST:
        raise DataError(
            f"{path}: {width} x {height} pixels; expected {SMALLEST} a side and more, take it out "
            "of the folder"
        )
    if size is not None and size < shorter:
        shape = round(height * size / shorter), round(width * size / shorter)
        image = F.interpolate(image[None], size=shape, mode="bicubic", antialias=True)[0]
    pixels = to_bytes(image.permute(1, 2, 0).numpy())
    return pixels.astype(np.float32) / np.float32(255)


def _is_there(path: Path, size: int | None) -> bool:
    """Whether a file is there and of this size, if one is known."""
    return path.is_file() and (size is None or path.stat().st_size == size)


def _row(recipe: Recipe, picture: SyntheticPicture) -> tuple[str, str, str, int, str]:
    """A picture's cells of the table, up to ``original``."""
    kind, index = NAMES.get(picture.kind, "none"), picture.original
    return picture.name, f"{recipe.photo(index)}.png", kind, picture.level, recipe.names[index]


def _record(recipe: Recipe, picture: SyntheticPicture, mos: float) -> Record:
    """A picture with its score."""
    name, reference, kind, level, original = _row(recipe, picture)
    return Record(
        name=name,
        path=recipe.path(name),
        mos=mos,
        # With the recipe: names alone would make all sets of so many originals one dataset.
        reference=f"{recipe.folder.name}/{reference}",
        attributes={"distortion": kind, "level": str(level), "original": original},
    )


def _pseudo_labels(recipe: Recipe, label: str, max_pixels: int) -> dict[str, float]:
    """What the metric says of every picture, from its table or computed."""
    table, column = recipe.folder / f"pseudo_{label}.csv", f"pseudo_{label}"
    names = [picture.name for picture in recipe.pictures]
    try:
        rows = read_rows(table, ("dist_img", column))
        scores = {row.text("dist_img"): row.number(column) for row in rows}
    except DataError:
        scores = {}
    if list(scores) == names:
        return scores
    log.info("%s: computing %d pseudo-labels (%s), once", recipe.folder, len(names), label)
    scores = {}
    for index in range(len(recipe.originals)):
        [first, *others] = recipe.pictures_of(index)
        original = read_image(recipe.path(first.name), max_pixels)
        against = METRICS[label].against(original)
        for picture in (first, *others):
            # As it will be read again, so that both ways give the same.
            image = read_image(recipe.path(picture.name), max_pixels)
            scores[picture.name] = round(against(image), 6)
    _write_table(table, ("dist_img", column), list(scores.items()))
    return scores


def _write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a CSV atomically."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    write_atomic(path, text.getvalue())
