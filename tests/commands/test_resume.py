"""A run that was killed goes on where it was, with the same numbers to the bit."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from command_line import Outcome, finish, on_csv, places, spawn, succeed, type_in
from miniatures import write_csv

N_PICTURES = 64
SHARD = 8


@pytest.fixture(scope="module")
def overrides(micro, tmp_path_factory) -> list[str]:
    """A run long enough to be interrupted."""
    table = write_csv(tmp_path_factory.mktemp("many"), N_PICTURES)
    return [*micro, *on_csv(table), f"data.shard_size={SHARD}", "data.batch_size=4"]


@pytest.fixture(scope="module")
def uninterrupted(overrides, tmp_path_factory) -> Outcome:
    return succeed("train", *overrides, *places(tmp_path_factory.mktemp("uninterrupted")))


def shards(home: Path) -> dict[Path, tuple[int, int]]:
    """Finished shards, each with what changes when a file is written again."""
    return {
        path: (path.stat().st_ino, path.stat().st_mtime_ns)
        for sidecar in home.glob("store/*/*.json")
        if (path := sidecar.with_suffix(".safetensors")).exists()
    }


def images_in(paths) -> set[str]:
    found: set[str] = set()
    for path in paths:
        images = json.loads(path.with_suffix(".json").read_text())["images"]
        assert not found & set(images), "a picture is in two shards"
        found |= set(images)
    return found


def same_numbers(a: Outcome, b: Outcome) -> bool:
    assert a.results_path != b.results_path
    assert a.results["metrics"] == b.results["metrics"]
    tables = [(run.folder / "predictions.csv").read_bytes() for run in (a, b)]
    heads = [(run.folder / "head" / "head.safetensors").read_bytes() for run in (a, b)]
    return tables[0] == tables[1] and heads[0] == heads[1]


@pytest.mark.slow
def test_killed_in_the_middle_of_extraction(overrides, uninterrupted, tmp_path):
    process = spawn("train", *overrides, *places(tmp_path))
    try:
        deadline = time.monotonic() + 120
        while not shards(tmp_path) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
    killed = finish(process)
    assert killed.status == -signal.SIGKILL, killed.err
    kept = shards(tmp_path)
    n_kept = len(images_in(kept))
    assert 0 < n_kept < N_PICTURES
    assert not list(tmp_path.glob("runs/*/results.json"))

    resumed = succeed("train", *overrides, *places(tmp_path))
    assert resumed.results["extracted"] == N_PICTURES - n_kept
    now = shards(tmp_path)
    assert {path: now[path] for path in kept} == kept
    assert len(images_in(now)) == N_PICTURES
    assert same_numbers(resumed, uninterrupted)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_what_was_computed_before_an_exception_is_kept(
    overrides, uninterrupted, tmp_path, monkeypatch, interruption
):
    from latentiqa.methods.lgdm import LGDM

    steps, predict_step = [], LGDM.predict_step

    def interrupted(self, batch, batch_idx):
        steps.append(batch_idx)
        if len(steps) == 6:
            raise interruption("stopped here")
        return predict_step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(LGDM, "predict_step", interrupted)
        try:
            status = type_in("train", *overrides, *places(tmp_path)).status
        except KeyboardInterrupt:
            status = 130
    assert status != 0
    # Two shards of two batches, and the batch of the shard that was begun.
    kept = shards(tmp_path)
    assert len(images_in(kept)) == 5 * 4
    assert not list(tmp_path.glob("runs/*/results.json"))

    resumed = succeed("train", *overrides, *places(tmp_path))
    assert resumed.results["extracted"] == N_PICTURES - 5 * 4
    assert {path: shards(tmp_path)[path] for path in kept} == kept
    assert same_numbers(resumed, uninterrupted)


def test_a_corrupt_shard_is_extracted_again(overrides, uninterrupted, tmp_path):
    first = succeed("train", *overrides, *places(tmp_path))
    before = shards(tmp_path)
    victim = sorted(before)[3]
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)

    again = succeed("train", *overrides, *places(tmp_path), "force=true")
    assert again.results["extracted"] == SHARD
    assert victim.name in again.err.replace("\n", "")
    assert "checksum" in again.err
    after = shards(tmp_path)
    assert {p: after[p] for p in before if p != victim} == {
        p: s for p, s in before.items() if p != victim
    }
    assert first.results_path == again.results_path
    assert same_numbers(again, uninterrupted)


def test_a_forced_run_that_is_interrupted_goes_on(overrides, uninterrupted, tmp_path, monkeypatch):
    """What stands there from before is not taken for its results."""
    first = succeed("train", *overrides, *places(tmp_path))
    bad = type_in("train", *overrides, *places(tmp_path), "force=true", "trainer.devices=0")
    assert bad.status == 1
    assert first.results_path.exists()  # nothing was begun

    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("latentiqa.heads.save_head", interrupted)
        with pytest.raises(KeyboardInterrupt):
            type_in("train", *overrides, *places(tmp_path), "force=true")
    assert not first.results_path.exists()
    again = succeed("train", *overrides, *places(tmp_path))
    assert "this run is finished" not in again.err
    assert same_numbers(again, uninterrupted)


def test_killed_between_extraction_and_results(overrides, uninterrupted, tmp_path, monkeypatch):
    """A run folder without results.json is not a finished run, whatever else is in it."""
    first = succeed("train", *overrides, *places(tmp_path))
    first.results_path.unlink()
    (first.folder / "predictions.csv").write_text("half a li")
    again = succeed("train", *overrides, *places(tmp_path))
    assert again.results["extracted"] == 0
    assert same_numbers(again, uninterrupted)


def test_no_space_is_said_before_anything_is_computed(overrides, tmp_path, monkeypatch):
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")(10**9, 10**9, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)

    def computed(*_args):
        raise AssertionError("computed")

    monkeypatch.setattr("latentiqa.methods.lgdm.LGDM.predict_step", computed)
    outcome = type_in("train", *overrides, *places(tmp_path))
    assert outcome.status == 1
    assert f"{N_PICTURES} pictures x 256 values x 4 bytes" in " ".join(outcome.err.split())
    assert "are free; free some space" in outcome.err
