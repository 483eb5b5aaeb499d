"""Whether recipes differ from pmg_none by more than pictures and noise: means over noise seeds.

python experiments/pmg_ablation/differences.py

Of each recipe with the seeds of `SEEDS`, from results/biq2021: the difference of its mean test SRCC
from that of pmg_none, its percentile bootstrap interval over pictures (drawn with replacement, each
with its scores by all seeds of both), and the difference seed by seed. Intervals are conditional on
these draws of the noise. Writes differences.md.
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from latentiqa.files import write_atomic
from latentiqa.metrics import srcc
from latentiqa.metrics.comparison import Interval, bootstrap_difference
from latentiqa.report.finished import Predictions, read_predictions

STUDY = Path(__file__).parent
RESULTS = STUDY / "results" / "biq2021"
BASE = "pmg_none"
SEEDS = (0, 1, 2)


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
        lines.append(f"| `{recipe}` | {mean(own):+.3f} [{low:+.3f}, {high:+.3f}] | {told} |")
    table = "\n".join(lines) + "\n"
    write_atomic(STUDY / "differences.md", table)
    print(table)


def difference(recipe: str) -> tuple[list[float], Interval]:
    """Differences of SRCC by seed, and the interval of their mean."""
    own, base = ([_predictions(name, seed) for seed in SEEDS] for name in (recipe, BASE))
    assert all(found.names == base[0].names for found in [*own, *base])
    target = base[0].target
    by_seed = [srcc(a.pred, target) - srcc(b.pred, target) for a, b in zip(own, base, strict=True)]
    first, second = ([found.pred for found in seeds] for seeds in (own, base))
    return by_seed, bootstrap_difference(target, first, second)


def _predictions(recipe: str, seed: int) -> Predictions:
    return read_predictions(RESULTS / f"{recipe}_{seed}" / "predictions.csv")


if __name__ == "__main__":
    main()
