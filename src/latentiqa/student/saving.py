"""A trained student on disk: ``student.safetensors`` and ``student.json`` in one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from latentiqa.errors import ConfigError
from latentiqa.saving import load_weights, read_report, save_weights
from latentiqa.student.network import Design, Student

NAME = "student"
"""Of the files."""


def save_student(student: Student, folder: Path, report: dict[str, Any]) -> None:
    """Write it, see `latentiqa.saving.save_weights`; its trunk's architecture goes beside."""
    report = {**report, "architecture": student.trunk.architecture}
    save_weights(student.state_dict(), folder, NAME, report)


def load_student(folder: Path, design: Design) -> tuple[Student, str]:
    """Make a student again of what `save_student` wrote.

    Args:
        folder: where it is.
        design: of the student.

    Returns:
        The student, and the name of its weights.

    Raises:
        DataError: it is missing or damaged.
        ConfigError: it is of another design.
    """
    state, weights = load_weights(folder, NAME)
    report = read_report(folder, NAME)
    assert report is not None
    draws = any(key.startswith("quality.") for key in state)
    student = Student(design, quality=draws, architecture=report["architecture"])
    try:
        student.load_state_dict(state)
    except RuntimeError as error:
        raise ConfigError(
            f"{folder}: the weights do not fit the student's design; build it as it was trained "
            f"({str(error).splitlines()[-1].strip()})"
        ) from error
    return student, weights
