from __future__ import annotations

import json

import pytest

from latentiqa.errors import DataError
from latentiqa.runs import (
    NOT_IN_SIGNATURE,
    environment,
    peak_memory_mb,
    read_json,
    signature,
    write_json,
    write_predictions,
)

CONFIG = {
    "name": "a", "seed": 0, "guidance": {"route": "latent"}, "perceptual": {"x": 1},
    "trainer": {"devices": 1}, "paths": {"runs": "runs"}, "dataset": {"root": "/x"},
    "data": {"batch_size": 8, "on_error": "stop"},
}  # fmt: skip


def changed(key: str, value) -> dict:
    config = json.loads(json.dumps(CONFIG))
    *parents, last = key.split(".")
    node = config
    for parent in parents:
        node = node[parent]
    node[last] = value
    return config


@pytest.mark.parametrize("key", ["name", "trainer.devices", "paths.runs", "dataset.root",
                                 "data.batch_size", "perceptual.x"])  # fmt: skip
def test_what_does_not_change_numbers_is_not_in_the_signature(key):
    assert signature(changed(key, "other"), dataset="d") == signature(CONFIG, dataset="d")
    assert key.split(".")[0] in {entry.split(".")[0] for entry in NOT_IN_SIGNATURE}


@pytest.mark.parametrize("key", ["seed", "guidance.route", "data.on_error"])
def test_what_changes_numbers_is(key):
    assert signature(changed(key, "other"), dataset="d") != signature(CONFIG, dataset="d")


def test_the_dataset_and_the_split_are():
    assert len({signature(CONFIG, dataset=d, split=s) for d in "ab" for s in "ab"}) == 4


def test_the_config_is_left_as_it_is():
    before = json.dumps(CONFIG)
    signature(CONFIG)
    assert json.dumps(CONFIG) == before


def test_undefined_correlations_are_null(tmp_path):
    write_json(tmp_path / "r.json", {"srcc": float("nan"), "n": [1, float("inf")]})
    assert json.loads((tmp_path / "r.json").read_text()) == {"srcc": None, "n": [1, None]}


def test_a_failing_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "r.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_broken_results_file_is_named(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("{")
    with pytest.raises(DataError, match=r"results.json: cannot be read"):
        read_json(path)


def test_predictions_keep_every_digit(tmp_path):
    row = {"part": "test", "name": "a, b.png", "mos": 1 / 3, "target": 0.1, "pred": 2 / 3}
    write_predictions(tmp_path / "p.csv", [row])
    text = (tmp_path / "p.csv").read_text().splitlines()
    assert text == ["part,name,mos,target,pred", f'test,"a, b.png",{1 / 3},0.1,{2 / 3}']


def test_the_environment_names_versions():
    import torch

    found = environment()
    assert found["versions"]["torch"] == torch.__version__
    assert set(found) == {"git_sha", "versions", "machine"}
    assert peak_memory_mb() > 10
