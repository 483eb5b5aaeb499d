"""`latentiqa cost`: measured on a run, read by the report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import succeed, type_in
from miniatures import write_image


@pytest.fixture
def photo(tmp_path) -> Path:
    return write_image(tmp_path / "photo.png", size=(40, 30))


def test_the_cost_of_a_run_stands_in_its_folder_and_in_the_table(micro_run, photo, tmp_path):
    run = shutil.copytree(micro_run, tmp_path / "run")
    told = succeed("cost", str(photo), f"run={run}", "rounds=2", "warm_up=1")
    assert told.out == f"{run / 'cost.json'}\n"
    cost = json.loads((run / "cost.json").read_text())
    assert cost["picture"] == [40, 30]
    assert (cost["device"], cost["threads"], cost["rounds"]) == ("cpu", 1, 2)
    assert 1e4 < cost["parameters"] < 1e7
    assert 0 < cost["gflop"] < 10
    table = succeed("report", str(run), "+columns.GFLOP=cost.gflop", "+columns.M=cost.parameters")
    assert f"| {cost['gflop']:.4g} | {cost['parameters'] / 1e6:.1f} M |" in table.out


def test_the_embedded_scorer_stays_as_it_is(embedded, photo):
    told = succeed("cost", str(photo), "rounds=1", "warm_up=1")
    assert told.out == ""
    assert "a picture on cpu" in told.err
    assert not (embedded / "cost.json").exists()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["input=nowhere.png"], "expected the file of one picture"),
        (["rounds=0"], "rounds=0: expected an integer >= 1"),
        (["run=nowhere"], "run=nowhere: no results.json there"),
    ],
)
def test_mistakes_are_told(wrong, told, photo, embedded, nothing_loaded):
    given = [] if "input=nowhere.png" in wrong else [str(photo)]
    outcome = type_in("cost", *given, *wrong)
    assert outcome.status == 1
    assert told in " ".join(outcome.err.split())
