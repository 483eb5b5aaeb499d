"""latentiqa score: scores for pictures and folders, higher is better.

Usage: latentiqa score PICTURE_OR_FOLDER ... [run=FOLDER] [key=value ...]

Folders are searched through. The table on the screen is sorted by score and also written to
scores.csv. Files that cannot be read are listed with the reason, the rest is scored, and the exit
status is then 1; when it is stopped, the scores so far are written. Without run=, a scorer inside
the package is used, and it is said what it is: model=student, or lgdm, which is slower.

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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, ListConfig
from rich.console import Console
from rich.table import Table
from rich.text import Text

from latentiqa.commands.explain import explain_picture, explanation_folders, prepare, rater_of
from latentiqa.commands.launch import Done
from latentiqa.commands.parts import device_of, listed, plain, quieten
from latentiqa.commands.progress import track
from latentiqa.commands.trained import FinishedRun, find_run, packaged
from latentiqa.data.folders import find_pictures
from latentiqa.data.manifest import Record
from latentiqa.errors import ConfigError, DataError, check_integer
from latentiqa.files import check_writable
from latentiqa.runs import write_csv, write_json

if TYPE_CHECKING:
    from torch import Tensor

    from latentiqa.data.images import BadImage

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
    if config.attributes is not None and not config.explain:
        raise ConfigError(f"attributes={config.attributes}: only explain=true shows them; set it.")
    if output is not None:
        check_writable(output)
    inputs = list(config.input) if isinstance(config.input, ListConfig) else [config.input]
    paths = find_pictures(inputs)
    if config.run is None and config.model not in (inside := packaged()):
        raise ConfigError(
            f"model={config.model}: expected {' or '.join(inside) or 'none'}, which is what this "
            "installation carries; one of your own (`latentiqa train experiment=demo`) is "
            "run=FOLDER."
        )
    finished = find_run(config.run or config.model, config.paths.runs)

    from latentiqa.data.images import inspect_images

    records = [Record(str(path), path, mos=0.0) for path in paths]
    with track("reading pictures", len(records)) as advance:
        keys, bad = inspect_images(records, advance=advance, max_pixels=config.data.max_pixels)
    rows: list[dict[str, Any]] = []
    try:
        if keys:
            readable = [record for record in records if record.name in keys]
            for row in score_pictures(finished, readable, bad, config):
                rows.append(row)
            introduce(finished)
    finally:
        # Of whatever stops it, a full memory or the keyboard, what is scored by then remains.
        if len(rows) + len(bad) < len(records):
            log.error("stopped: %d of %d pictures are scored", len(rows), len(records))
        rows.sort(key=lambda row: row["score"], reverse=True)
        show(rows)
        write(output, rows, bad)
    if bad:
        log.error("%d of %d files cannot be read:\n%s", len(bad), len(paths), listed(bad))
    return Done(status=1 if bad else 0)


def write(output: Path | None, rows: Sequence[dict[str, Any]], bad: Sequence[BadImage]) -> None:
    """Write the file of scores, if one is wanted and there are any."""
    if output is None or not rows:
        return
    if output.suffix == ".json":
        unreadable = [{"name": str(image.path), "reason": image.reason} for image in bad]
        write_json(output, {"scores": rows, "unreadable": unreadable})
    else:
        # Attributes stand in the rows that were explained.
        write_csv(output, rows, list(dict.fromkeys(key for row in rows for key in row)))
    log.info("written to %s", output)


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
    run: FinishedRun, records: Sequence[Record], bad: list[BadImage], config: DictConfig
) -> Iterator[dict[str, Any]]:
    """Score pictures in batches on the device that the trainer config names.

    Args:
        run: that scores.
        records: pictures that could be read.
        bad: receives those that cannot be read any more.
        config: of the verb.

    Yields:
        A row a picture, as soon as it is complete: name and score, and attributes with
        ``explain=true``.
    """
    from latentiqa.metric import load_metric

    device = device_of(config)
    quieten()
    metric = load_metric(run.folder, device)
    if config.explain:  # what cannot be explained ends before hours of scoring
        asked = None if config.attributes is None else plain(config)["attributes"]
        prepare(rater_of(metric), asked)
    read: list[Record] = []
    pictures = read_anew(records, read, bad, config.data.max_pixels)
    folders = explanation_folders(records, Path(config.explanations))
    with track("scoring", len(records)) as advance:
        for i, score in enumerate(metric.each(pictures, config.batch_size)):
            row: dict[str, Any] = {"name": read[i].name, "score": score}
            if config.explain:
                path = read[i].path
                row |= explain_picture(metric, path, folders[path], config.data.max_pixels)
            yield row
            advance()
    if config.explain:
        log.info("explanations in %s", config.explanations)


def read_anew(
    records: Sequence[Record], read: list[Record], bad: list[BadImage], most: int
) -> Iterator[tuple[str, Tensor]]:
    """Names and pixels of pictures, which may have been changed since they were inspected.

    Args:
        records: the pictures.
        read: receives those that are yielded.
        bad: receives the others.
        most: pixels of a picture.
    """
    from latentiqa.data.images import BadImage, read_image

    for record in records:
        try:
            picture = read_image(record.path, most)
        except DataError as error:
            bad.append(BadImage(record.path, str(error).removeprefix(f"{record.path}: ")))
            continue
        read.append(record)
        # The file's own name seeds its noise: a folder may move, and its scores stay.
        yield record.path.name, picture


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
