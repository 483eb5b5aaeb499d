from __future__ import annotations

import numpy as np
import pytest
from finished_runs import write_run
from scipy import stats

from latentiqa.errors import ConfigError, DataError
from latentiqa.report.breakdown import breakdown, by_group, quality_ranges
from latentiqa.report.finished import load_results

KINDS = ["blur", "jpeg", "noise"] * 13 + ["rare"]
LEVELS = [str(1 + 9 * (i % 2)) for i in range(40)]


def rows_of(*folders, **options) -> list[dict[str, str]]:
    found = breakdown(load_results(folders), **options)
    return [dict(zip(found.header, row, strict=True)) for row in found.rows]


def expected(pred, target) -> list[float]:
    rmse = np.sqrt(np.mean((pred - target) ** 2))
    return [stats.spearmanr(pred, target)[0], stats.pearsonr(pred, target)[0], rmse]


def test_figures_of_each_distortion_are_scipys(tmp_path):
    folder = write_run(tmp_path, attributes={"distortion": KINDS})
    rows = {row["Group"]: row for row in rows_of(folder, by=["distortion"])}
    kinds = ("blur", "jpeg", "noise", "rare")
    assert list(rows) == ["all", *(f"distortion {kind}" for kind in kinds)]
    found = load_results([folder])[0].predictions
    for group, row in rows.items():
        chosen = np.array([group in ("all", f"distortion {kind}") for kind in KINDS])
        assert row["n"] == str(chosen.sum())
        cells = [row[metric] for metric in ("SRCC", "PLCC", "RMSE")]
        if group == "distortion rare":  # of one picture
            assert cells == ["–"] * 3
        else:
            values = expected(found.pred[chosen], found.target[chosen])
            assert [float(cell) for cell in cells] == pytest.approx(values, abs=6e-4)


@pytest.mark.parametrize("ranges", [2, 3, 4])
def test_ranges_of_quality_are_cut_at_quantiles(tmp_path, ranges):
    folder = write_run(tmp_path, pictures=60)
    rows = rows_of(folder, by=["quality"], ranges=ranges)
    assert [row["Group"] for row in rows[1:]] == [
        f"quality {n + 1} of {ranges}" for n in range(ranges)
    ]
    found = load_results([folder])[0].predictions
    ranks = stats.rankdata(found.target) - 1
    for n, row in enumerate(rows[1:]):
        chosen = ranks // (60 / ranges) == n
        assert row["n"] == str(60 // ranges)
        values = expected(found.pred[chosen], found.target[chosen])
        assert [float(row[m]) for m in ("SRCC", "PLCC")] == pytest.approx(values[:2], abs=6e-4)


def test_pictures_of_one_score_are_in_one_range():
    found = quality_ranges(np.array([0.5, 0.5, 0.5, 0.5, 0.9, 0.1]), 3)
    assert found.tolist() == [0, 0, 0, 0, 2, 0]


def test_constant_groups_have_no_correlation_but_an_error(tmp_path):
    folder = write_run(tmp_path, pictures=6, attributes={"level": list("111222")})
    text = (folder / "predictions.csv").read_text().splitlines()
    same = [",".join([*line.split(",")[:4], "0.5", "1"]) for line in text[1:4]]
    (folder / "predictions.csv").write_text("\n".join([text[0], *same, *text[4:]]) + "\n")
    _, first, second = rows_of(folder, by=["level"])
    assert first["SRCC"] == first["PLCC"] == "–"
    assert float(first["RMSE"]) > 0
    assert "–" not in second.values()


def test_groups_are_ordered_by_value_and_may_lack_one(tmp_path):
    levels = ["", *LEVELS[1:]]
    levels[3:6] = ["2", "2", "2"]
    folder = write_run(tmp_path, attributes={"level": levels})
    found = by_group(load_results([folder])[0].predictions, ["level"])
    assert list(found) == ["all", "level 1", "level 2", "level 10", "level –"]


def test_over_several_splits_figures_are_medians(tmp_path):
    attributes = {"distortion": KINDS}
    folders = [write_run(tmp_path, split=s, seed=s, attributes=attributes) for s in range(3)]
    single = [{r["Group"]: r for r in rows_of(f, by=["distortion"])} for f in folders]
    joined = {row["Group"]: row for row in rows_of(*folders, by=["distortion"])}
    assert joined.keys() == single[0].keys()
    for group, row in joined.items():
        assert row["Splits"] == "3"
        values = [rows[group]["SRCC"] for rows in single]
        median = "–" if "–" in values else sorted(values, key=float)[1]
        assert row["SRCC"] == median
        assert row["n"] == single[0][group]["n"]


def test_a_group_that_a_split_lacks_is_absent(tmp_path):
    for split, kind in enumerate(("blur", "jpeg")):
        write_run(tmp_path, split=split, attributes={"distortion": [kind] * 40})
    rows = {row["Group"]: row for row in rows_of(tmp_path, by=["distortion"])}
    assert rows["distortion blur"]["SRCC"] == rows["distortion jpeg"]["SRCC"] == "–"
    assert rows["all"]["SRCC"] != "–"


def test_a_file_without_the_column_is_named_with_the_way_out(tmp_path):
    folder = write_run(tmp_path, attributes={"level": LEVELS})
    told = r"predictions\.csv: no column distortion; by= can be level, quality.*force=true"
    with pytest.raises(DataError, match=told):
        rows_of(folder)
    (folder / "predictions.csv").unlink()
    with pytest.raises(DataError, match=r"predictions\.csv: no such file"):
        rows_of(folder, by=["quality"])


@pytest.mark.parametrize("options", [{"by": []}, {"by": ["quality"], "ranges": 1}])
def test_wrong_values(tmp_path, options):
    with pytest.raises(ConfigError, match="expected"):
        rows_of(write_run(tmp_path), **options)
