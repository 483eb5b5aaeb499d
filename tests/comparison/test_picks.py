"""Files of picks, and what is wrong with them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from simulated_raters import CAUGHT, PICK, said

from latentiqa.comparison.picks import (
    COLUMNS,
    by_rater,
    count,
    models_of,
    read_picks,
    session_of,
)
from latentiqa.errors import DataError


def write_json(path: Path, **changed) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(said(**changed)))
    return path


def write_csv(path: Path, **changed) -> Path:
    found = said(**changed)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for pick in found["picks"]:
            writer.writerow({**found, **pick})
    return path


def test_json_and_csv_say_the_same(tmp_path):
    first = read_picks([write_json(tmp_path / "a.json")])
    assert first == read_picks([write_csv(tmp_path / "a.csv")])
    (session,) = first
    assert session.rater == 'Ann, "A"'
    pair, caught = session.picks
    assert (pair.winner, pair.loser, caught.winner) == ("a", "b", "input")
    assert models_of(first) == ["a", "b"]
    assert count(session.picks) == {("a", "b"): 1}


def test_a_session_counts_once_and_the_longest_file_of_it(tmp_path):
    write_json(tmp_path / "half.json", picks=[PICK])
    write_csv(tmp_path / "whole.csv")
    write_json(tmp_path / "deep" / "other.json", session="ffffffff")
    sessions = read_picks([tmp_path])
    assert sorted(len(session.picks) for session in sessions) == [2, 2]
    assert list(map(len, by_rater(sessions).values())) == [4]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"kind": "other"}, "expected picks of the 2AFC page"),
        ({"session": "../../x"}, "session='../../x': expected 8 to 32 hex digits"),
        ({"study": ""}, "study: expected text of 1 to"),
        ({"picks": {}}, "picks: expected a list"),
        ({"picks": [1]}, r"picks\[0\]: expected an object"),
        ({"picks": [PICK, PICK | {"pick": "both"}]}, r"picks\[1\].*pick='both': expected pair"),
        ({"picks": [PICK | {"kind": "x"}]}, "kind='x'"),
        ({"picks": [PICK | {"right": "a"}]}, "not two sides of a trial"),
        ({"picks": [CAUGHT | {"right": "b"}]}, "not two sides of a trial"),
        ({"picks": [PICK | {"milliseconds": -1}]}, "milliseconds: expected a number >= 0"),
        ({"picks": [PICK | {"milliseconds": "nan"}]}, "milliseconds: expected a number >= 0"),
        ({"picks": [PICK | {"milliseconds": None}]}, "milliseconds: expected a number >= 0"),
        ({"picks": [PICK | {"left": 3}]}, r"picks\[0\].left: expected text"),
    ],
)
def test_what_is_no_session_is_refused(changed, told):
    with pytest.raises(DataError, match=told):
        session_of(said() | changed)


def test_files_that_hold_no_picks_are_named(tmp_path):
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(DataError, match=r"broken\.json: Expecting"):
        read_picks([broken])
    broken.unlink()
    with pytest.raises(DataError, match=r"gone\.json: .*No such file"):
        read_picks([tmp_path / "gone.json"])
    with pytest.raises(DataError, match=r"x\.txt: expected a \.json or \.csv file"):
        read_picks([tmp_path / "x.txt"])
    with pytest.raises(DataError, match="no picks there"):
        read_picks([tmp_path])
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"table\.csv: expected rows of picks with the columns"):
        read_picks([tmp_path])
    (tmp_path / "table.csv").unlink()
    write_json(tmp_path / "a.json")
    write_json(tmp_path / "b.json", session="ffffffff", study="t")
    with pytest.raises(DataError, match="picks of 2 studies"):
        read_picks([tmp_path])
