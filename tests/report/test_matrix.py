from __future__ import annotations

import numpy as np
import pytest
from finished_runs import change, write_evaluation, write_run

from latentiqa.errors import ConfigError, DataError
from latentiqa.report.finished import load_results
from latentiqa.report.matrix import matrix

SETS = {"koniq10k": "authentic", "kadid10k": "synthetic", "tid2013": "synthetic"}


def rows_of(*folders, **options) -> list[dict[str, str]]:
    found = matrix(load_results(folders), **options)
    return [dict(zip(found.header, row, strict=True)) for row in found.rows]


def write_cross(folder, splits=(0,), pictures=40):
    """Trained on each of the datasets, evaluated on the others; returns SRCC by both."""
    values = {}
    for i, (source, kind) in enumerate(SETS.items()):
        for split in splits:
            run = write_run(folder, dataset=source, kind=kind, split=split, srcc=0.9 - 0.01 * split)
            values[source, source] = 0.9, pictures
            for j, (target, other) in enumerate(SETS.items()):
                if target != source:
                    srcc, n = 0.1 * (i + 1) + 0.02 * j + 0.01 * split, 100 * (j + 1)
                    write_evaluation(run, target, other, srcc=srcc, n=n)
                    values[source, target] = srcc - 0.01 * split, n
    return values


def test_the_matrix_of_runs_and_datasets(tmp_path):
    values = write_cross(tmp_path)
    rows = rows_of(tmp_path)
    assert sorted(row["Trained on"] for row in rows) == sorted(SETS)
    for row in rows:
        source = row["Trained on"]
        assert row["Run"] == f"lgdm dataset={source}"
        for target in SETS:
            mark = "*" if target == source else ""
            assert row[target] == f"{values[source, target][0]:.3f}{mark}"
        figures, weights = zip(*(values[source, t] for t in ("kadid10k", "tid2013")), strict=True)
        assert float(row["all synthetic"]) == pytest.approx(
            np.average(figures, weights=weights), abs=6e-4
        )
        assert row["all authentic"] == f"{values[source, 'koniq10k'][0]:.3f}"


def test_what_was_not_trained_was_trained_on_nothing(tmp_path):
    run = write_run(tmp_path, srcc=0.4)
    change(run, zero_shot=True)
    change(write_evaluation(run, "tid2013", "synthetic", srcc=0.3), zero_shot=True)
    (row,) = rows_of(tmp_path)
    assert row["Trained on"] == "–"
    assert (row["koniq10k"], row["tid2013"]) == ("0.400", "0.300")


def test_columns_stand_by_kind_and_notes_tell_what_was_averaged(tmp_path):
    write_cross(tmp_path)
    found = matrix(load_results([tmp_path]))
    columns = found.header[2:]
    assert set(columns[:2]) == {"kadid10k", "tid2013"}
    assert columns[2:] == ["koniq10k", "all synthetic", "all authentic"]
    assert found.numeric == [False] * 2 + [True] * 5
    text = "\n".join(found.notes)
    assert "all synthetic: mean of the row's figures on " in text
    assert "weighted by the number of pictures" in text
    assert "koniq10k: a caveat" in text


def test_over_several_splits_cells_are_medians(tmp_path):
    values = write_cross(tmp_path, splits=(0, 1, 4))
    for row in rows_of(tmp_path):
        assert row["Splits"] == "3"
        for target in SETS:
            first = values[row["Trained on"], target][0]
            expected = first - 0.01 if target == row["Trained on"] else first + 0.01
            assert float(row[target].rstrip("*")) == pytest.approx(expected, abs=6e-4)


def test_a_mean_without_one_of_its_datasets_is_absent(tmp_path):
    full, lacking = (write_run(tmp_path, name=name) for name in ("full", "lacking"))
    for run, sets in ((full, ("kadid10k", "tid2013")), (lacking, ("kadid10k",))):
        for dataset in sets:
            write_evaluation(run, dataset, srcc=0.5)
    rows = {row["Run"]: row for row in rows_of(tmp_path)}
    assert rows["full"]["all synthetic"] == "0.500"
    assert rows["lacking"]["tid2013"] == rows["lacking"]["all synthetic"] == "–"
    assert rows["lacking"]["kadid10k"] == "0.500"


def test_an_undefined_figure_has_no_median_and_no_mean(tmp_path):
    for split, srcc in enumerate((0.5, None)):
        write_evaluation(write_run(tmp_path, split=split), srcc=srcc)
    [row] = rows_of(tmp_path)
    assert row["kadid10k"] == row["all synthetic"] == "–"


def test_datasets_without_a_kind_are_in_no_mean_unless_the_user_says_one(tmp_path):
    write_evaluation(write_run(tmp_path), "mine", kind=None, srcc=0.25)
    found = matrix(load_results([tmp_path]))
    assert found.header[2:] == ["koniq10k", "mine", "all authentic"]
    assert "in no such mean, as their results do not say a kind: mine" in found.notes
    [row] = rows_of(tmp_path, kinds={"mine": "generated"})
    assert row["all generated"] == "0.250"
    for kinds in ({"mine": "odd"}, {"other": "generated"}):
        with pytest.raises(ConfigError, match=r"kinds\.\w+=\w+: expected one of koniq10k, mine"):
            matrix(load_results([tmp_path]), kinds=kinds)


def test_two_datasets_of_one_name_are_two_columns(tmp_path):
    _, second = (write_evaluation(write_run(tmp_path, name=name)) for name in "ab")
    change(second, dataset_fingerprint="0123456789")
    assert "kadid10k 012345" in rows_of(tmp_path)[0]


def test_two_results_of_one_cell_are_refused(tmp_path):
    run = write_run(tmp_path)
    for part in ("all", "test"):
        write_evaluation(run, part=part)
    with pytest.raises(DataError, match=r"kadid10k-all.*kadid10k-test.*\(parts all and test\)"):
        matrix(load_results([tmp_path]))


def test_another_figure(tmp_path):
    write_run(tmp_path, rmse=0.125)
    assert rows_of(tmp_path, metric="rmse")[0]["koniq10k"] == "0.125*"
    with pytest.raises(DataError, match="no figure scrc; it has srcc"):
        rows_of(tmp_path, metric="scrc")
