"""Figures of measured values, as PNG; nothing is shown on a screen."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from latentiqa.files import write_atomic


def save_lines(
    path: Path,
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    x_label: str,
    y_label: str,
) -> None:
    """Draw a line for each row of values and write the figure as PNG, atomically.

    The vertical axis begins at 0.

    Args:
        path: the file.
        x: where the values were measured.
        lines: legend -> values, as many as ``x``.
        x_label: what ``x`` is.
        y_label: what the values are.
    """
    # Not pyplot: it would look for a screen, and keep the figure.
    figure = Figure(figsize=(6, 4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for label, values in lines.items():
        axes.plot(x, values, marker="o", markersize=3, label=label)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomic(path, buffer.getvalue())
