"""The demo dataset: real photos from the scikit-image wheel, distorted in known degrees.

Its target is the *level of the distortion*, not a human judgement. It is there to run the whole
way in minutes on any machine and to see that features follow quality, nothing else.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from latentiqa.data.csv_manifest import read_csv
from latentiqa.data.distortions import SEVERITIES, Picture, distort, to_bytes
from latentiqa.data.manifest import Manifest
from latentiqa.errors import ConfigError, DataError
from latentiqa.files import build_folder
from latentiqa.hashing import digest
from latentiqa.paths import cache_dir as default_cache_dir

PHOTOS = {
    "astronaut": "astronaut.png",
    "brick": "brick.png",
    "camera": "camera.png",
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "coins": "coins.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "hubble": "hubble_deep_field.jpg",
    "ihc": "ihc.png",
    "moon": "moon.png",
    "motorcycle": "motorcycle_left.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
}
"""Every real, sharp photograph inside the wheel; nothing is downloaded."""

SIZE = 256
KINDS = ("gaussian_blur", "gaussian_noise", "jpeg", "low_light")
LEVELS = range(1, 6)
BEST = 5
NOTE = "demo: the target is the distortion level, not human scores"
COLUMNS = ("path", "mos", "ref", "distortion", "level")


def read_demo(
    cache_dir: str | Path | None = None, photos: Sequence[str] = tuple(PHOTOS)
) -> Manifest:
    """Read the demo dataset, building it first where it is not in the cache.

    Args:
        cache_dir: where it is kept; default: `latentiqa.paths.cache_dir`.
        photos: which of `PHOTOS`.

    Returns:
        For each photo the pristine picture and 4 distortions x 5 levels. ``mos`` is 5 - level
        (0 to 5, higher is better), ``reference`` the photo's name, ``attributes`` hold
        ``distortion`` and ``level``.

    Raises:
        ConfigError: an unknown photo.
        DataError: a photo is not in the installed scikit-image.
    """
    folder = build_demo(default_cache_dir() if cache_dir is None else cache_dir, photos)
    manifest = read_csv(folder / "manifest.csv", mos_range=(0, BEST), name="demo")
    return replace(manifest, note=NOTE)


def build_demo(cache_dir: str | Path, photos: Sequence[str] = tuple(PHOTOS)) -> Path:
    """Build the demo dataset, unless it is there already.

    The folder is named by its recipe and appears in one step, when it is complete: a killed
    process leaves nothing that could be taken for the dataset, and of two processes at once the
    first to finish wins.

    Args:
        cache_dir: parent of the folder.
        photos: which of `PHOTOS`.

    Returns:
        The folder: ``manifest.csv`` and PNG files of 256 x 256.

    Raises:
        ConfigError: an unknown photo.
        DataError: a photo is not in the installed scikit-image.
    """
    photos = tuple(sorted(set(photos)))
    if not photos or not set(photos) <= set(PHOTOS):
        raise ConfigError(f"photos={photos}: expected some of {', '.join(PHOTOS)}")
    severities = {kind: SEVERITIES[kind] for kind in KINDS}
    recipe = {"version": 1, "photos": photos, "size": SIZE, "severities": severities}
    folder = Path(cache_dir).expanduser() / f"demo-{digest(recipe)}"
    return build_folder(
        folder, lambda aside: _write(aside, photos), lambda there: _is_complete(there, photos)
    )


def _write(folder: Path, photos: tuple[str, ...]) -> None:
    """Write all pictures and, last, the table."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        groups = pool.map(_write_photo, [folder] * len(photos), photos)
        rows = [row for group in groups for row in group]
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([COLUMNS, *rows])


def _write_photo(folder: Path, photo: str) -> list[tuple[str, int, str, str, int]]:
    """Write the pictures of one photo; returns their rows, in the order of `COLUMNS`."""
    pristine = _pristine(photo)
    rows = []
    for kind, level in _variants():
        name = _file_name(photo, kind, level)
        image = pristine
        if level > 0:
            # The name seeds the noise: a picture does not depend on which others are built.
            image = distort(pristine, kind, level, seed=int(digest(name), 16))
        # Compression level 1: a third of the time for a tenth more bytes.
        Image.fromarray(to_bytes(image)).save(folder / name, compress_level=1)
        rows.append((name, BEST - level, photo, kind, level))
    return rows


def _pristine(photo: str) -> Picture:
    """The centre square of a photo, scaled to 256 x 256; (256, 256, 3) in [0, 1]."""
    spec = find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("demo: scikit-image is not installed; its wheel holds the photos")
    path = Path(spec.submodule_search_locations[0], "data", PHOTOS[photo])
    if not path.is_file():
        raise DataError(
            f"demo: {path} is missing; reinstall scikit-image>=0.24 or leave {photo} out of photos"
        )
    with Image.open(path) as image:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.convert("RGB").resize(
            (SIZE, SIZE), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side)
        )
    return np.asarray(square, dtype=np.float32) / np.float32(255)


def _variants() -> Iterator[tuple[str, int]]:
    """Distortion and level of each picture made from one photo."""
    yield "none", 0
    for kind in KINDS:
        for level in LEVELS:
            yield kind, level


def _file_name(photo: str, kind: str, level: int) -> str:
    """For example ``coffee_jpeg_3.png``."""
    return f"{photo}_{kind}_{level}.png"


def _is_complete(folder: Path, photos: tuple[str, ...]) -> bool:
    """Whether every picture and the table are there."""
    names = [_file_name(photo, *variant) for photo in photos for variant in _variants()]
    return all((folder / name).is_file() for name in [*names, "manifest.csv"])
