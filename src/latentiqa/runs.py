"""A run is its config's signature: its folder, and what stands in its results.json."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from importlib import metadata
from pathlib import Path
from typing import Any

from latentiqa.errors import DataError
from latentiqa.files import write_atomic
from latentiqa.hashing import digest

SCHEMA = 1

NOT_IN_SIGNATURE = (
    "name",
    "choices",  # names of what the config holds in full
    "paths",
    "trainer",
    "logger",
    "callbacks",
    "force",
    "dataset",  # its fingerprint stands for it, so a moved folder is still the same data
    "perceptual",  # only the source that guidance takes its psi from
    "guidance.checkpointing",
    "method.teacher.checkpointing",
    "method.rater.attributes",  # scores of their own, which are explained only
    "method.training.checkpoint_every",
    "training.checkpoint_every",
    "data.batch_size",
    "data.num_workers",
    "data.shard_size",
    "crops.num_workers",
    "every",
    "minutes",
    "stage.autoencoder_folder",  # the weights' content stands for it
    "stage.start",
    "teacher",  # its weights' hash stands for it, as the next one's fingerprint does
    "unlabelled",
)
"""Config keys that do not change the numbers."""

USUAL: dict[str, Any] = {"head.losses": {"mse": 1.0}}
"""Keys that are younger than the runs that they would rename: they count where they differ."""

PREDICTION_COLUMNS = ("part", "name", "mos", "target", "pred")
"""What every predictions.csv has; a picture's attributes stand behind."""


def signature(config: Mapping[str, Any], **content: str) -> str:
    """Hash of all that determines a run's numbers.

    Args:
        config: the resolved config.
        **content: hashes of what the config only points to: the dataset, the split.

    Returns:
        12 hex digits.

    Example:
        >>> config = {"seed": 0, "trainer": {"accelerator": "cpu"}}
        >>> signature(config) == signature(config | {"trainer": {"accelerator": "gpu"}})
        True
        >>> signature(config) == signature(config | {"seed": 1})
        False
    """
    kept = deepcopy(dict(config))
    for key in (*NOT_IN_SIGNATURE, *USUAL):
        *parents, last = key.split(".")
        node: Any = kept
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if isinstance(node, dict) and (key not in USUAL or node.get(last) == USUAL[key]):
            node.pop(last, None)
    return digest({"schema": SCHEMA, "config": kept, **content})


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; values that are not finite become ``null``."""
    write_atomic(path, json.dumps(_finite(value), indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of a run.

    Raises:
        DataError: it is missing or broken.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); give the folder of a finished `latentiqa train` "
            "run, or train it again with force=true."
        ) from error


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write rows as CSV with a header, atomically."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue())


def write_predictions(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write predictions as CSV: ``mos`` is raw, ``target`` and ``pred`` are in [0, 1].

    Whatever else the rows hold follows in columns of its own.
    """
    keys = [key for row in rows for key in row]
    write_csv(path, rows, list(dict.fromkeys([*PREDICTION_COLUMNS, *keys])))


def environment() -> dict[str, Any]:
    """What a run was computed by: code, packages, machine."""
    packages = ("latentiqa", "torch", "lightning", "diffusers", "transformers", "hydra-core")
    return {
        "git_sha": git_sha(),
        "versions": {
            "python": platform.python_version(),
            **{package: metadata.version(package) for package in packages},
        },
        "machine": {
            "platform": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        },
    }


def git_sha() -> str | None:
    """Commit of the checkout that the package runs from or was installed from, if there is one.

    ``+dirty`` is added where tracked files differ from the commit.
    """
    folder = Path(__file__).parent
    try:
        origin = json.loads(metadata.distribution("latentiqa").read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        origin = {}
    if "site-packages" in folder.parts and origin.get("url", "").startswith("file://"):
        folder = Path(origin["url"].removeprefix("file://"))
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}+dirty" if changed else commit


def peak_memory_mb() -> float:
    """Largest memory of this process so far: the GPU's where one was used, else the host's."""
    if "torch" in sys.modules:
        import torch

        if torch.cuda.is_available() and (peak := torch.cuda.max_memory_allocated()):
            return round(peak / 2**20, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kilobytes on Linux, bytes on macOS.
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return done.stdout.strip()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    # NaN is not JSON; a correlation of constant predictions is undefined, which null says.
    if isinstance(value, float) and value - value != 0:
        return None
    return value
