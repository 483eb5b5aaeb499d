"""latentiqa score: scores for pictures and folders, higher is better.

Usage: latentiqa score PICTURE_OR_FOLDER ... [run=FOLDER] [key=value ...]

Folders are searched through. The table on the screen is sorted by score and also written to
scores.csv. Files that cannot be read are listed with the reason, the rest is scored, and the exit
status is then 1. Without run=, the scorer inside the package is used; it is said what it is.

  latentiqa score photos/
  latentiqa score a.jpg b.png output=scores.json
  latentiqa score photos/ run=runs/demo-0123456789ab

  latentiqa score photos/ run=runs/genziqa-0123456789ab explain=true

  output=FILE.csv, FILE.json or null; trainer=gpu; batch_size=4; data.max_pixels=120000000

With explain=true, of a run of method=genziqa, a folder for each picture below explanations=:
summary.png (heat maps of both prompts over the picture, and its attributes as bars),
difference.png, good.png and bad.png (the maps by layer and timestep) and maps.safetensors;
attributes are columns of the file of scores.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig
from rich.console import Console
from rich.table import Table
from rich.text import Text

from latentiqa.commands.explain import explain_pictures, rater_of
from latentiqa.commands.launch import Done
from latentiqa.commands.parts import device_of, listed, quieten
from latentiqa.commands.progress import track
from latentiqa.commands.trained import FinishedRun, find_run
from latentiqa.data.folders import find_pictures
from latentiqa.data.manifest import Record
from latentiqa.errors import ConfigError, check_integer
from latentiqa.runs import write_csv, write_json

log = logging.getLogger(__name__)

POSITIONAL = "input"


def run(config: DictConfig) -> Done:
    """Score pictures; see the module's docstring."""
    output = None if config.output is None else Path(config.output)
    if output is not None and output.suffix not in {".csv", ".json"}:
        raise ConfigError(f"output={output}: expected a name ending in .csv or .json, or null.")
    check_integer("batch_size", config.batch_size, 1)
    check_integer("data.max_pixels", config.data.max_pixels, 1)
    if not isinstance(config.explain, bool):
        raise ConfigError(f"explain={config.explain!r}: expected true or false.")
    inputs = list(config.input) if isinstance(config.input, ListConfig) else [config.input]
    paths = find_pictures(inputs)
    finished = find_run(config.run, config.paths.runs)

    from latentiqa.data.images import inspect_images

    records = [Record(str(path), path, mos=0.0) for path in paths]
    with track("reading pictures", len(records)) as advance:
        keys, bad = inspect_images(records, advance=advance, max_pixels=config.data.max_pixels)
    rows: list[dict[str, Any]] = []
    if keys:
        rows = score_pictures(finished, [r for r in records if r.name in keys], config)
        rows.sort(key=lambda row: row["score"], reverse=True)
        introduce(finished)
    show(rows)
    if output is not None and rows:
        if output.suffix == ".json":
            unreadable = [{"name": str(image.path), "reason": image.reason} for image in bad]
            write_json(output, {"scores": rows, "unreadable": unreadable})
        else:
            write_csv(output, rows, list(rows[0]))
        log.info("written to %s", output)
    if bad:
        log.error("%d of %d files cannot be read:\n%s", len(bad), len(paths), listed(bad))
    return Done(status=1 if bad else 0)


def introduce(run: FinishedRun) -> None:
    """Say which head scores, and how well it did where it was tested."""
    if run.is_embedded:
        plcc = run.results["metrics"]["test"]["plcc"]
        log.info(
            "embedded scorer: %s; trained on %s; test SRCC %s, PLCC %s",
            run.method,
            run.trained_on,
            _shown(run.srcc),
            _shown(plcc),
        )
    else:
        log.info(
            "head %s trained on %s; SRCC on the test part of %s %s",
            run.folder,
            run.trained_on,
            run.results["dataset"],
            _shown(run.srcc),
        )
    for note in run.results["notes"]:
        log.info("note: %s", note)


def _shown(correlation: float | None) -> str:
    return "undefined" if correlation is None else f"{correlation:.3f}"


def score_pictures(
    run: FinishedRun, records: Sequence[Record], config: DictConfig
) -> list[dict[str, Any]]:
    """Score readable pictures in batches on the device that the trainer config names.

    Returns:
        A row a picture: name and score, and attributes with ``explain=true``.
    """
    from latentiqa.data.images import read_image
    from latentiqa.metric import load_metric

    device = device_of(config)
    quieten()
    metric = load_metric(run.folder, device)
    if config.explain:
        rater_of(metric)  # what cannot be explained ends before hours of scoring
    # The file's own name seeds its noise: a folder may move, and its scores stay.
    most = config.data.max_pixels
    pictures = ((record.path.name, read_image(record.path, most)) for record in records)
    rows = []
    with track("scoring", len(records)) as advance:
        scores = metric.each(pictures, config.batch_size)
        for record, score in zip(records, scores, strict=True):
            rows.append({"name": record.name, "score": score})
            advance()
    if config.explain:
        explained = explain_pictures(metric, records, Path(config.explanations), most)
        rows = [row | attributes for row, attributes in zip(rows, explained, strict=True)]
    return rows


def show(rows: Sequence[dict[str, Any]]) -> None:
    """The table on the screen; plain ``score<TAB>name`` lines where stdout is not a terminal."""
    console = Console()
    if not console.is_terminal:
        for row in rows:
            print(f"{row['score']:.4f}\t{row['name']}")
        return
    table = Table()
    table.add_column("score", justify="right")
    table.add_column("picture", overflow="fold")
    for row in rows:
        table.add_row(f"{row['score']:.4f}", Text(row["name"]))  # brackets in it are no markup
    console.print(table)
