"""Datasets in Hugging Face's own formats, made here; nothing is downloaded."""

from __future__ import annotations

import sys
from pathlib import Path

import datasets
import pytest
from miniatures import write_image

from latentiqa.data.images import read_image
from latentiqa.data.readers.huggingface import read_huggingface
from latentiqa.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "arrow"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    return [write_image(folder / f"{i}.{'jpg' if i % 2 else 'png'}", i) for i in range(4)]


@pytest.fixture(scope="module")
def made(pictures):
    """Four pictures with a score and a content."""
    columns = {"picture": [str(p) for p in pictures], "score": [1.0, 2.5, 4.0, 5.0]}
    columns["scene"] = ["a", "a", "b", "c"]
    return datasets.Dataset.from_dict(columns).cast_column("picture", datasets.Image())


COLUMNS = {"image": "picture", "mos": "score", "ref": "scene"}


def test_splits_become_the_official_parts_and_bytes_stay(made, pictures, tmp_path):
    halves = datasets.DatasetDict(train=made.select([0, 1]), test=made.select([2, 3]))
    halves.save_to_disk(tmp_path / "set")
    options = {**COLUMNS, "cache_dir": tmp_path / "cache", "mos_range": (1, 5)}
    manifest = read_huggingface(str(tmp_path / "set"), **options)
    assert manifest.dataset == "set"
    assert manifest.names == tuple(
        f"{part}/00000{i}.{suffix}"
        for part in ("train", "test")
        for i, suffix in enumerate(("png", "jpeg"))
    )
    assert [record.mos for record in manifest] == [1.0, 2.5, 4.0, 5.0]
    assert [record.reference for record in manifest] == ["a", "a", "b", "c"]
    assert [record.part for record in manifest] == ["train", "train", "test", "test"]
    for record, path in zip(manifest, pictures, strict=True):
        assert record.path.read_bytes() == path.read_bytes()
    again = read_huggingface(str(tmp_path / "set"), **options)
    assert again == manifest
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_folder_of_parquet_files(made, tmp_path):
    made.to_parquet(tmp_path / "set" / "data.parquet")
    manifest = read_huggingface(str(tmp_path / "set"), **COLUMNS, cache_dir=tmp_path / "cache")
    assert len(manifest) == 4
    assert manifest.mos_range == (1, 5)
    assert {record.part for record in manifest} == {None}
    assert read_image(manifest.records[0].path).shape == (3, 16, 24)


def test_what_is_wrong_is_said(made, tmp_path, monkeypatch):
    made.save_to_disk(tmp_path / "set")
    cache = {"cache_dir": tmp_path / "cache"}
    with pytest.raises(DataError, match=r"all: no column image, mos; it has picture, score"):
        read_huggingface(str(tmp_path / "set"), **cache)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: .*expected a folder that Hugging Face's"):
        read_huggingface(str(tmp_path / "empty"), **cache)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"pip install 'latentiqa\[huggingface\]'"):
        read_huggingface(str(tmp_path / "set"), **cache)


def test_a_row_without_a_picture_leaves_nothing_behind(made, tmp_path):
    gone = [{"bytes": None, "path": str(tmp_path / "gone.png")}] * 4
    column = made.cast_column("picture", datasets.Image(decode=False)).remove_columns("picture")
    column = column.add_column("picture", gone)
    column.save_to_disk(tmp_path / "set")
    with pytest.raises(DataError, match=r"all, row 0: has no picture"):
        read_huggingface(str(tmp_path / "set"), **COLUMNS, cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
