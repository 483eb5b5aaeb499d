"""A trained teacher on disk: ``teacher.safetensors`` and ``teacher.json`` in one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from latentiqa.backbones.ldm import LatentDiffusion
from latentiqa.dpiqa.teacher import Design, Teacher
from latentiqa.saving import load_weights, save_weights

NAME = "teacher"
"""Of the files."""


def save_teacher(teacher: Teacher, folder: Path, report: dict[str, Any]) -> None:
    """Write what was trained, see `latentiqa.saving.save_weights`."""
    save_weights(teacher.trained_state(), folder, NAME, report)


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
    state, weights = load_weights(folder, NAME)
    known = None if design.prompts == "learnt" else state.get("prompts")
    teacher = Teacher(backbone, design, seed=seed, prompts=known)
    teacher.load_trained(state)
    return teacher, weights
