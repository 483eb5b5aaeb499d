"""From results to tables in Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

ABSENT = "–"
CORRELATIONS = frozenset({"srcc", "krcc", "plcc", "plcc_logistic"})
TITLES = {
    "srcc": "SRCC",
    "krcc": "KRCC",
    "plcc": "PLCC",
    "plcc_logistic": "PLCC (logistic)",
    "rmse": "RMSE",
}
"""What figures are called in tables."""
_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    ABSENT: "--",
}


@dataclass(frozen=True)
class Table:
    """Cells ready to print, and what must be read with them.

    Args:
        header: column titles.
        rows: one list of cells a result.
        numeric: whether a column holds nothing but numbers (it is then right-aligned).
        notes: remarks of the results in the table, each once.
    """

    header: list[str]
    rows: list[list[str]]
    numeric: list[bool]
    notes: list[str]


def lookup(result: Mapping[str, Any], key: str) -> Any:
    """The value under a dotted key, ``None`` where there is none.

    Example:
        >>> lookup({"metrics": {"test": {"srcc": 0.9}}}, "metrics.test.srcc")
        0.9
    """
    value: Any = result
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def cell(key: str, value: Any) -> str:
    """A value as text: correlations with 3 decimals, seconds with 1 below 100 and 0 above.

    Parameters are in millions, differences have a sign. A summary over splits or seeds is its
    median or mean and, in brackets, the interval.

    Example:
        >>> cell("metrics.test.srcc", 0.90449), cell("seconds", 12.34), cell("seconds", 1234.5)
        ('0.904', '12.3', '1234')
        >>> cell("config.seed", None), cell("cost.parameters", 13_104_563)
        ('–', '13.1 M')
        >>> cell("seeds.differences", [0.012, -0.0034])
        '+0.012, -0.003'
    """
    if value is None:
        return ABSENT
    if not _is_number(value):
        if isinstance(value, list):
            return ", ".join(cell(key, one) for one in value)
        if isinstance(value, dict) and "low" in value:
            middle = "median" if "median" in value else "mean"
            middle, low, high = (cell(key, value[name]) for name in (middle, "low", "high"))
            return f"{middle} [{low}, {high}]"
        return str(value)
    match key.rpartition(".")[2]:
        case name if name in CORRELATIONS:
            return f"{value:.3f}"
        case "difference" | "differences":
            return f"{value:+.3f}"
        case "seconds":
            return f"{value:.1f}" if value < 100 else f"{value:.0f}"
        case "parameters":
            return f"{value / 1e6:.1f} M"
        case "peak_memory_mb":
            return f"{value:.0f}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(
    results: Iterable[Mapping[str, Any]],
    columns: Mapping[str, str],
    sort_by: str | None = None,
    descending: bool = False,
) -> Table:
    """Arrange results in rows.

    Args:
        results: contents of results.json files.
        columns: column title -> dotted key, e.g. ``{"SRCC": "metrics.test.srcc"}``.
        sort_by: dotted key, which need not be a column; results without it come last. By default
            the order of ``results`` is kept.
        descending: largest first.

    Example:
        >>> results = [{"dataset": d, "seconds": s} for d, s in (("demo", 3.14159), ("csv", 2))]
        >>> table(results, {"Set": "dataset", "s": "seconds"}, sort_by="seconds").rows
        [['csv', '2.0'], ['demo', '3.1']]
    """
    results = list(results)
    if sort_by is not None:
        present = [result for result in results if lookup(result, sort_by) is not None]
        absent = [result for result in results if lookup(result, sort_by) is None]
        present.sort(key=lambda result: _order(lookup(result, sort_by)), reverse=descending)
        results = present + absent
    values = [[lookup(result, key) for key in columns.values()] for result in results]
    cells = [[cell(k, v) for k, v in zip(columns.values(), row, strict=True)] for row in values]
    columnwise = zip(*values, strict=True)
    numeric = [all(v is None or _is_number(v) for v in column) for column in columnwise]
    return Table(list(columns), cells, numeric or [False] * len(columns), notes_of(results))


def notes_of(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """The caveats of results, each once.

    Example:
        >>> notes_of([{"notes": ["random"]}, {}, {"notes": ["random", "demo"]}])
        ['random', 'demo']
    """
    return list(dict.fromkeys(note for result in results for note in result.get("notes", [])))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _order(value: Any) -> tuple[bool, float, str]:
    """Numbers by value (NaN as the smallest), before all else by its text.

    A summary of several runs counts as its median or mean.
    """
    if isinstance(value, Mapping):
        value = value.get("median", value.get("mean", value))
    if _is_number(value):
        return False, value if value == value else float("-inf"), ""
    return True, 0.0, str(value)


def to_markdown(rows: Table) -> str:
    """A GitHub table, the notes as a list under it."""

    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cells)} |"

    def escape(text: str) -> str:
        return " ".join(text.split()).replace("|", r"\|")

    rule = ["---:" if numeric else "---" for numeric in rows.numeric]
    body = [map(escape, cells) for cells in rows.rows]
    lines = [line(map(escape, rows.header)), line(rule), *map(line, body)]
    if rows.notes:
        lines += ["", *(f"- {' '.join(note.split())}" for note in rows.notes)]
    return "\n".join(lines) + "\n"


def to_csv(rows: Table) -> str:
    """Comma-separated, the notes as ``#`` lines under it."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([rows.header, *rows.rows])
    return text.getvalue() + "".join(f"# {' '.join(note.split())}\n" for note in rows.notes)


def to_latex(rows: Table) -> str:
    """A ``tabular`` with rules of the package booktabs, the notes as small print under it."""

    def escape(text: str) -> str:
        return re.sub(r"[&%$#_{}\\~^<>–]", lambda found: _LATEX[found[0]], " ".join(text.split()))

    def line(cells: Iterable[str]) -> str:
        return " & ".join(map(escape, cells)) + r" \\"

    alignment = "".join("r" if numeric else "l" for numeric in rows.numeric)
    lines = [rf"\begin{{tabular}}{{{alignment}}}", r"\toprule", line(rows.header), r"\midrule"]
    lines += [*map(line, rows.rows), r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par{{\footnotesize {escape(note)}}}" for note in rows.notes]
    return "\n".join(lines) + "\n"
