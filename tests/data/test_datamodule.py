from __future__ import annotations

import math

import pytest
import torch
from miniatures import write_csv, write_image

from latentiqa.data.csv_manifest import read_csv
from latentiqa.data.datamodule import PictureDataModule, PictureDataset
from latentiqa.data.images import inspect_images, read_image
from latentiqa.data.views import RandomCrops, Square, Whole
from latentiqa.errors import ConfigError, DataError


@pytest.fixture
def manifest(tmp_path):
    return read_csv(write_csv(tmp_path, 5), mos_range=(0, 5), higher_is_better=False)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_hold_the_contract(manifest, num_workers):
    keys, _ = inspect_images(manifest.records)
    del keys["p1.png"]
    dataset = PictureDataset(manifest.records, keys, manifest.target, Square(16))
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
    [image] = first["image"]
    assert image.shape == (3, 3, 16, 16)
    expected = Square(16)(read_image(manifest.by_name["p2.png"].path))
    assert torch.equal(image[1], expected[0])


def batches(manifest, views, batch_size, wanted=None):
    keys, _ = inspect_images(manifest.records)
    dataset = PictureDataset(manifest.records, keys, None, views, wanted)
    return list(PictureDataModule(dataset, batch_size).predict_dataloader()), keys


def test_views_of_a_picture_are_samples_of_their_own(manifest):
    views = RandomCrops(8, crops=3)
    found, keys = batches(manifest, views, batch_size=7)
    # All views of two pictures a batch, at most seven of them stacked.
    assert [[len(image) for image in batch["image"]] for batch in found] == [[6], [6], [3]]
    assert found[0]["name"] == [f"p{i}.png#{k}" for i in range(2) for k in range(3)]
    assert found[0]["key"] == [f"{keys[f'p{i}.png']}#{k}" for i in range(2) for k in range(3)]
    assert found[0]["index"].tolist() == found[0]["mos"].tolist() == [0, 0, 0, 1, 1, 1]
    expected = views(read_image(manifest.by_name["p1.png"].path), "p1.png")
    assert torch.equal(found[0]["image"][0][3:], expected)
    # The same however they are batched.
    alone, _ = batches(manifest, views, batch_size=2)
    assert [[len(image) for image in batch["image"]] for batch in alone] == [[2, 1]] * 5
    assert torch.equal(torch.cat(alone[1]["image"]), expected)


def test_only_the_wanted_views_are_kept_and_mirrored_copies_are_mirrored(manifest):
    keys, _ = inspect_images(manifest.records)
    wanted = {f"{keys['p0.png']}#mirrored", keys["p3.png"], f"{keys['p3.png']}#mirrored"}
    dataset = PictureDataset(
        manifest.records, {n: keys[n] for n in ("p0.png", "p3.png")}, None, Square(8), wanted
    )
    [batch] = PictureDataModule(dataset, batch_size=4).predict_dataloader()
    assert batch["name"] == ["p0.png#mirrored", "p3.png", "p3.png#mirrored"]
    assert set(batch["key"]) == wanted
    [image] = batch["image"]
    assert torch.equal(image[2], image[1].flip(-1))
    assert not torch.equal(image[2], image[1])


def test_neighbours_of_one_shape_are_stacked(manifest):
    write_image(manifest.by_name["p1.png"].path, size=(16, 32))
    [batch], _ = batches(manifest, Whole(multiple=8), batch_size=5)
    assert [tuple(image.shape) for image in batch["image"]] == [
        (1, 3, 16, 24),
        (1, 3, 32, 16),
        (3, 3, 16, 24),
    ]
    assert len(batch["name"]) == 5


def test_the_limit_on_pixels_holds_for_reading_too(manifest):
    keys, _ = inspect_images(manifest.records)
    dataset = PictureDataset(manifest.records, keys, None, Square(8), max_pixels=24 * 16 - 1)
    with pytest.raises(DataError, match=r"p0.png: refused: 24 x 16 pixels"):
        dataset[0]


def test_unrated_pictures_have_no_target(manifest):
    keys, _ = inspect_images(manifest.records)
    dataset = PictureDataset(manifest.records, keys, None, Square(8))
    assert math.isnan(dataset[0][0]["target"])


def test_a_picture_that_breaks_later_is_named(manifest):
    keys, _ = inspect_images(manifest.records)
    manifest.by_name["p1.png"].path.write_bytes(b"")
    dataset = PictureDataset(manifest.records, keys, manifest.target, Square(8))
    loader = PictureDataModule(dataset, batch_size=2, num_workers=0).predict_dataloader()
    with pytest.raises(DataError, match=r"p1.png: not a picture"):
        list(loader)


def test_arguments_are_checked(manifest):
    with pytest.raises(ConfigError, match=r"keys=\['x'\]: 1 names"):
        PictureDataset(manifest.records, {"x": "k"}, manifest.target, Square(8))
    dataset = PictureDataset(manifest.records, {}, manifest.target, Square(8))
    assert len(dataset) == 0
    with pytest.raises(ConfigError, match="batch_size=0"):
        PictureDataModule(dataset, batch_size=0)
    with pytest.raises(ConfigError, match="num_workers=-1"):
        PictureDataModule(dataset, batch_size=1, num_workers=-1)
