"""A trained rater on disk, in a folder ``teacher``: teacher.safetensors and teacher.json.

The files are named as the folder is, by what the method calls its rater.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from latentiqa.errors import DataError
from latentiqa.files import write_atomic
from latentiqa.hashing import file_digest
from latentiqa.training.rater import Rater


def save_rater(rater: Rater, folder: Path, report: dict[str, Any]) -> None:
    """Write what was trained; the folder counts once its .json is there.

    Args:
        rater: trained.
        folder: made if missing.
        report: how it was trained, as JSON values.
    """
    state = {k: v.detach().contiguous().cpu() for k, v in rater.trained_state().items()}
    write_rater(state, folder, report)


def write_rater(state: dict[str, Tensor], folder: Path, report: dict[str, Any]) -> None:
    """As `save_rater`, of the state of one."""
    weights = folder / f"{folder.name}.safetensors"
    write_atomic(weights, save(state))
    # Ties both together and finds flipped bits, which safetensors does not.
    described = {"weights": file_digest(weights), "report": report}
    write_atomic(folder / f"{folder.name}.json", json.dumps(described, indent=2) + "\n")


def read_report(folder: Path) -> dict[str, Any] | None:
    """How the rater in a folder was trained; None where there is none yet.

    Raises:
        DataError: its description is damaged.
    """
    return described["report"] if (described := _read(folder)) else None


def load_state(folder: Path) -> tuple[dict[str, Tensor], str]:
    """Read what `save_rater` wrote.

    Args:
        folder: where it is.

    Returns:
        What `Rater.load_trained` takes, and the name of the weights.

    Raises:
        DataError: it is missing or damaged.
    """
    weights = folder / f"{folder.name}.safetensors"
    if (described := _read(folder)) is None or not weights.is_file():
        raise DataError(f"{folder}: no trained {folder.name} there; train again with force=true.")
    if file_digest(weights) != described["weights"]:
        raise DataError(f"{weights}: damaged (its hash differs); train again with force=true.")
    try:
        return load_file(weights), described["weights"]
    except SafetensorError as error:
        raise DataError(f"{weights}: {error}; train again with force=true.") from error


def _read(folder: Path) -> dict[str, Any] | None:
    path = folder / f"{folder.name}.json"
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        return {key: described[key] for key in ("weights", "report")}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error!r}); train again with force=true.") from error
