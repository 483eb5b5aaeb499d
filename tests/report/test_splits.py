from __future__ import annotations

import numpy as np
import pytest

from latentiqa.errors import DataError
from latentiqa.metrics.comparison import bootstrap_interval
from latentiqa.report.splits import over_splits


def result(split, srcc, head="ridge", root="/a", **changes):
    config = {"split": split, "head": head, "dataset": {"root": root}, "paths": {"runs": root}}
    told = {"kind": "train", "name": "lgdm", "dataset_fingerprint": "f", "store_key": "s"}
    figures = {"metrics": {"test": {"srcc": srcc, "n": 400, "fit_ok": True}}, "seconds": 3.0}
    return {"split_hash": f"h{split}", "config": config, **told, **figures, **changes}


def test_runs_of_one_recipe_are_joined_whatever_their_folder():
    values = [0.80, 0.84, 0.79, 0.82]
    runs = [result(i, value, root=f"/{i}") for i, value in enumerate(values)]
    runs.insert(2, result(0, 0.7, head="mlp"))
    first, second = over_splits(runs)
    assert (first["splits"], second["splits"]) == (4, 1)
    srcc = first["metrics"]["test"]["srcc"]
    assert srcc["median"] == pytest.approx(0.81)
    assert srcc["mean"] == pytest.approx(np.mean(values))
    assert srcc["std"] == pytest.approx(np.std(values, ddof=1))
    assert (srcc["low"], srcc["high"]) == bootstrap_interval(values)
    assert srcc["values"] == values
    assert first["metrics"]["test"]["fit_ok"] is True
    assert second["metrics"]["test"]["srcc"] == 0.7


@pytest.mark.parametrize(
    "other", [{"dataset_fingerprint": "g"}, {"store_key": "t"}, {"kind": "evaluate"}]
)
def test_other_features_and_datasets_are_other_recipes(other):
    assert len(over_splits([result(0, 0.8), result(1, 0.8, **other)])) == 2


def test_the_official_split_is_none_of_the_random_ones():
    assert len(over_splits([result(0, 0.8), result("official", 0.8)])) == 2


def test_a_split_that_comes_twice_is_refused():
    with pytest.raises(DataError, match="lgdm: one split comes twice"):
        over_splits([result(0, 0.8), result(0, 0.81)])


def test_undefined_figures_have_no_summary():
    [joined] = over_splits([result(0, 0.8), result(1, None)])
    assert joined["metrics"]["test"]["srcc"] is None
