"""Do degraded copies score below their originals?

python experiments/tiny_backbone/degraded.py FOLDER lgdm|student

Copies every picture of FOLDER three times: blurred (Gaussian, standard deviation 1.6 pixels), with
white Gaussian noise (standard deviation .08 of the range) and as a JPEG of quality 10; scores all
with that scorer inside the package; writes results/degraded_NAME/scores.csv and, with the share of
copies below their originals and its 95 % interval (Wilson), results/degraded_NAME/results.json.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

import latentiqa
from latentiqa.data.distortions import DISTORTIONS, SEVERITIES
from latentiqa.data.folders import find_pictures
from latentiqa.data.images import read_image
from latentiqa.runs import environment, write_csv, write_json

RESULTS = Path(__file__).parent / "results"
COPIES = {
    "gaussian_blur": SEVERITIES["gaussian_blur"][2],
    "gaussian_noise": SEVERITIES["gaussian_noise"][2],
    "jpeg": 10,
}
"""Kind -> strength."""


def main(folder: str, name: str) -> None:
    """Score originals and copies, and count."""
    paths = find_pictures([folder])
    pictures = []
    for path in paths:
        original = read_image(path).permute(1, 2, 0).numpy()
        pictures.append(original)
        for kind, strength in COPIES.items():
            pictures.append(DISTORTIONS[kind](original, strength, np.random.default_rng(0)))
    scores = iter(latentiqa.score(pictures, run=name))
    columns = ["original", *COPIES]
    rows = [{"name": path.name, **{kind: next(scores) for kind in columns}} for path in paths]
    made = RESULTS / f"degraded_{name}"
    write_csv(made / "scores.csv", rows, ["name", *columns])
    below = {}
    for kind, strength in COPIES.items():
        count = sum(row[kind] < row["original"] for row in rows)
        interval = binomtest(count, len(rows)).proportion_ci(0.95, "wilson")
        share = {"share": count / len(rows), "low": interval.low, "high": interval.high}
        below[kind] = {"strength": strength, "n": len(rows), **share}
        print(f"{kind}: {count} of {len(rows)} below [{interval.low:.2f}, {interval.high:.2f}]")
    write_json(made / "results.json", {"kind": "degraded", "below": below, **environment()})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
