"""The 2AFC page: a folder of static files that a browser opens from the disk or from any server.

Pictures are named by their content and sides are drawn by the page, so that nothing on the screen
says whose result is whose. (The page's own data and the picks do, as a static page must know it.)
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from latentiqa.data.distortions import distort
from latentiqa.data.images import MAX_PIXELS, read_image
from latentiqa.enhance.photo import save_png, to_pillow
from latentiqa.errors import ConfigError, DataError, check_integer
from latentiqa.files import write_atomic
from latentiqa.hashing import digest, file_digest

STATIC = ("index.html", "page.css", "trials.js", "picks.js", "zoom.js", "page.js")
"""Files of the package that make the page, with study.js and pictures/."""

NAMED = re.compile(r'^const STUDY = \{\s*"study": "([0-9a-f]+)"', re.MULTILINE)
"""The beginning of study.js."""

SCHEMA = 1

COARSE = 256
"""Pixels a side, see `degraded`."""


@dataclass(frozen=True)
class Options:
    """What a rater is shown.

    Args:
        title: the question, over the pictures.
        trials: pairs a rater, beside repeated and catch trials; None: every pair of models on every
            picture.
        repeats: so many pairs come a second time, sides swapped.
        catch_every: among so many trials there is one of the input against a much worse input; 0:
            none.

    Raises:
        ConfigError: a value is outside its range.
    """

    title: str = "Which picture is better?"
    trials: int | None = None
    repeats: int = 4
    catch_every: int = 10

    def __post_init__(self) -> None:
        if not isinstance(self.title, str) or not self.title.strip():
            raise ConfigError(f"page.title={self.title!r}: expected text.")
        if self.trials is not None:
            check_integer("page.trials", self.trials, 1)
        check_integer("page.repeats", self.repeats, 0)
        check_integer("page.catch_every", self.catch_every, 0)


def write_page(
    folder: Path,
    shown: Mapping[str, tuple[Path, Mapping[str, Path]]],
    options: Options,
    max_pixels: int = MAX_PIXELS,
) -> str:
    """Write the page, in place of one that was there.

    Args:
        folder: of the page.
        shown: name of each input -> its file, and the result's file of each model; of the same
            two or more models everywhere.
        options: see there.
        max_pixels: larger pictures are refused.

    Returns:
        The study's name, which goes with every pick: the hash of all that is shown.

    Raises:
        DataError: there is no picture, a picture cannot be read, or models differ.
    """
    models = [sorted(results) for _, results in shown.values()]
    if not models or len(models[0]) < 2 or any(names != models[0] for names in models):
        raise DataError("page: expected results of the same two or more models for each input.")
    pictures = [
        {
            "name": name,
            "input": _put(folder, image := read_image(path, max_pixels)),
            "degraded": _put(folder, degraded(image)),
            "results": {
                model: _put(folder, read_image(result, max_pixels))
                for model, result in sorted(results.items())
            },
        }
        for name, (path, results) in shown.items()
    ]
    study = {
        "schema": SCHEMA,
        "title": options.title,
        "trials": options.trials,
        "repeats": options.repeats,
        "catch_every": options.catch_every,
        "models": models[0],
        "pictures": pictures,
    }
    name = digest(study)
    own = resources.files("latentiqa.comparison") / "page"
    for file in STATIC:
        write_atomic(folder / file, (own / file).read_bytes())
    write_atomic(folder / "study.js", _script({"study": name, **study}))
    used = {Path(file).name for picture in pictures for file in _files(picture)}
    for path in (folder / "pictures").glob("*.png"):
        if re.fullmatch(r"[0-9a-f]{16}\.png", path.name) and path.name not in used:
            path.unlink()  # of the page that was there
    return name


def study_of(folder: Path) -> str:
    """The study's name of a page.

    Args:
        folder: of the page.

    Raises:
        ConfigError: there is no page.
    """
    script = folder / "study.js"
    found = script.is_file() and NAMED.search(script.read_text(encoding="utf-8"))
    if not found or not (folder / "index.html").is_file():
        raise ConfigError(f"{folder}: no 2AFC page there; make one with latentiqa compare first.")
    return found[1]


def degraded(image: Tensor) -> Tensor:
    """What no one can take for the better one: strong JPEG of a strongly blurred picture.

    It is made of a copy of at most `COARSE` pixels a side, so that it shows in large pictures,
    too, before anyone zooms.

    Args:
        image: ``(3, H, W)`` in [0, 1], of 16 pixels a side and more.

    Example:
        >>> degraded(torch.rand(3, 300, 48)).shape
        torch.Size([3, 300, 48])
    """
    size = image.shape[-2:]
    share = min(1.0, COARSE / max(size))
    small = F.interpolate(
        image[None],
        [max(16, round(side * share)) for side in size],
        mode="bilinear",
        antialias=True,
    )[0]
    picture = np.ascontiguousarray(small.permute(1, 2, 0).numpy())
    for kind in ("gaussian_blur", "jpeg"):
        picture = distort(picture, kind, 5, seed=0)
    worse = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)
    return F.interpolate(worse[None], size, mode="bilinear")[0].clamp(0, 1)


def _put(folder: Path, image: Tensor) -> str:
    """Write a picture named by its content; its path within the page."""
    temporary = folder / "pictures" / "new.png"
    save_png(temporary, to_pillow(image))
    path = temporary.with_name(f"{file_digest(temporary)}.png")
    temporary.replace(path)
    return f"pictures/{path.name}"


def _files(picture: Mapping[str, Any]) -> Sequence[str]:
    return [picture["input"], picture["degraded"], *picture["results"].values()]


def _script(study: Mapping[str, Any]) -> str:
    """A script that a page opened from the disk can load, unlike JSON."""
    # ASCII alone, and no "<": whatever names hold, they stay text.
    text = json.dumps(study, indent=1, ensure_ascii=True).replace("<", "\\u003c")
    return f'"use strict";\nconst STUDY = {text};\n'
