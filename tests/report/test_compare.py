from __future__ import annotations

import json

import numpy as np
import pytest
from finished_runs import change, write_evaluation, write_run
from scipy import stats

from latentiqa.errors import ConfigError, DataError
from latentiqa.metrics.comparison import bootstrap_difference, corrected_t, steiger, williams
from latentiqa.report.compare import compare
from latentiqa.report.finished import load_results

FIRST = (0.80, 0.84, 0.79, 0.82, 0.86)
SECOND = (0.78, 0.83, 0.80, 0.78, 0.80)


def rows_of(*folders, **options) -> dict[str, dict[str, str]]:
    found = compare(load_results(folders), **options)
    return {row[1]: dict(zip(found.header, row, strict=True)) for row in found.rows}


def write_two(folder, first=FIRST, second=SECOND):
    """Two methods with these SRCC on the splits 0, 1, ..."""
    for name, values in (("a", first), ("b", second)):
        for split, srcc in enumerate(values):
            if srcc is not ...:
                write_run(folder / name, name=name, split=split, srcc=srcc)
    return folder / "a", folder / "b"


def test_over_splits(tmp_path):
    rows = rows_of(*write_two(tmp_path))
    assert list(rows) == ["corrected t", "Wilcoxon"]
    t, signed = rows.values()
    expected = corrected_t(FIRST, SECOND, test_share=0.2)
    assert float(t["Statistic"]) == pytest.approx(expected.statistic, abs=6e-4)
    assert t["p"] == f"{expected.p:.2g}"
    assert (t["a"], t["b"], t["Difference"]) == ("0.8220", "0.7980", "+0.0240")
    assert t["n"] == "5 splits"
    assert signed["p"] == f"{stats.wilcoxon(FIRST, SECOND).pvalue:.2g}"
    assert (signed["a"], signed["Difference"]) == ("0.8200", "+0.0200")


def test_only_splits_that_both_have_are_compared(tmp_path):
    a, b = write_two(tmp_path, (*FIRST, 0.1), (..., *SECOND[1:]))
    found = compare(load_results([a, b]))
    assert {row[-1] for row in found.rows} == {"4 splits"}
    assert any("a alone has 2 splits " in note and "left out" in note for note in found.notes)
    expected = corrected_t(FIRST[1:], SECOND[1:])
    assert float(found.rows[0][6]) == pytest.approx(expected.statistic, abs=6e-4)


@pytest.mark.parametrize("metric", ["srcc", "plcc"])
def test_on_one_split(tmp_path, metric):
    a = write_run(tmp_path, name="a", noise=0.2)
    b = write_run(tmp_path, name="b", noise=0.4, seed=1)
    # The order of the rows is not that of the other file.
    path = b / "predictions.csv"
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([header, *reversed(lines)]) + "\n")
    rows = rows_of(a, b, metric=metric)
    assert list(rows) == ["Williams", "Steiger", "bootstrap"]
    one, other = (run.predictions for run in load_results([a, b]))
    scores = one.target, one.pred, other.pred[::-1]
    r = stats.spearmanr if metric == "srcc" else stats.pearsonr
    first, second = r(scores[0], scores[1])[0], r(scores[0], scores[2])[0]
    for test, function in (("Williams", williams), ("Steiger", steiger)):
        expected = function(*scores, ranks=metric == "srcc")
        assert float(rows[test]["Statistic"]) == pytest.approx(expected.statistic, abs=6e-4)
        assert rows[test]["p"] == f"{expected.p:.2g}"
    for row in rows.values():
        assert float(row["a"]) == pytest.approx(first, abs=6e-5)
        assert float(row["Difference"]) == pytest.approx(first - second, abs=6e-5)
        assert row["n"] == "40 pictures"
    interval = bootstrap_difference(*scores, ranks=metric == "srcc")
    assert rows["bootstrap"]["95 % interval"] == f"[{interval.low:+.4f}, {interval.high:+.4f}]"
    assert rows["bootstrap"]["p"] == rows["Williams"]["95 % interval"] == "–"


def test_a_sentence_says_each_test_and_its_null(tmp_path):
    over = compare(load_results(write_two(tmp_path / "over"))).notes
    one = [write_run(tmp_path, name=name) for name in "ab"]
    for notes, tests in (
        (over, ("corrected t", "Wilcoxon")),
        (compare(load_results(one)).notes, ("Williams", "Steiger")),
    ):
        for test in tests:
            [sentence] = [note for note in notes if note.startswith(f"{test}: ")]
            assert "null" in sentence


def test_the_same_predictions_do_not_differ(tmp_path):
    rows = rows_of(*(write_run(tmp_path, name=name) for name in "ab"))
    assert rows["Williams"]["p"] == rows["Steiger"]["p"] == "1"
    assert rows["bootstrap"]["95 % interval"] == "[+0.0000, +0.0000]"


def test_each_dataset_that_both_were_tested_on(tmp_path):
    a, b = (write_run(tmp_path, name=name, seed=ord(name)) for name in "ab")
    for run in (a, b):
        write_evaluation(run, seed=len(run.name))
    write_evaluation(a, "spaq")
    found = compare(load_results([a, b]))
    assert list(dict.fromkeys(row[0] for row in found.rows)) == ["kadid10k", "koniq10k"]
    assert any("one method alone was tested on it: spaq" in note for note in found.notes)
    assert any("not corrected for their number" in note for note in found.notes)


def test_evaluations_of_runs_that_were_trained_on_several_splits(tmp_path):
    for name in "ab":
        for split in range(3):
            run = write_run(tmp_path, name=name, split=split, srcc=0.5)
            write_evaluation(run, seed=split + ord(name))
    found = compare(load_results([tmp_path]))
    assert [(row[0], row[-1]) for row in found.rows] == [
        (data, "3 splits") for data in ("kadid10k", "koniq10k") for _ in range(2)
    ]
    assert any(note.startswith("kadid10k: what differs between the splits") for note in found.notes)
    assert not any(note.startswith("koniq10k: what differs") for note in found.notes)


def test_other_pictures_are_refused_and_named(tmp_path):
    a, b = write_run(tmp_path, name="a", split=0), write_run(tmp_path, name="b", split=1)
    told = r"a alone has 40 pictures 0-0\.png.* and 35 more; b alone has 40 pictures 1-0\.png"
    with pytest.raises(DataError, match=told):
        compare(load_results([a, b]))


def test_one_picture_less_is_refused_and_named(tmp_path):
    a, b = (write_run(tmp_path, name=name) for name in "ab")
    path = b / "predictions.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(DataError, match=r"other pictures: a alone has picture 0-39\.png; on one"):
        compare(load_results([a, b]))


def test_other_scores_of_the_same_pictures_are_refused(tmp_path):
    a, b = (write_run(tmp_path, name=name) for name in "ab")
    path = b / "predictions.csv"
    header, *lines = path.read_text().splitlines()
    cells = [line.split(",") for line in lines]
    turned = [",".join([*c[:3], str(1 - float(c[3])), c[4]]) for c in cells]
    path.write_text("\n".join([header, *turned]) + "\n")
    with pytest.raises(DataError, match="of the same names have other targets"):
        compare(load_results([a, b]))


def test_splits_of_other_pictures_are_refused(tmp_path):
    a, b = write_two(tmp_path)
    results = next(b.rglob("results.json"))
    test = json.loads(results.read_text())["metrics"]["test"]
    change(results.parent, metrics={"test": {**test, "n": 39}})
    with pytest.raises(DataError, match=r"a has 40 pictures of the split \w+ .*b has 39 pictures"):
        compare(load_results([a, b]))


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ((..., ..., ..., 0.7, 0.8), r"0 splits in common \(a alone has 3 splits"),
        ((..., ..., 0.7, 0.8), r"1 splits in common"),
    ],
)
def test_too_few_common_splits_are_refused(tmp_path, second, told):
    with pytest.raises(DataError, match=told):
        compare(load_results(write_two(tmp_path, FIRST[:3], second)))


def test_an_undefined_figure_is_named(tmp_path):
    with pytest.raises(DataError, match=r"b/.*results\.json: srcc is undefined there"):
        compare(load_results(write_two(tmp_path, second=(*SECOND[:4], None))))


def test_not_two_methods(tmp_path):
    folders = [write_run(tmp_path, name=name) for name in "abc"]
    for count in (1, 3):
        with pytest.raises(DataError, match=rf"results of {count} methods: a"):
            compare(load_results(folders[:count]))


def test_no_dataset_in_common(tmp_path):
    folders = [write_run(tmp_path, name=n, dataset=d) for n, d in (("a", "spaq"), ("b", "bid"))]
    with pytest.raises(DataError, match=r"no dataset that both .*a: spaq \(test, \w{6}\); b: bid"):
        compare(load_results(folders))


def test_faults_of_files_are_told(tmp_path):
    a, b = (write_run(tmp_path, name=name) for name in "ab")
    with pytest.raises(ConfigError, match=r"metric=rmse: on one split .* srcc or plcc"):
        compare(load_results([a, b]), metric="rmse")
    (b / "predictions.csv").unlink()
    with pytest.raises(DataError, match=r"predictions\.csv: no such file"):
        compare(load_results([a, b]))


def test_constant_predictions_are_told_with_their_file(tmp_path):
    a, b = write_run(tmp_path, name="a"), write_run(tmp_path, name="b", noise=0.0)
    path = a / "predictions.csv"
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([header, *(f"{line.rpartition(',')[0]},0.5" for line in lines)]))
    with pytest.raises(DataError, match=r"predictions\.csv: scores are constant"):
        compare(load_results([a, b]))


def test_the_share_of_the_test_part_is_that_of_the_run(tmp_path):
    a, b = write_two(tmp_path)
    for results in a.rglob("results.json"):
        change(results.parent, n={"train": 50, "val": 10, "test": 40})
    row = rows_of(a, b)["corrected t"]
    expected = corrected_t(FIRST, SECOND, test_share=0.4)
    assert float(row["Statistic"]) == pytest.approx(expected.statistic, abs=6e-4)
    assert np.isfinite(float(row["p"]))
