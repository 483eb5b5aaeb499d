"""Trained weights on disk: ``<name>.safetensors`` and ``<name>.json`` in one folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from latentiqa.errors import DataError
from latentiqa.files import write_atomic
from latentiqa.hashing import file_digest


def save_weights(
    state: Mapping[str, Tensor], folder: Path, name: str, report: dict[str, Any]
) -> None:
    """Write weights; they count once ``<name>.json`` is there.

    Args:
        state: the weights.
        folder: made if missing.
        name: of what they are the weights of.
        report: how it was trained, as JSON values.
    """
    weights = folder / f"{name}.safetensors"
    write_atomic(weights, save({k: v.detach().contiguous().cpu() for k, v in state.items()}))
    # Ties both together and finds flipped bits, which safetensors does not.
    described = {"weights": file_digest(weights), "report": report}
    write_atomic(folder / f"{name}.json", json.dumps(described, indent=2) + "\n")


def read_report(folder: Path, name: str) -> dict[str, Any] | None:
    """How what is in a folder was trained; None where there is nothing yet.

    Raises:
        DataError: its description is damaged.
    """
    return described["report"] if (described := _read(folder, name)) else None


def load_weights(folder: Path, name: str) -> tuple[dict[str, Tensor], str]:
    """What `save_weights` wrote, and the hash that names it.

    Raises:
        DataError: it is missing or damaged.
    """
    weights = folder / f"{name}.safetensors"
    if (described := _read(folder, name)) is None or not weights.is_file():
        raise DataError(f"{folder}: no trained {name} there; train again with force=true.")
    if file_digest(weights) != described["weights"]:
        raise DataError(f"{weights}: damaged (its hash differs); train again with force=true.")
    try:
        return load_file(weights), described["weights"]
    except SafetensorError as error:
        raise DataError(f"{weights}: {error}; train again with force=true.") from error


def _read(folder: Path, name: str) -> dict[str, Any] | None:
    path = folder / f"{name}.json"
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        return {key: described[key] for key in ("weights", "report")}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error!r}); train again with force=true.") from error
