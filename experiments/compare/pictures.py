"""Degraded photos with their pristine ones, and photos that models are fitted on.

python experiments/compare/pictures.py OUTPUT --pictures FOLDER [--count 3] [--size 256]

Squares of the first photos, degraded by blur, noise, JPEG and low light, become OUTPUT/inputs/,
the same without OUTPUT/pristine/ under the same names. All others are for the models: as they are
in OUTPUT/good/, and degraded by any kind and level in OUTPUT/reference/.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latentiqa.data.distortions import DISTORTIONS, distort
from latentiqa.data.folders import find_pictures
from latentiqa.data.images import read_image
from latentiqa.data.views import Centre
from latentiqa.enhance.photo import save_png, to_pillow

KINDS = ("gaussian_blur", "gaussian_noise", "jpeg", "low_light")
LEVEL = 3


def degraded(image: Tensor, kind: str, level: int, seed: int) -> Tensor:
    """A picture ``(3, H, W)`` in [0, 1] after one distortion."""
    picture = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    return torch.from_numpy(distort(picture, kind, level, seed)).permute(2, 0, 1)


def main(arguments: list[str] | None = None) -> None:
    """Write the four folders."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--pictures", type=Path, required=True, help="folder of good photos")
    parser.add_argument("--count", type=int, default=3, help="photos that become inputs")
    parser.add_argument("--size", type=int, default=256, help="pixels")
    given = parser.parse_args(arguments)
    view = Centre(given.size)
    paths = find_pictures([given.pictures])
    written: set[Path] = set()

    def save(place: str, name: str, image: Tensor) -> None:
        written.add(path := given.output / place / f"{name}.png")
        save_png(path, to_pillow(image))

    for path, kind in product(paths[: given.count], KINDS):
        image = view(read_image(path))[0]
        save("inputs", f"{path.stem}_{kind}", degraded(image, kind, LEVEL, seed=0))
        save("pristine", f"{path.stem}_{kind}", image)
    kinds = sorted(DISTORTIONS)
    for i, path in enumerate(paths[given.count :]):
        image = view(read_image(path))[0]
        save("good", path.stem, image)
        for j in range(2):  # kinds and levels in turn, each photo with two of them
            kind, level = kinds[(2 * i + j) % len(kinds)], 1 + (i + 2 * j) % 5
            save("reference", f"{path.stem}_{kind}_{level}", degraded(image, kind, level, seed=i))
    places = {path.parent for path in written}
    if older := sorted({path for place in places for path in place.iterdir()} - written):
        raise SystemExit(f"{older[0]}: of another call; remove it, or give another OUTPUT")


if __name__ == "__main__":
    main()
