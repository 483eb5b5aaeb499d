from __future__ import annotations

import math

import pytest
import torch
from miniatures import write_csv

from latentiqa.data.csv_manifest import read_csv
from latentiqa.data.datamodule import PictureDataModule, PictureDataset
from latentiqa.data.images import Resize, inspect_images, read_image
from latentiqa.errors import ConfigError, DataError


@pytest.fixture
def manifest(tmp_path):
    return read_csv(write_csv(tmp_path, 5), mos_range=(0, 5), higher_is_better=False)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_hold_the_contract(manifest, num_workers):
    keys, _ = inspect_images(manifest.records)
    del keys["p1.png"]
    dataset = PictureDataset(manifest.records, keys, manifest.target, Resize(16))
    loader = PictureDataModule(dataset, batch_size=3, num_workers=num_workers).predict_dataloader()
    first, second = list(loader)
    assert first["name"] == ["p0.png", "p2.png", "p3.png"]
    assert second["name"] == ["p4.png"]
    assert first["key"] == [keys[name] for name in first["name"]]
    assert first["index"].tolist() == [0, 2, 3]
    assert first["index"].dtype == torch.int64
    assert first["mos"].tolist() == [0, 2, 3]
    assert torch.allclose(first["target"], torch.tensor([1, 0.6, 0.4]))
    assert first["mos"].dtype == first["target"].dtype == torch.float32
    assert first["image"].shape == (3, 3, 16, 16)
    expected = Resize(16)(read_image(manifest.by_name["p2.png"].path))
    assert torch.equal(first["image"][1], expected)


def test_unrated_pictures_have_no_target(manifest):
    keys, _ = inspect_images(manifest.records)
    dataset = PictureDataset(manifest.records, keys, None, Resize(8))
    assert math.isnan(dataset[0]["target"])


def test_a_picture_that_breaks_later_is_named(manifest):
    keys, _ = inspect_images(manifest.records)
    manifest.by_name["p1.png"].path.write_bytes(b"")
    dataset = PictureDataset(manifest.records, keys, manifest.target, Resize(8))
    loader = PictureDataModule(dataset, batch_size=2, num_workers=0).predict_dataloader()
    with pytest.raises(DataError, match=r"p1.png: not a picture"):
        list(loader)


def test_arguments_are_checked(manifest):
    with pytest.raises(ConfigError, match=r"keys=\['x'\]: 1 names"):
        PictureDataset(manifest.records, {"x": "k"}, manifest.target, Resize(8))
    dataset = PictureDataset(manifest.records, {}, manifest.target, Resize(8))
    assert len(dataset) == 0
    with pytest.raises(ConfigError, match="batch_size=0"):
        PictureDataModule(dataset, batch_size=0)
    with pytest.raises(ConfigError, match="num_workers=-1"):
        PictureDataModule(dataset, batch_size=1, num_workers=-1)
