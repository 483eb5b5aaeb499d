from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from latentiqa.data.manifest import Manifest, Record, check_files
from latentiqa.errors import ConfigError, DataError


def records(*scores: float) -> tuple[Record, ...]:
    return tuple(Record(f"{i}.png", Path(f"{i}.png"), mos) for i, mos in enumerate(scores))


@pytest.mark.parametrize(("higher", "expected"), [(True, [0, 0.25, 1]), (False, [1, 0.75, 0])])
def test_target_is_higher_better_in_unit_range(higher, expected):
    manifest = Manifest("set", records(1, 2, 5), (1, 5), higher)
    assert [manifest.target(record.mos) for record in manifest] == expected


def test_target_outside_the_range_is_refused():
    with pytest.raises(DataError, match=r"5.1 is outside mos_range=\[1, 5\]"):
        Manifest("set", records(1, 5), (1, 5), True).target(5.1)


def test_score_outside_the_range_names_the_record():
    with pytest.raises(DataError, match=r"1.png is 7, outside mos_range=\[1, 5\]"):
        Manifest("set", records(2, 7), (1, 5), True)


@pytest.mark.parametrize("mos", [math.nan, math.inf])
def test_score_must_be_finite(mos):
    with pytest.raises(DataError, match=r"the score of 1.png is"):
        Manifest("set", records(2, mos), (1, 5), True)


def test_duplicate_names_are_named():
    twice = (*records(1, 2, 3), *records(1, 2))
    with pytest.raises(DataError, match=r"2 names occur more than once: 0.png, 1.png"):
        Manifest("set", twice, (1, 5), True)


def test_empty_is_refused():
    with pytest.raises(DataError, match="no pictures"):
        Manifest("set", (), (1, 5), True)


@pytest.mark.parametrize("mos_range", [(5, 1), (1, 1), (0, math.inf), (math.nan, 1)])
def test_range_must_ascend(mos_range):
    with pytest.raises(ConfigError, match="mos_range="):
        Manifest("set", records(1, 2), mos_range, True)


def test_subset_keeps_the_given_order_and_refuses_unknown_names():
    manifest = Manifest("set", records(1, 2, 3), (1, 5), True, note="caveat")
    subset = manifest.subset(["2.png", "0.png"])
    assert subset.names == ("2.png", "0.png")
    assert len(subset) == 2
    assert subset.note == "caveat"
    with pytest.raises(DataError, match=r"1 names are not in the dataset: x.png"):
        manifest.subset(["0.png", "x.png"])


def test_fingerprint_ignores_paths_and_order_but_not_content():
    manifest = Manifest("set", records(1, 2, 3), (1, 5), True)
    moved = [replace(record, path=Path("/elsewhere") / record.path) for record in manifest]
    assert replace(manifest, records=tuple(moved[::-1])).fingerprint == manifest.fingerprint
    for change in ({"mos": 4.0}, {"name": "other"}, {"reference": "sky"}):
        changed = (replace(manifest.records[0], **change), *manifest.records[1:])
        assert replace(manifest, records=changed).fingerprint != manifest.fingerprint


def test_what_the_user_says_of_the_scores_is_in_the_fingerprint():
    manifest = Manifest("set", records(1, 2, 5), (1, 5), True)
    for change in ({"higher_is_better": False}, {"mos_range": (1, 6)}, {"mos_range": (0, 5)}):
        assert replace(manifest, **change).fingerprint != manifest.fingerprint
    assert replace(manifest, mos_range=(1.0, 5.0)).fingerprint == manifest.fingerprint


def test_missing_files_are_counted_and_the_first_named(tmp_path):
    present = tmp_path / "0.png"
    present.touch()
    listed = [Record(f"{i}.png", tmp_path / f"{i}.png", 1.0) for i in range(9)]
    with pytest.raises(DataError, match=r"8 of 9 .*1\.png, .*5\.png and 3 more; look again"):
        check_files("set", listed, "look again")
    check_files("set", listed[:1], "look again")


@pytest.mark.parametrize("room", ["manifest", "splits", "csv_manifest", "readers.biq2021", "demo"])
def test_recognising_a_run_does_not_import_torch(room):
    code = f"import sys, latentiqa.data.{room}; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert (
        subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
    )
