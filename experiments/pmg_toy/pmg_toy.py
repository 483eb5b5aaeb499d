"""Guidance where the truth is known: how near does it come to the posterior mean?

python experiments/pmg_toy/pmg_toy.py

Runs from a checkout: the model is the one that the tests use (tests/linear_gaussian.py). Writes
results.json, sweep.csv and pmg_toy.png beside this script.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from latentiqa.guidance import DPS, MPGD, PMG, PSLD, FreeDoM, Guidance, NoGuidance, StepSize
from latentiqa.trajectory import Timesteps

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))

from linear_gaussian import LinearGaussian, estimates  # noqa: E402

TIMESTEPS = Timesteps(list(range(980, -1, -20)))
SIZES = [0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4]
SIZES += [0.5, 0.7, 1.0]


def raw(**options: Any) -> Callable[[float], Guidance]:
    """PMG's measurement term with raw steps."""
    return lambda size: PMG(measurement=StepSize(size, "raw", **options))


METHODS: dict[str, Callable[[float], Guidance]] = {
    "PMG": raw(),
    "PMG, schedule noise": raw(schedule="noise"),
    "PMG, schedule linear": raw(schedule="linear"),
    "PMG, normalised": lambda size: PMG(measurement=StepSize(size)),
    "DPS": DPS,
    "PSLD": lambda size: PSLD(size, 0.1 * size),
    "MPGD": lambda size: MPGD(StepSize(size, "raw")),
    "FreeDoM": lambda size: FreeDoM(step_size=StepSize(size), passes_each=2),
}
COLOURS = dict(
    zip(
        METHODS,
        ["#0b5394", "#3d85c6", "#9fc5e8", "#674ea7", "#cc4125", "#e69138", "#38761d", "#a64d79"],
        strict=True,
    )
)


def main() -> None:
    """Measure, write, draw."""
    began = time.perf_counter()
    model = LinearGaussian()

    def distances(guidance: Guidance) -> dict[int, float]:
        found = estimates(model, guidance, TIMESTEPS)
        return {t: model.distance(z) for t, z in found.items()}

    unguided = distances(NoGuidance())
    lambdas = {size: distances(raw()(size)) for size in (0.01, 0.03, 0.1, 0.3)}
    sweep = {
        name: {size: distances(make(size)) for size in SIZES} for name, make in METHODS.items()
    }
    last = TIMESTEPS.values[-1]
    final = {name: {s: d[last] for s, d in by.items()} for name, by in sweep.items()}
    best = {name: min(by, key=lambda size: by[size]) for name, by in final.items()}
    results = {
        "distance": "of the mean over starts to the posterior mean; 1: the prior's mean",
        "starts": 64,
        "timesteps": list(TIMESTEPS.values),
        "encoded": model.distance(model.encode(model.picture).flatten()),
        "unguided": unguided[last],
        "best": {
            name: {"size": size, "distance": final[name][size]} for name, size in best.items()
        },
        "trajectory": {
            "none": unguided,
            **{f"PMG, zeta={size}": by for size, by in lambdas.items()},
            **{f"{name}, {size}": sweep[name][size] for name, size in best.items()},
        },
        "seconds": round(time.perf_counter() - began, 1),
    }
    (HERE / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    with (HERE / "sweep.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["method", *SIZES])
        for name, by in final.items():
            rows.writerow([name, *(f"{by[size]:.4f}" for size in SIZES)])
    draw(results, unguided, lambdas, sweep, final, best)
    print(f"{HERE / 'pmg_toy.png'}, {results['seconds']} s")


def draw(results: Any, unguided: Any, lambdas: Any, sweep: Any, final: Any, best: Any) -> None:
    """Three panels: PMG over its step size, all at their best, all over their step size."""
    figure = Figure(figsize=(13, 4.4), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    steps, peers, sizes = figure.subplots(1, 3, sharey=True)

    def curve(axes: Any, by: dict[int, float], label: str, **style: Any) -> None:
        axes.plot(list(by), list(by.values()), label=label, **style)

    shades = ["#9fc5e8", "#6fa8dc", "#0b5394", "#20124d"]
    for axes in (steps, peers):
        curve(axes, unguided, "no guidance", color="0.45", linestyle="--", linewidth=1.5)
        axes.set_xlabel("timestep t")
        axes.set_xlim(980, 0)
    for (size, by), colour in zip(lambdas.items(), shades, strict=True):
        curve(steps, by, f"$\\zeta_1$ = {size}", color=colour, linewidth=2)
    steps.set_title("PMG, measurement term", fontsize=11)
    for name, size in best.items():
        curve(peers, sweep[name][size], f"{name}, {size}", color=COLOURS[name], linewidth=1.7)
    peers.set_title("each at its best step size", fontsize=11)
    for name, by in final.items():
        sizes.plot(list(by), list(by.values()), label=name, color=COLOURS[name], linewidth=1.7)
    sizes.axhline(results["unguided"], color="0.45", linestyle="--", linewidth=1.5)
    sizes.set_xscale("log")
    sizes.set_xlim(SIZES[0], SIZES[-1])
    sizes.set_xlabel("step size, in each method's own unit")
    sizes.set_title("where the trajectory ends (colours as in the middle)", fontsize=11)
    for axes in (steps, peers, sizes):
        axes.axhline(results["encoded"], color="black", linestyle=":", linewidth=1)
        axes.set_ylim(0, 1.05)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in (steps, peers):
        axes.legend(fontsize=8, frameon=False, loc="lower left")
    steps.text(960, results["encoded"] + 0.015, "E(y): the noise fitted along", fontsize=8)
    sizes.text(0.0032, results["unguided"] + 0.015, "no guidance", fontsize=8, color="0.35")
    steps.set_ylabel("distance of the estimate to the posterior mean\n(1: the prior's mean)")
    figure.savefig(HERE / "pmg_toy.png")


if __name__ == "__main__":
    main()
