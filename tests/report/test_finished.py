"""Results and predictions as they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from finished_runs import write_run

from latentiqa.errors import DataError
from latentiqa.report.finished import load_results, read_predictions
from latentiqa.runs import write_predictions


def save(folder: Path, content: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    path.write_text(json.dumps(content))
    return path


def test_folders_are_searched_and_each_file_is_read_once(tmp_path):
    b = save(tmp_path / "b" / "deep", {"n": 2})
    save(tmp_path / "a", {"n": 1})
    single = save(tmp_path.parent / f"{tmp_path.name}-single", {"n": 3})
    (tmp_path / "a" / "other.json").write_text("{")
    found = load_results([single, tmp_path, b])
    assert [run.result for run in found] == [{"n": 3}, {"n": 1}, {"n": 2}]
    assert found[2].file == b


@pytest.mark.parametrize("content", ["", '{"metrics": ', "[1, 2]", "\ud800"])
def test_a_broken_file_is_named(tmp_path, content):
    path = save(tmp_path, {})
    path.write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(DataError, match=r"results\.json: "):
        load_results([tmp_path])


def test_paths_without_results_are_named(tmp_path):
    with pytest.raises(DataError, match=r"no results\.json"):
        load_results([tmp_path])
    with pytest.raises(DataError, match="absent: no such file"):
        load_results([tmp_path / "absent"])


def test_predictions_are_read_with_the_pictures_attributes(tmp_path):
    columns = {"distortion": ["blur", "", "a, b"], "level": ["1", "2", "3"]}
    folder = write_run(tmp_path, pictures=3, attributes=columns)
    [run] = load_results([folder])
    found = run.predictions
    assert found.names == ("0-0.png", "0-1.png", "0-2.png")
    assert found.attributes == {key: tuple(cells) for key, cells in columns.items()}
    assert found.target.shape == found.pred.shape == (3,)
    assert run.predictions is found


def test_columns_are_there_of_pictures_without_the_attribute(tmp_path):
    row = {"part": "test", "mos": 1, "target": 0.5, "pred": 0.5}
    rows = [{**row, "name": "a.png"}, {**row, "name": "b.png", "level": "1"}]
    write_predictions(tmp_path / "p.csv", rows)
    assert read_predictions(tmp_path / "p.csv").attributes == {"level": ("", "1")}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, r"no such file; it is written beside results\.json"),
        ("", "the file is empty"),
        ("part,name,mos,target\ntest,a.png,1,1\n", "expected a header"),
        ("part,name,mos,target,pred\ntest,a.png,1,1,nan\n", "line 2: column pred is 'nan'"),
        ("part,name,mos,target,pred\ntest,a,1,1,1\ntest,a,1,1,1\n", "stands in it twice"),
    ],
)
def test_broken_predictions_are_named(tmp_path, text, told):
    path = tmp_path / "predictions.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=rf"predictions\.csv.*{told}"):
        read_predictions(path)
