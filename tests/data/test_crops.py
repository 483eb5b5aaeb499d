from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from latentiqa.data.crops import CropModule, DegradedCrops, Onward, random_crop
from latentiqa.data.manifest import Record
from latentiqa.errors import ConfigError, DataError


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    records = []
    for i, size in enumerate([(80, 60), (40, 50), (200, 90)]):
        path = tmp_path / f"{i}.png"
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)
        records.append(Record(path.name, path, mos=0.0))
    return records


def test_a_crop_depends_on_seed_and_index_alone(photos):
    forward, again = DegradedCrops(photos, size=32), DegradedCrops(photos, size=32)
    a = [forward[i] for i in range(5)]
    b = [again[i] for i in reversed(range(5))][::-1]
    for one, other in zip(a, b, strict=True):
        assert one["caption"] == other["caption"]
        assert torch.equal(one["image"], other["image"])
    different = DegradedCrops(photos, size=32, seed=1)[0]
    assert not torch.equal(different["image"], a[0]["image"])


def test_crops_have_the_size_and_range_whatever_the_photo(photos):
    crops = DegradedCrops(photos, size=64, clean=0.5)
    samples = [crops[i] for i in range(30)]
    assert {sample["name"] for sample in samples} == {"0.png", "1.png", "2.png"}
    for sample in samples:
        assert sample["image"].shape == (3, 64, 64)
        assert sample["image"].dtype == torch.float32
        assert 0 <= sample["image"].min() <= sample["image"].max() <= 1


def test_clean_crops_are_called_so_and_others_are_not(photos):
    assert "excellent" in DegradedCrops(photos, size=32, clean=1.0)[0]["caption"].lower()
    captions = {DegradedCrops(photos, size=32, clean=0.0)[i]["caption"].lower() for i in range(20)}
    assert not any("excellent" in caption for caption in captions)
    assert len(captions) > 10


def test_random_crop_is_a_place_of_the_photo_and_reaches_every_edge():
    image = torch.arange(12 * 10.0).reshape(1, 12, 10).expand(3, -1, -1) / 120
    rng = np.random.default_rng(0)
    corners, mirrored = set(), 0
    for _ in range(400):
        crop = random_crop(image, 8, zoom=1.0, rng=rng)
        if crop[0, 0, 1] < crop[0, 0, 0]:
            mirrored, crop = mirrored + 1, crop.flip(-1)
        first = round(crop[0, 0, 0].item() * 120)
        top, left = divmod(first, 10)
        assert torch.equal(crop, image[:, top : top + 8, left : left + 8])
        corners.add((top, left))
    assert corners == {(top, left) for top in range(5) for left in range(3)}
    assert 150 < mirrored < 250


def test_larger_squares_are_scaled_down_as_a_whole():
    ramp = torch.linspace(0, 1, 64).expand(3, 64, 64)
    sides = set()
    for seed in range(20):
        crop = random_crop(ramp, 32, zoom=2.0, rng=np.random.default_rng(seed))
        sides.add(round((crop[0, 16, 1:-1].max() - crop[0, 16, 1:-1].min()).item() * 63 / 29 * 32))
    assert min(sides) < 40
    assert max(sides) > 56


def test_onward_goes_on_and_shares_among_ranks():
    assert list(islice(Onward(6), 3)) == [6, 7, 8]
    ranks = [list(islice(Onward(4 + rank, 2), 3)) for rank in range(2)]
    assert sorted(ranks[0] + ranks[1]) == [4, 5, 6, 7, 8, 9]


def test_validation_looks_at_the_same_crops_every_time(photos):
    module = CropModule(
        DegradedCrops(photos, 32), DegradedCrops(photos, 32, seed=1), val_crops=5, batch_size=2
    )
    first, second = (torch.cat([b["image"] for b in module.val_dataloader()]) for _ in range(2))
    assert len(first) == 5
    assert torch.equal(first, second)


def test_bad_values_and_files_are_named(photos, tmp_path):
    for arguments, message in [
        ({"size": 16}, r"crops\.size=16"),
        ({"clean": 2}, "clean=2"),
        ({"zoom": 0.5}, "zoom=0.5"),
    ]:
        with pytest.raises(ConfigError, match=message):
            DegradedCrops(photos, **arguments)
    crops = DegradedCrops(photos, 32)
    with pytest.raises(ConfigError, match="batch_size=0"):
        CropModule(crops, crops, batch_size=0)
    broken = Record("broken.png", tmp_path / "broken.png", mos=0.0)
    with pytest.raises(DataError, match=r"broken\.png"):
        DegradedCrops([broken], 32)[0]
    with pytest.raises(DataError, match=r"more than 99 pixels .* raise data\.max_pixels"):
        DegradedCrops(photos, 32, max_pixels=99)[0]
