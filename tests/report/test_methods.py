from __future__ import annotations

import pytest
from finished_runs import change, write_evaluation, write_run

from latentiqa.errors import DataError
from latentiqa.report.finished import load_results
from latentiqa.report.methods import figure, labels, method_of, with_figures
from latentiqa.report.splits import over_splits


def named(*runs) -> list[str]:
    return list(labels(run.result for run in load_results(runs)).values())


def test_a_run_of_another_split_and_its_evaluations_are_one_method(tmp_path):
    runs = [write_run(tmp_path, split=split) for split in (0, 1)]
    for run in runs:
        write_evaluation(run)
    assert len({method_of(run.result) for run in load_results([tmp_path])}) == 1


@pytest.mark.parametrize("method", ["dpiqa", "genziqa"])
def test_weights_of_a_trained_rater_are_no_other_method(tmp_path, method):
    """Its store is named by them, and every split has its own."""
    runs = [write_run(tmp_path, split=split) for split in (0, 1)]
    for i, run in enumerate(runs):
        change(run, config={"method": {"name": method}}, store_key=str(i), backbone="tiny@1")
    assert len({method_of(run.result) for run in load_results([tmp_path])}) == 1
    change(runs[1], backbone="tiny@2")
    assert len({method_of(run.result) for run in load_results([tmp_path])}) == 2


@pytest.mark.parametrize(
    "other", [{"dataset": "spaq"}, {"split": "official"}, {"name": "nss"}, {"choices": {"x": "y"}}]
)
def test_another_recipe_or_training_data_is_another_method(tmp_path, other):
    runs = [write_run(tmp_path), write_run(tmp_path, **other)]
    first, second = (method_of(run.result) for run in load_results(runs))
    assert first != second


def test_methods_are_told_apart_by_what_differs(tmp_path):
    pmg = write_run(tmp_path, choices={"guidance": "pmg"})
    none = write_run(tmp_path, choices={"guidance": "none"})
    assert named(pmg, none) == ["lgdm guidance=pmg", "lgdm guidance=none"]
    assert named(pmg, write_run(tmp_path, name="nss")) == ["lgdm", "nss"]
    for run, zeta in ((pmg, 0.5), (none, 1.0)):
        change(run, config={"guidance": {"zeta": zeta, "steps": 2}, "paths": {"runs": str(run)}})
    assert named(pmg, none) == ["lgdm guidance.zeta=0.5", "lgdm guidance.zeta=1.0"]
    for run in (pmg, none):
        change(run, config={}, signature=run.name[:4])
    change(none, store_key="other")
    assert named(pmg, none) == [f"lgdm signature={run.name[:4]}" for run in (pmg, none)]


def test_a_runs_own_test_part_counts_once(tmp_path):
    run = write_run(tmp_path)
    own = write_evaluation(run, dataset="koniq10k", part="test")
    assert len(with_figures(load_results([tmp_path]))) == 1
    assert len(with_figures(load_results([own]))) == 1
    write_evaluation(run, dataset="koniq10k", part="val")
    assert len(with_figures(load_results([tmp_path]))) == 2


def test_results_of_other_verbs_are_left_out(tmp_path):
    run = write_run(tmp_path)
    change(run, metrics={"val": {"denoising": 0.1}}, kind="pretrain")
    with pytest.raises(DataError, match="none of the results has figures of a test part"):
        with_figures(load_results([tmp_path]))


def test_an_evaluation_that_does_not_say_its_training_data_is_named(tmp_path):
    folder = write_evaluation(write_run(tmp_path))
    change(folder, trained_fingerprint=...)
    with pytest.raises(DataError, match=r"results\.json: does not say its trained_fingerprint"):
        with_figures(load_results([tmp_path]))


def test_figures(tmp_path):
    [run] = load_results([write_run(tmp_path, srcc=0.5, plcc=None)])
    assert figure(run, "srcc") == 0.5
    assert figure(run, "plcc") is None
    for key in ("scrc", "fit_ok"):
        with pytest.raises(DataError, match=rf"results\.json: no figure {key}; it has srcc, krcc"):
            figure(run, key)


def test_evaluations_are_joined_over_the_splits_of_their_runs(tmp_path):
    for split, srcc in enumerate((0.5, 0.6, 0.8)):
        write_evaluation(write_run(tmp_path, split=split), srcc=srcc)
    results = [run.result for run in load_results([tmp_path])]
    joined = {result["dataset"]: result for result in over_splits(results)}
    assert {name: result["splits"] for name, result in joined.items()} == {
        "koniq10k": 3,
        "kadid10k": 3,
    }
    assert joined["kadid10k"]["metrics"]["test"]["srcc"]["median"] == 0.6
