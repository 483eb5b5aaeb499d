"""Whether recipes differ from pmg_none by more than pictures and noise: means over noise seeds.

python experiments/pmg_ablation/differences.py

Of each recipe with the seeds of `SEEDS`, from results/biq2021: the difference of its mean test SRCC
from that of pmg_none, its percentile bootstrap interval over pictures (drawn with replacement, each
with its scores by all seeds of both), and the difference seed by seed. Intervals are conditional on
these draws of the noise. Writes differences.md.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from latentiqa.files import write_atomic

STUDY = Path(__file__).parent
RESULTS = STUDY / "results" / "biq2021"
BASE = "pmg_none"
SEEDS = (0, 1, 2)
RESAMPLES = 2_000


def main() -> None:
    """Compare, write and print."""
    complete = sorted(
        folder.name[:-2]
        for folder in RESULTS.glob("*_0")
        if all((RESULTS / f"{folder.name[:-2]}_{seed}").is_dir() for seed in SEEDS)
    )
    lines = [
        f"| against `{BASE}`, means of {len(SEEDS)} seeds | difference of SRCC | seed by seed |",
        "| --- | --- | --- |",
    ]
    for recipe in complete:
        if recipe == BASE:
            continue
        own, (low, high) = difference(recipe)
        told = ", ".join(f"{value:+.3f}" for value in own)
        lines.append(f"| `{recipe}` | {np.mean(own):+.3f} [{low:+.3f}, {high:+.3f}] | {told} |")
    table = "\n".join(lines) + "\n"
    write_atomic(STUDY / "differences.md", table)
    print(table)


def difference(recipe: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Differences of SRCC by seed, and the 95 % interval of their mean."""
    target, scores = scores_of(recipe)
    same, base = scores_of(BASE)
    assert np.array_equal(target, same)
    found = srcc_of(target, scores) - srcc_of(target, base)
    generator = np.random.default_rng(0)
    drawn = generator.integers(len(target), size=(RESAMPLES, len(target)))
    means = [
        (srcc_of(target[i], scores[:, i]) - srcc_of(target[i], base[:, i])).mean() for i in drawn
    ]
    return found, np.quantile(means, [0.025, 0.975])


def scores_of(recipe: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Targets (N,) of the test pictures and their scores (S, N) by each seed."""
    by_seed = []
    for seed in SEEDS:
        path = RESULTS / f"{recipe}_{seed}" / "predictions.csv"
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["part"] == "test"]
        by_seed.append({row["name"]: (float(row["target"]), float(row["pred"])) for row in rows})
    names = sorted(by_seed[0])
    values = np.array([[found[name] for name in names] for found in by_seed])
    return values[0, :, 0], values[:, :, 1]


def srcc_of(target: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """SRCC (S,) of scores (S, N)."""
    ranks = stats.rankdata(np.vstack([target, scores]), axis=1)
    return np.corrcoef(ranks)[0, 1:]


if __name__ == "__main__":
    main()
