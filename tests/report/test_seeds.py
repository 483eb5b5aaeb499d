"""Runs that differ in the noise's seed as one result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from finished_runs import change, write_run
from scipy import stats

from latentiqa.errors import DataError
from latentiqa.metrics.comparison import bootstrap_correlation, bootstrap_difference
from latentiqa.report.finished import load_results
from latentiqa.report.seeds import over_seeds


def runs_of_seeds(folder: Path, name: str, n: int = 3, **more) -> list[Path]:
    """Runs whose predictions differ, as those of other noise do."""
    runs = []
    for seed in range(n):
        run = write_run(folder / name / str(seed), name, seed=seed, noise=0.2, **more)
        config = load_results([run])[0].result["config"]
        views = {"size": 64, "seed": seed}
        own = {"seed": seed, "views": views, "augment": {"size": 64, "seed": seed}}
        change(run, config={**config, **own}, store_key=f"{name}-{seed}")
        runs.append(run)
    return runs


def test_seeds_are_joined_and_what_they_move_is_measured(tmp_path):
    runs = runs_of_seeds(tmp_path, "pmg")
    alone = write_run(tmp_path / "alone", "alone")
    joined, single = over_seeds(load_results([*runs, alone]))
    found = [run.predictions for run in load_results(runs)]
    scores, target = np.stack([p.pred for p in found]), found[0].target

    assert joined["seeds"]["n"] == 3
    each = [stats.spearmanr(pred, target).statistic for pred in scores]
    test = joined["metrics"]["test"]
    assert test["srcc"]["mean"] == pytest.approx(np.mean(each))
    assert test["srcc"]["std"] == pytest.approx(np.std(each, ddof=1))
    interval = test["srcc"]["low"], test["srcc"]["high"]
    assert interval == bootstrap_correlation(target, *scores)
    interval = test["plcc"]["low"], test["plcc"]["high"]
    assert interval == bootstrap_correlation(target, *scores, ranks=False)
    assert test["rmse"] == pytest.approx(np.sqrt(((scores - target) ** 2).mean(1)).mean())
    assert (test["n"], joined["metrics"]["val"]["srcc"]) == (40, 0.5)
    moved = np.sqrt(np.mean([np.var(column, ddof=1) for column in scores.T]))
    assert joined["seeds"]["spread"] == pytest.approx(moved / scores.mean(0).std(ddof=1))
    pairs = [stats.spearmanr(scores[i], scores[j]).statistic for i, j in ((0, 1), (0, 2), (1, 2))]
    assert joined["seeds"]["srcc"] == pytest.approx(np.mean(pairs))

    assert single["seeds"] == {"n": 1, "spread": None, "srcc": None}
    assert single["metrics"]["test"]["srcc"]["std"] is None
    assert single["metrics"]["test"]["srcc"]["low"] < single["metrics"]["test"]["srcc"]["mean"]


def test_noise_that_changes_nothing_moves_nothing(tmp_path):
    runs = [write_run(tmp_path / str(seed), seed=7) for seed in range(2)]
    for seed, run in enumerate(runs):
        change(run, config={**load_results([run])[0].result["config"], "seed": seed})
    [joined] = over_seeds(load_results(runs))
    assert joined["seeds"] == {"n": 2, "spread": 0.0, "srcc": pytest.approx(1.0)}


def test_another_split_or_method_is_another_result(tmp_path):
    runs = [*runs_of_seeds(tmp_path, "pmg", 2), *runs_of_seeds(tmp_path, "none", 2)]
    other = write_run(tmp_path / "other", "pmg", split=1)
    assert [r["seeds"]["n"] for r in over_seeds(load_results([*runs, other]))] == [2, 2, 1]


def test_one_seed_twice_is_refused(tmp_path):
    first, second = runs_of_seeds(tmp_path, "pmg", 2)
    change(second, config=load_results([first])[0].result["config"])
    with pytest.raises(DataError, match="one seed comes twice"):
        over_seeds(load_results([first, second]))


def test_a_recipe_is_compared_with_another_seed_by_seed(tmp_path):
    own, base = runs_of_seeds(tmp_path, "pmg", 3), runs_of_seeds(tmp_path, "none", 2)
    elsewhere = write_run(tmp_path / "elsewhere", "pmg", pictures=30)
    found = load_results([*own, *base, elsewhere])
    pmg, none, other = over_seeds(found, against="none")
    target, scores = found[0].predictions.target, [run.predictions.pred for run in found]
    each = [
        stats.spearmanr(scores[i], target).statistic - stats.spearmanr(scores[j], target).statistic
        for i, j in ((0, 3), (1, 4))
    ]
    assert pmg["seeds"]["differences"] == pytest.approx(each)
    assert pmg["seeds"]["difference"]["mean"] == pytest.approx(np.mean(each))
    interval = pmg["seeds"]["difference"]["low"], pmg["seeds"]["difference"]["high"]
    assert interval == bootstrap_difference(target, scores[:2], scores[3:5])
    for alone in (none, other):  # the base itself; other pictures
        assert alone["seeds"]["difference"] is alone["seeds"]["differences"] is None


@pytest.mark.parametrize("way", ["no seed", "no noise"])
def test_what_no_seed_changes_is_compared_with_each(tmp_path, way):
    latents, base = write_run(tmp_path / "latents", "latents"), runs_of_seeds(tmp_path, "none", 2)
    config = load_results([latents])[0].result["config"]
    if way == "no seed":
        change(latents, config={key: value for key, value in config.items() if key != "seed"})
    else:
        change(latents, config={**config, "seed": 0, "timesteps": {"noised": False}})
    found = load_results([latents, *base])
    joined, _ = over_seeds(found, against="none")
    own, *others = [run.predictions.pred for run in found]
    target = found[0].predictions.target
    each = [
        stats.spearmanr(own, target).statistic - stats.spearmanr(other, target).statistic
        for other in others
    ]
    assert joined["seeds"]["differences"] == pytest.approx(each)
    interval = joined["seeds"]["difference"]["low"], joined["seeds"]["difference"]["high"]
    assert interval == pytest.approx(bootstrap_difference(target, [own, own], others))


def test_intervals_draw_what_belongs_together(tmp_path):
    labels = [f"{i % 7}.png" for i in range(40)]
    own, base = (
        runs_of_seeds(tmp_path, name, 2, attributes={"original": labels})
        for name in ("pmg", "none")
    )
    found = load_results([*own, *base])
    first, scores = found[0].predictions, [run.predictions.pred for run in found]
    pmg, _ = over_seeds(found, against="none", clusters="original")
    test, difference = pmg["metrics"]["test"]["srcc"], pmg["seeds"]["difference"]
    expected = bootstrap_correlation(first.target, *scores[:2], clusters=labels)
    assert (test["low"], test["high"]) == expected
    expected = bootstrap_difference(first.target, scores[:2], scores[2:], clusters=labels)
    assert (difference["low"], difference["high"]) == expected
    with pytest.raises(DataError, match="no column 'kind'; clusters takes null or one of"):
        over_seeds(found, clusters="kind")


def test_what_to_compare_with_has_to_be_there_once(tmp_path):
    runs = runs_of_seeds(tmp_path, "pmg", 2)
    with pytest.raises(DataError, match="against=none: no result is of this name; there are pmg"):
        over_seeds(load_results(runs), against="none")
    twins = [write_run(tmp_path / str(size), "none") for size in (1, 2)]
    for size, run in enumerate(twins):
        config = load_results([run])[0].result["config"]
        change(run, config={**config, "views": {"size": size}}, signature=f"{size}" * 12)
    with pytest.raises(DataError, match="two recipes of the name to compare with"):
        over_seeds(load_results([*runs, *twins]), against="none")
