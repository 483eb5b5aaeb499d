"""The script of experiments/cross_database, with a stand-in for latentiqa."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path

import pytest
from command_line import composed

SCRIPT = Path(__file__).parents[2] / "experiments" / "cross_database" / "cross.sh"

STAND_IN = """#!/bin/sh
echo "$@" >> "$CALLS"
[ "$1" = train ] || exit 0
[ -z "$FAIL" ] || exit 1
echo a table
echo "runs/$(wc -l < "$CALLS")/results.json"
"""


@pytest.fixture
def calls(tmp_path, monkeypatch) -> Path:
    """What latentiqa is asked for, a line each."""
    stand_in = tmp_path / "latentiqa"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


def run_script() -> subprocess.CompletedProcess[str]:
    keys = ["trainer=gpu", "limit=100", "data.on_error=skip", "method.training.precision=32-true"]
    command = ["sh", str(SCRIPT), "big set", "kodak", *keys]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_folders_are_reported_so_that_their_evaluations_are_read(calls):
    assert run_script().returncode == 0
    asked = calls.read_text().splitlines()
    verbs = [line.split()[0] for line in asked]
    assert verbs == ["train", "evaluate"] * 6 + ["report"]
    trained = [f"runs/{number}" for number in (1, 3, 5, 7, 9, 11)]
    assert [line.split()[1] for line in asked if line.startswith("evaluate")] == [
        f"run={folder}" for folder in trained
    ]
    assert asked[-1].split()[1:7] == trained
    assert all("trainer=gpu" in line for line in asked[:-1])
    assert all("data.on_error=skip" in line for line in asked[:-1])
    # What evaluating does not know is the trainings' alone.
    assert all(("limit=100" in line) == line.startswith("train") for line in asked)
    # What LGDM does not know is the others'.
    trainings = [line for line in asked if line.startswith("train")]
    assert ["precision" in line for line in trainings] == [False] * 2 + [True] * 4


def test_each_method_is_trained_on_one_set_and_tested_on_both(calls):
    assert run_script().returncode == 0
    *asked, report = [
        line.split() for line in calls.read_text().replace("big set", "big_set").splitlines()
    ]
    configs = [composed(verb, *keys, hydra_too=True) for verb, *keys in asked]
    sets = [config.hydra.runtime.choices.dataset for config in configs]
    on = {"biq2021": ("big_set", "official"), "synthetic": ("kodak", 0)}
    expected = itertools.product(("lgdm", "dpiqa", "genziqa"), on)
    for i, (method, name) in enumerate(expected):
        trained, evaluated = configs[2 * i : 2 * i + 2]
        (other,) = on.keys() - {name}
        assert (trained.method.name, sets[2 * i], sets[2 * i + 1]) == (method, name, other)
        assert (trained.dataset.root, trained.split) == on[name]
        # On BIQ2021 all are tested on the same pictures.
        part = ("test", "official") if other == "biq2021" else ("all", 0)
        assert (evaluated.dataset.root, evaluated.part, evaluated.split) == (on[other][0], *part)
    assert len(configs) == 12
    # Its folders are the stand-in's.
    assert composed(*report[:1], "runs=[x]", *report[7:]).view == "matrix"


def test_a_training_that_fails_ends_it(calls, monkeypatch):
    monkeypatch.setenv("FAIL", "1")
    outcome = run_script()
    assert outcome.returncode != 0
    assert "training failed" in outcome.stderr
    assert len(calls.read_text().splitlines()) == 1
