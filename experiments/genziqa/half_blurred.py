"""Does attention say where a picture is bad? Photos of which one half is blurred.

python experiments/genziqa/half_blurred.py kodak/ [--run runs/genziqa_trained-...]

Of each photo the left half is blurred, then the right one. A prompt's heat map is compared with
its map of the untouched photo, so that what the photo shows on either side cancels out: by how much
did the map rise on the blurred half, beyond what it rose on the other? Writes results.json and
half_blurred.png, of the photo with the median rise, beside this script or into --output. Without
--run nothing is trained: fixed prompts on the embedded model.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor

from latentiqa.commands.explain import rater_of
from latentiqa.data.distortions import distort
from latentiqa.data.folders import find_pictures
from latentiqa.data.images import read_image
from latentiqa.data.views import Square
from latentiqa.errors import LatentiqaError
from latentiqa.genziqa.explain import heat_maps, mean_map
from latentiqa.genziqa.rater import Design, PromptRater
from latentiqa.metric import load_metric
from latentiqa.report.figures import save_overlays
from latentiqa.runs import environment, write_json

HERE = Path(__file__).parent
PROMPTS = ("good", "bad", "bad - good")
SIDES = ("left", "right")


def half_blurred(image: Tensor, side: str, level: int) -> Tensor:
    """A picture ``(3, H, W)`` in [0, 1] whose half on one side is blurred."""
    pixels = image.permute(1, 2, 0).numpy().astype(np.float32)
    blurred = torch.from_numpy(distort(pixels, "gaussian_blur", level, seed=0))
    out, middle = image.clone(), image.shape[2] // 2
    half = slice(None, middle) if side == "left" else slice(middle, None)
    out[:, :, half] = blurred.permute(2, 0, 1)[:, :, half]
    return out


def maps_of(rater: PromptRater, image: Tensor, name: str) -> dict[str, Tensor]:
    """Mean heat maps of a picture ``(3, H, W)`` by prompt, and their difference."""
    good, bad = (mean_map(maps) for maps in heat_maps(rater, image[None], name))
    return {"good": good, "bad": bad, "bad - good": bad - good}


def rise(before: Tensor, after: Tensor, side: str) -> float:
    """By how much a map ``(h, w)`` rose on one half, beyond its rise on the other."""
    left, right = (after - before).tensor_split(2, dim=1)
    sign = 1 if side == "left" else -1
    return sign * (left.mean() - right.mean()).item()


def measure(
    rater: PromptRater, photos: Sequence[tuple[str, Tensor]], level: int
) -> list[dict[str, Any]]:
    """A row a photo: its name and, by prompt, the rise, a mean over both sides."""
    rows = []
    for name, image in photos:
        before = maps_of(rater, image, name)
        after = {s: maps_of(rater, half_blurred(image, s, level), name) for s in SIDES}
        rises = {
            p: statistics.mean(rise(before[p], after[side][p], side) for side in SIDES)
            for p in PROMPTS
        }
        rows.append({"name": name, "rise": rises})
    return rows


def summary(rows: Sequence[dict[str, Any]], prompt: str) -> dict[str, float]:
    """How often a prompt's map is higher on the blurred half, with a 95 % interval, and how far."""
    rises = [row["rise"][prompt] for row in rows]
    higher = sum(value > 0 for value in rises)
    interval = binomtest(higher, len(rises)).proportion_ci(0.95, method="wilson")
    return {
        "higher": higher,
        "photos": len(rises),
        "low": float(interval.low),
        "high": float(interval.high),
        "mean_rise": statistics.mean(rises),
        "std_of_rise": statistics.pstdev(rises),
    }


def main(arguments: Sequence[str]) -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="+")
    parser.add_argument("--run", help="a finished run of method=genziqa; default: zero-shot")
    parser.add_argument("--size", type=int, default=256, help="pixels of a side")
    parser.add_argument("--level", type=int, default=4, help="of the blur, 1 to 5")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    rater = rater_of(load_metric(options.run)) if options.run else zero_shot(options.size)
    view = Square(options.size)
    photos = [
        (path.name, view(read_image(path), path.name)[0].clamp(0, 1))
        for path in find_pictures(options.photos)
    ]
    rows = measure(rater, photos, options.level)
    results = {
        "run": Path(options.run).name if options.run else "zero-shot",
        "size": options.size,
        "level": options.level,
        "prompts": {prompt: summary(rows, prompt) for prompt in PROMPTS},
        "photos": rows,
        **environment(),
    }
    write_json(options.output / "results.json", results)
    middle = sorted(rows, key=lambda row: row["rise"]["bad - good"])[len(rows) // 2]["name"]
    image = half_blurred(dict(photos)[middle], "right", options.level)
    maps = maps_of(rater, image, middle)
    shown = {prompt: maps[prompt] for prompt in ("good", "bad")}
    save_overlays(options.output / "half_blurred.png", image.permute(1, 2, 0), shown, {})
    for prompt, found in results["prompts"].items():
        print(f"{prompt}: higher on the blurred half of {found['higher']} of {found['photos']}")


def zero_shot(size: int) -> PromptRater:
    """Fixed prompts on the embedded model."""
    from latentiqa.backbones.source import BackboneSource

    design = Design(context=0, tuning="none", score="contrast", tokens="text")
    return PromptRater(BackboneSource("tiny", "tiny", resolution=size).load(), design)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except LatentiqaError as error:
        sys.exit(f"error: {error}")
