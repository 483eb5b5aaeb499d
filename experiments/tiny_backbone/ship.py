"""Put finished runs into the repository.

python experiments/tiny_backbone/ship.py results [STUDY/]NAME=RUN [[STUDY/]NAME=RUN ...]
    copies results.json, curves, tables and the last grid of pictures, as JPEG, to results/NAME of
    this study or of another one
python experiments/tiny_backbone/ship.py backbone RUN [AUTOENCODER_RUN]
    makes RUN/pipeline the embedded backbone, with the decoder of AUTOENCODER_RUN, whose encoder
    has to be the same, and with its model card written from results/
python experiments/tiny_backbone/ship.py decoder RUN
    makes RUN's autoencoder the embedded backbone's narrow decoder for guidance
python experiments/tiny_backbone/ship.py scorer lgdm|student RUN
    makes RUN that scorer inside the package; a student with filters in half precision and a model
    card, for which experiments/student/card.md is filled in

Paths of this machine are taken out of what is copied: of a path below the folder of runs its part
from there on is kept, of any other its last part.
"""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from latentiqa.backbones.ldm import load_autoencoder, save_pipeline
from latentiqa.files import write_atomic
from latentiqa.hashing import folder_digest
from latentiqa.report.figures import save_lines
from latentiqa.runs import read_json, write_csv, write_json
from latentiqa.training.saving import load_state, read_report, write_rater

STUDY = Path(__file__).parent
PACKAGE = STUDY.parents[1] / "src" / "latentiqa"
RESULTS = STUDY / "results"
TABLES = ("*.csv", "cost.json", "denoising.png", "captions.png")
"""What is copied from a run's folder as it is, beside results.json."""

GRIDS = ("samples.png", "reconstruction.png")
"""Pictures side by side in a run's folder: megabytes, so copied as JPEG."""

DENOISER = ("diffusion_start", "diffusion", "diffusion_read", "diffusion_finish")
"""The results of the denoiser's stages, in order."""

RUN_KEYS = (
    *("paths", "trainer", "logger", "callbacks", "fractions"),
    *("limit", "force", "fast_dev_run"),
)
"""Keys of a run's config that a scorer does not need."""


def main(verb: str, *arguments: str) -> None:
    """Do one of the four."""
    match verb:
        case "results":
            for argument in arguments:
                name, run = argument.split("=", 1)
                study, name = name.split("/", 1) if "/" in name else (STUDY.name, name)
                copy_results(Path(run), STUDY.parent / study / "results" / name)
        case "backbone":
            ship_backbone(*map(Path, arguments))
        case "decoder":
            ship_decoder(Path(arguments[0]))
        case "scorer":
            ship_scorer(arguments[0], Path(arguments[1]))
        case _:
            raise SystemExit(__doc__)


def placeless(value: Any, runs: str) -> Any:
    """The same data without the paths of this machine."""
    if isinstance(value, dict):
        return {key: placeless(item, runs) for key, item in value.items()}
    if isinstance(value, list):
        return [placeless(item, runs) for item in value]
    if isinstance(value, str) and value.startswith("/"):
        path = Path(value)
        return str(path.relative_to(runs)) if path.is_relative_to(runs) else path.name
    return value


def read_results(run: Path) -> dict[str, Any]:
    """A run's results.json without the paths of this machine."""
    return placeless(read_json(run / "results.json"), str(run.resolve().parent))


def copy_results(run: Path, folder: Path) -> None:
    """Copy what a run measured; curves of all its legs into one file."""
    shutil.rmtree(folder, ignore_errors=True)
    write_json(folder / "results.json", read_results(run))
    for pattern in TABLES:
        for path in run.glob(pattern):
            shutil.copy(path, folder)
    legs = [*sorted((run / "logs").glob("metrics-leg*.csv")), run / "logs" / "metrics.csv"]
    if legs[-1].exists():
        rows = [row for leg in legs for row in read_rows(leg)]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        write_csv(folder / "metrics.csv", rows, columns)
    for grid in [run / name for name in GRIDS if (run / name).exists()]:
        copy_grid(grid, folder / f"{grid.stem}.jpg")
    if grids := sorted((run / "grids").glob("*.png")):
        copy_grid(grids[-1], folder / f"{grids[-1].stem.split('-')[0]}.jpg")


def copy_grid(png: Path, jpeg: Path) -> None:
    """The same pictures in a tenth of the bytes."""
    with Image.open(png) as grid:
        grid.save(jpeg, quality=90, subsampling=0)


def ship_backbone(run: Path, autoencoder_run: Path | None = None) -> None:
    """Replace the embedded backbone; write its model card and the figure of its curves."""
    folder = PACKAGE / "backbones" / "tiny"
    shutil.rmtree(folder, ignore_errors=True)
    # Any: diffusers types a pipeline's parts as a union of everything.
    pipeline: Any = StableDiffusionPipeline.from_pretrained(run / "pipeline")
    vae = pipeline.vae if autoencoder_run is None else other_decoder(pipeline, autoencoder_run)
    parts = (pipeline.unet, pipeline.text_encoder, pipeline.tokenizer, pipeline.scheduler)
    save_pipeline(folder, vae, *parts, dtype=torch.float16)
    identity = folder_digest(folder)
    shutil.copy(RESULTS / DENOISER[-1] / "samples.jpg", folder)
    save_curves(folder / "curves.png")
    runs = {path.parent.name: read_json(path) for path in RESULTS.glob("*/results.json")}
    card = (STUDY / "card.md").read_text().format(identity=identity, **runs)
    write_atomic(folder / "README.md", card)


def save_curves(path: Path) -> None:
    """Held-out losses over the denoiser's stages, one after the other."""
    steps: list[int] = []
    losses: dict[str, list[float]] = {"diffusion": [], "alignment": []}
    for stage in DENOISER:
        before = steps[-1] if steps else 0
        for row in read_rows(RESULTS / stage / "metrics.csv"):
            if row["val/alignment"]:
                steps.append(before + int(row["step"]) + 1)
                for name, values in losses.items():
                    # Not every stage denoises: a gap in its curve.
                    values.append(float(row.get(f"val/{name}") or "nan"))
    save_lines(path, steps, losses, "step", "loss of 64 held-out crops, averaged weights")


def other_decoder(pipeline: Any, run: Path) -> Any:
    """The autoencoder of a run with the encoder of a pipeline."""
    autoencoder = load_autoencoder(run / "autoencoder")
    weights = autoencoder.encoder.half().state_dict()
    for name, value in pipeline.vae.encoder.half().state_dict().items():
        if not torch.equal(value, weights[name]):
            raise SystemExit(f"{run}: its encoder is not that of the pipeline (differs in {name})")
    return autoencoder


def ship_decoder(run: Path) -> None:
    """Replace the narrow decoder."""
    folder = PACKAGE / "backbones" / "tiny_decoder"
    shutil.rmtree(folder, ignore_errors=True)
    load_autoencoder(run / "autoencoder").half().save_pretrained(folder)
    config = read_json(folder / "config.json")
    del config["_name_or_path"]  # a path of this machine
    write_json(folder / "config.json", config)


def ship_scorer(name: str, run: Path) -> None:
    """Replace a scorer inside the package: head, student, and what it has to know of both."""
    folder = PACKAGE / "scorers" / name
    results = read_results(run)
    del results["machine"]
    config = results["config"]
    for key in ("root", "path"):
        config["dataset"].pop(key, None)
    for key in RUN_KEYS:
        config.pop(key, None)
    shutil.rmtree(folder, ignore_errors=True)
    write_json(folder / "results.json", results)
    shutil.copytree(run / "head", folder / "head")
    shutil.copy(run / "predictions.csv", folder)  # whose scale is its own as a prior
    if (student := run / "student").is_dir():
        report = read_report(student)
        assert report is not None
        write_rater(halved(load_state(student)[0]), folder / "student", report)
        write_atomic(folder / "README.md", student_card(results, load_state(folder / "student")[1]))


def student_card(results: dict[str, Any], weights: str) -> str:
    """The model card of a student inside the package."""
    fit = results["fit"]
    teachers = " and ".join(teacher["method"] for teacher in fit["teachers"])
    values = results | {
        "weights": weights,
        "taught": f"taught by {teachers}, too" if teachers else "no teacher",
        "steps_an_epoch": fit["steps"] // fit["epochs"],
        "training": results["config"]["training"],
    }
    return (STUDY.parent / "student" / "card.md").read_text().format(**values)


def halved(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Filters in half precision; norms and the regression are small, and stay exact."""
    return {key: value.half() if value.ndim == 4 else value for key, value in state.items()}


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main(*(sys.argv[1:] or [""]))
