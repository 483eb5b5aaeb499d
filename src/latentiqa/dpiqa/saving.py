"""A trained teacher on disk: ``teacher.safetensors`` and ``teacher.json`` in one folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from latentiqa.backbones.ldm import LatentDiffusion
from latentiqa.dpiqa.teacher import Design, Teacher
from latentiqa.errors import DataError
from latentiqa.files import write_atomic
from latentiqa.hashing import file_digest


def save_teacher(teacher: Teacher, folder: Path, report: dict[str, Any]) -> None:
    """Write what was trained; the folder counts once its ``teacher.json`` is there.

    Args:
        teacher: trained.
        folder: made if missing.
        report: how it was trained, as JSON values.
    """
    state = {k: v.detach().contiguous().cpu() for k, v in teacher.trained_state().items()}
    weights = folder / "teacher.safetensors"
    write_atomic(weights, save(state))
    # Ties both together and finds flipped bits, which safetensors does not.
    described = {"weights": file_digest(weights), "report": report}
    write_atomic(folder / "teacher.json", json.dumps(described, indent=2) + "\n")


def read_report(folder: Path) -> dict[str, Any] | None:
    """How the teacher in a folder was trained; None where there is none yet.

    Raises:
        DataError: its description is damaged.
    """
    return described["report"] if (described := _read(folder)) else None


def load_teacher(
    folder: Path, backbone: LatentDiffusion, design: Design, seed: int
) -> tuple[Teacher, str]:
    """Make a teacher again of what `save_teacher` wrote.

    Args:
        folder: where it is.
        backbone: that it was trained on.
        design: of the teacher.
        seed: of its training.

    Returns:
        The teacher, and the name of its weights.

    Raises:
        DataError: it is missing or damaged.
        ConfigError: it is of another design.
    """
    weights = folder / "teacher.safetensors"
    if (described := _read(folder)) is None or not weights.is_file():
        raise DataError(f"{folder}: no trained teacher there; train again with force=true.")
    if file_digest(weights) != described["weights"]:
        raise DataError(f"{weights}: damaged (its hash differs); train again with force=true.")
    try:
        state = load_file(weights)
    except SafetensorError as error:
        raise DataError(f"{weights}: {error}; train again with force=true.") from error
    known = None if design.prompts == "learnt" else state.get("prompts")
    teacher = Teacher(backbone, design, seed=seed, prompts=known)
    teacher.load_trained(state)
    return teacher, described["weights"]


def _read(folder: Path) -> dict[str, Any] | None:
    path = folder / "teacher.json"
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        return {key: described[key] for key in ("weights", "report")}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error!r}); train again with force=true.") from error
