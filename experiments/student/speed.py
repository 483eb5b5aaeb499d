"""How fast a student scores: beside its bare backbone and its teacher, in ONNX Runtime and in int8.

python experiments/student/speed.py OUTPUT STUDENT_RUN [--teacher RUN] [--size 512]
    [--pictures 8] [--rounds 7]

Bare is EfficientNet-Lite0 up to its last convolution, at the size that the student sees. All ways
score the same random pictures of the given size one by one, in every round one after the other, in
turn from the first way and from the last; figures are medians over the rounds. A round before those
that count warms up. Without a teacher: the scorer lgdm inside the package. Writes results.json and
table.md to OUTPUT.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from latentiqa.commands.trained import find_run, load_run
from latentiqa.errors import ConfigError, check_integer
from latentiqa.files import write_atomic
from latentiqa.methods.rated import Rated
from latentiqa.metric import load_metric
from latentiqa.perceptual.efficientnet import EfficientNetLite
from latentiqa.runs import environment, write_json
from latentiqa.student.deploy import Deployed, export_onnx, quantise, scorer_of
from latentiqa.student.network import Student

BARE = "EfficientNet-Lite0 alone"
STUDENT = "student, torch"
ONNX = "student, ONNX Runtime"
INT8 = "student, ONNX Runtime, int8"
TEACHER = "teacher"
FEWEST_ROUNDS = 3


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("student")
    parser.add_argument("--teacher", default="lgdm")
    for key, default in {"size": 512, "pictures": 8, "rounds": 7}.items():
        parser.add_argument(f"--{key}", type=int, default=default)
    options = parser.parse_args(arguments)
    check_integer("--rounds", options.rounds, FEWEST_ROUNDS)
    check_integer("--pictures", options.pictures, 1)
    check_integer("--size", options.size, 32)
    with tempfile.TemporaryDirectory() as scratch:
        shown = random_pictures(options.pictures, options.size)
        ways = ways_of(options.student, options.teacher, Path(scratch), shown)
        results = measure(ways, shown, options.rounds)
    results |= {key: Path(vars(options)[key]).name for key in ("student", "teacher")}
    write_json(options.output / "results.json", results)
    table = table_of(results)
    write_atomic(options.output / "table.md", table)
    print(table)


def random_pictures(number: int, size: int) -> list[Tensor]:
    """So many pictures ``(1, 3, size, size)``."""
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(1, 3, size, size, generator=generator) for _ in range(number)]


def ways_of(
    student: str, teacher: str, scratch: Path, shown: Sequence[Tensor]
) -> dict[str, Callable[[Tensor], Any]]:
    """What is timed: each takes a picture ``(1, 3, H, W)`` in [0, 1].

    Args:
        student: folder of its run, or the name of one inside the package.
        teacher: folder of its run, or the name of a scorer inside the package.
        scratch: folder for what is exported.
        shown: pictures that calibrate int8.

    Raises:
        ConfigError: the first run is no student.
    """
    loaded = load_run(find_run(student, "runs"))
    scores = loaded.extractors[0]
    if not isinstance(scores, Rated) or not isinstance(scores.rater, Student):
        raise ConfigError(f"{student}: expected a run of latentiqa distill.")
    deployed = Deployed(scores.rater, loaded.views)
    onnx, int8 = scratch / "student.onnx", scratch / "int8.onnx"
    export_onnx(deployed, onnx)
    quantise(onnx, int8, [picture[0] for picture in shown])
    bare, size = EfficientNetLite(), (deployed.size, deployed.size)

    def backbone(image: Tensor) -> Any:
        return bare(torch.nn.functional.interpolate(image, size, mode="bilinear"), ["head"])

    return {
        BARE: backbone,
        STUDENT: deployed,
        ONNX: scorer_of(onnx),
        INT8: scorer_of(int8),
        TEACHER: load_metric(teacher),
    }


@torch.inference_mode()
def measure(
    ways: dict[str, Callable[[Tensor], Any]], shown: Sequence[Tensor], rounds: int
) -> dict[str, Any]:
    """Time every way in turn.

    Args:
        ways: what is timed.
        shown: pictures of a round.
        rounds: that count.

    Returns:
        What results.json holds.
    """
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way in list(ways) if number % 2 else reversed(ways):
            started = time.perf_counter()
            for image in shown:
                ways[way](image)
            if number:
                seconds[way].append((time.perf_counter() - started) / len(shown))
    bare = median(seconds[BARE])
    return {
        "kind": "student_speed",
        "size": shown[0].shape[-1],
        "pictures": len(shown),
        "rounds": rounds,
        "ways": {
            way: {
                "images_per_second": 1 / median(found),
                "time_of_bare": median(found) / bare,
                "seconds": found,
            }
            for way, found in seconds.items()
        },
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        **environment(),
    }


def table_of(results: dict[str, Any]) -> str:
    """The figures as a Markdown table, and what they were measured with below."""
    lines = ["| way | images/s | time of the bare backbone |", "| --- | ---: | ---: |"]
    lines += [
        f"| {way} | {found['images_per_second']:.1f} | {found['time_of_bare']:.2f} |"
        for way, found in results["ways"].items()
    ]
    lines += [
        "",
        f"Pictures of {results['size']} x {results['size']} one by one, {results['pictures']} a "
        f"round, medians of {results['rounds']} rounds; {results['cores']} cores, "
        f"{results['torch_threads']} threads.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
