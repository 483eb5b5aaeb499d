"""Tables from results."""

from __future__ import annotations

import csv
from typing import Any

import pytest

from latentiqa.report.tables import cell, lookup, table, to_csv, to_latex, to_markdown

COLUMNS = {"Guidance": "config.guidance.name", "SRCC": "metrics.test.srcc", "s": "seconds"}
RANDOM = "tiny is a random initialisation"


def result(guidance: str | None, srcc: float | None, seconds: float, *notes: str) -> dict[str, Any]:
    return {
        "config": {"guidance": {"name": guidance}},
        "metrics": {"test": {"srcc": srcc}},
        "seconds": seconds,
        "notes": list(notes),
    }


RESULTS = [
    result("pmg", 0.9, 1200.4, RANDOM, "two seeds"),
    result("none", 0.85046, 9.96, RANDOM),
    result("a_b|c", None, 99.0),
]


@pytest.mark.parametrize("key", ["metrics.val.srcc", "seconds.x", "notes.0", "x", "metrics."])
def test_keys_that_lead_nowhere_are_absent(key):
    assert lookup(RESULTS[0], key) is None


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("metrics.test.srcc", 0.9, "0.900"),
        ("metrics.val.plcc_logistic", -0.12345, "-0.123"),
        ("metrics.test.krcc", 1, "1.000"),
        ("metrics.test.srcc", float("nan"), "nan"),
        ("seconds", 9.96, "10.0"),
        ("seconds", 1200.4, "1200"),
        ("peak_memory_mb", 512.7, "513"),
        ("metrics.test.rmse", 11.23456, "11.23"),
        ("metrics.test.n", 2000, "2000"),
        ("config.head.alpha", 0.0001, "0.0001"),
        ("config.resume", True, "True"),
        ("config.name", "srcc", "srcc"),
        ("config.nothing", None, "–"),
    ],
)
def test_cells(key, value, expected):
    assert cell(key, value) == expected


@pytest.mark.parametrize(
    ("sort_by", "descending", "order"),
    [
        (None, False, ["pmg", "none", "a_b|c"]),
        ("metrics.test.srcc", False, ["none", "pmg", "a_b|c"]),
        ("metrics.test.srcc", True, ["pmg", "none", "a_b|c"]),
        ("seconds", True, ["pmg", "a_b|c", "none"]),
        ("config.guidance.name", False, ["a_b|c", "none", "pmg"]),
    ],
)
def test_rows_are_sorted_with_absent_values_last(sort_by, descending, order):
    rows = table(RESULTS, COLUMNS, sort_by, descending).rows
    assert [row[0] for row in rows] == order


def test_sorting_takes_mixed_values():
    values = ["b", 2, float("nan"), 0.5, None, "a"]
    rows = table([{"x": v} for v in values], {"x": "x"}, sort_by="x").rows
    assert [row[0] for row in rows] == ["nan", "0.5", "2", "a", "b", "–"]


def test_summaries_are_sorted_by_what_they_say():
    values = [{"mean": -0.45, "low": -0.5}, {"mean": -0.12, "low": -0.6}, 0.1, {"median": 0.05}]
    rows = table([{"x": v, "i": str(i)} for i, v in enumerate(values)], {"i": "i"}, sort_by="x")
    assert [row[0] for row in rows.rows] == ["0", "1", "3", "2"]


def test_markdown():
    assert to_markdown(table(RESULTS, COLUMNS)) == (
        "| Guidance | SRCC | s |\n"
        "| --- | ---: | ---: |\n"
        "| pmg | 0.900 | 1200 |\n"
        "| none | 0.850 | 10.0 |\n"
        "| a_b\\|c | – | 99.0 |\n"
        "\n"
        f"- {RANDOM}\n"
        "- two seeds\n"
    )


def test_csv_round_trips():
    lines = to_csv(table(RESULTS, {'a "b", c': "config.guidance.name"})).splitlines()
    assert lines[-2:] == [f"# {RANDOM}", "# two seeds"]
    assert list(csv.reader(lines[:-2])) == [['a "b", c'], ["pmg"], ["none"], ["a_b|c"]]


def test_latex():
    rows = table([result("50% & a_b", None, 1.0, r"x^2 {\#} ~ <1>")], COLUMNS)
    assert to_latex(rows) == (
        "\\begin{tabular}{lrr}\n\\toprule\n"
        "Guidance & SRCC & s \\\\\n\\midrule\n"
        "50\\% \\& a\\_b & -- & 1.0 \\\\\n"
        "\\bottomrule\n\\end{tabular}\n"
        "\\par{\\footnotesize x\\textasciicircum{}2 \\{\\textbackslash{}\\#\\}"
        " \\textasciitilde{} \\textless{}1\\textgreater{}}\n"
    )


@pytest.mark.parametrize("write", [to_markdown, to_csv, to_latex])
def test_notes_of_absent_results_are_not_printed(write):
    text = write(table(RESULTS[1:], COLUMNS))
    assert text.count(RANDOM) == 1
    assert "two seeds" not in text


@pytest.mark.parametrize("write", [to_markdown, to_csv, to_latex])
def test_a_table_without_results_has_its_header(write):
    assert "Guidance" in write(table([], COLUMNS))
