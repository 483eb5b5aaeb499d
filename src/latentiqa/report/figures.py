"""Figures of measured values, as PNG; nothing is shown on a screen."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
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
    figure = _figure(6, 4)
    axes = figure.add_subplot()
    for label, values in lines.items():
        axes.plot(x, values, marker="o", markersize=3, label=label)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


def save_shares(path: Path, shares: Mapping[str, tuple[float, float, float]], x_label: str) -> None:
    """Draw shares with their intervals, one below the other, and write the figure as PNG.

    A line marks a half, what guessing would give.

    Args:
        path: the file.
        shares: what was counted -> share and the ends of its 95 % interval, each in [0, 1].
        x_label: what the shares are of.
    """
    figure, axes = _intervals(shares, f"{x_label}, 95 % intervals")
    axes.axvline(0.5, color="grey", linestyle="--")
    axes.set_xlim(0, 1)
    _save(figure, path)


def save_intervals(
    path: Path, values: Mapping[str, tuple[float, float, float]], x_label: str
) -> None:
    """Draw values with their intervals, one below the other, and write the figure as PNG.

    Args:
        path: the file.
        values: what was measured -> value and the ends of its interval.
        x_label: what the values are.
    """
    figure, _ = _intervals(values, x_label)
    _save(figure, path)


def save_heat_map(
    path: Path,
    values: Mapping[str, Mapping[int, float | None]],
    x_label: str,
    title: str,
) -> None:
    """Draw a cell for each value and write the figure as PNG, atomically.

    Args:
        path: the file.
        values: row -> column -> value; a cell without one stays empty.
        x_label: what columns are.
        title: what the values are.
    """
    columns = list(dict.fromkeys(column for row in values.values() for column in row))
    grid = [
        [math.nan if (value := row.get(c)) is None else value for c in columns]
        for row in values.values()
    ]
    figure = _figure(2.4 + 0.62 * len(columns), 1.4 + 0.3 * len(values))
    axes = figure.add_subplot()
    image = axes.imshow(grid, cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(columns)), [str(column) for column in columns])
    axes.set_yticks(range(len(values)), list(values))
    low, high = image.get_clim()
    for i, row in enumerate(grid):
        for j, value in enumerate(row):
            if value == value:
                colour = "black" if value > (low + high) / 2 else "white"
                axes.text(j, i, f"{value:.3f}", ha="center", va="center", color=colour, size=7)
    axes.set_xlabel(x_label)
    axes.set_title(title, size=9)
    figure.colorbar(image)
    _save(figure, path)


def save_panels(
    path: Path,
    x: Sequence[float],
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    x_label: str,
) -> None:
    """Draw panels side by side, a line for each row of values, and write the figure as PNG.

    The horizontal axis falls, as timesteps do.

    Args:
        path: the file.
        x: where the values were measured.
        panels: what a panel's values are -> legend -> values, as many as ``x``; of one value it
            is a level line.
        x_label: what ``x`` is.
    """
    figure = _figure(3.4 * len(panels), 3.2)
    for i, (title, lines) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), i + 1)
        styles = cycle(("--", ":", "-."))
        for label, values in lines.items():
            if len(values) == 1 < len(x):
                axes.axhline(values[0], color="grey", linestyle=next(styles), label=label)
            else:
                axes.plot(x[: len(values)], values, marker="o", markersize=3, label=label)
        axes.set_title(title, size=9)
        axes.set_xlabel(x_label)
        axes.invert_xaxis()
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    _save(figure, path)


def save_pictures(path: Path, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw rows of pictures under their titles and write the figure as PNG, atomically.

    Args:
        path: the file.
        rows: what a row is -> title -> ``(h, w, 3)`` in [0, 1]; sizes may differ, as each is drawn
            as large as the others, pixels as squares.
    """
    columns = max(len(row) for row in rows.values())
    figure = _figure(1.1 * columns + 0.3, 1.25 * len(rows))
    for i, (name, pictures) in enumerate(rows.items()):
        for j, (title, picture) in enumerate(pictures.items()):
            axes = figure.add_subplot(len(rows), columns, i * columns + j + 1)
            axes.imshow(np.asarray(picture), interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_title(title, size=7, pad=2)
            if j == 0:
                axes.set_ylabel(name, size=7)
    _save(figure, path)


def save_overlays(
    path: Path, picture: Any, maps: Mapping[str, Any], bars: Mapping[str, float]
) -> None:
    """Draw heat maps over a picture, and bars beside it, and write the figure as PNG, atomically.

    Args:
        path: the file.
        picture: ``(H, W, 3)`` in [0, 1].
        maps: title -> ``(h, w)``; all share one scale of colours.
        bars: what it tells -> value from 0 to 1, a line at a half; may be empty.
    """
    columns = 1 + len(maps) + bool(bars)
    height, width = picture.shape[:2]
    figure = _figure(2.6 * columns + 0.8, 2.6 * height / width + 0.5)
    panels = [figure.add_subplot(1, columns, i + 1) for i in range(columns)]
    grey = np.asarray(picture).mean(axis=2)
    panels[0].imshow(np.asarray(picture))
    low = min(float(values.min()) for values in maps.values())
    high = max(float(values.max()) for values in maps.values())
    shown = None
    for axes, (title, values) in zip(panels[1:], maps.items(), strict=False):
        axes.imshow(grey, cmap="gray", vmin=0, vmax=1)
        shown = axes.imshow(
            np.asarray(values),
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            interpolation="bilinear",
            cmap="inferno",
            vmin=low,
            vmax=high,
            alpha=0.6,
        )
        axes.set_title(title, size=8)
    for axes in panels[: 1 + len(maps)]:
        axes.set_xticks([])
        axes.set_yticks([])
    if shown is not None:
        figure.colorbar(shown, ax=panels[len(maps)], shrink=0.8)
    if bars:
        panels[-1].barh(range(len(bars)), list(bars.values()), color="tab:blue")
        panels[-1].axvline(0.5, color="grey", linestyle="--")
        panels[-1].set_yticks(range(len(bars)), list(bars), size=7)
        panels[-1].invert_yaxis()
        panels[-1].set_xlim(0, 1)
    _save(figure, path)


def coloured(values: Any, low: float, high: float) -> Any:
    """Colours of a map, dark to bright from low to high, as `save_pictures` takes them.

    Args:
        values: ``(h, w)``.
        low: what is darkest.
        high: what is brightest, more than ``low``.

    Returns:
        ``(h, w, 3)`` in [0, 1].

    Example:
        >>> coloured(np.array([[0.0, 2.0]]), 0.0, 1.0).shape
        (1, 2, 3)
    """
    return colormaps["inferno"]((np.asarray(values) - low) / (high - low))[..., :3]


def _intervals(
    values: Mapping[str, tuple[float, float, float]], x_label: str
) -> tuple[Figure, Axes]:
    """Dots with arms, one below the other."""
    figure = _figure(7, 0.8 + 0.22 * len(values))
    axes = figure.add_subplot()
    value, low, high = np.array(list(values.values())).T
    rows = np.arange(len(values))
    # An interval may end at its value, but for rounding.
    arms = np.maximum([value - low, high - value], 0)
    axes.errorbar(value, rows, xerr=arms, fmt="o", markersize=4, capsize=2)
    axes.set_yticks(rows, list(values), fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel(x_label, size=9)
    axes.grid(alpha=0.3, axis="x")
    return figure, axes


def _figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    # Not pyplot: it would look for a screen, and keep the figure.
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomic(path, buffer.getvalue())
