"""A trained student made again from its folder in that of a run."""

from __future__ import annotations

from pathlib import Path

from latentiqa.student.network import Design, Student
from latentiqa.training.saving import load_state, read_report


def load_student(folder: Path, design: Design, seed: int = 0) -> tuple[Student, str]:
    """Make a student again of what `latentiqa.training.saving.save_rater` wrote.

    Args:
        folder: where it is; its report has the ``architecture`` of the trunk.
        design: of the student.
        seed: of its training.

    Returns:
        The student, and the name of its weights.

    Raises:
        DataError: it is missing or damaged.
        ConfigError: it is of another design.
    """
    state, weights = load_state(folder)
    report = read_report(folder)
    assert report is not None
    draws = any(key.startswith("quality.") for key in state)
    student = Student(design, seed=seed, quality=draws, architecture=report["architecture"])
    student.load_trained(state)
    return student, weights
