from __future__ import annotations

import shutil
from collections import namedtuple

import pytest
import torch
from lightning import Trainer
from miniatures import write_image

from latentiqa.backbones.addresses import Layers
from latentiqa.backbones.source import BackboneSource
from latentiqa.data.images import inspect_images, read_image
from latentiqa.data.manifest import Record
from latentiqa.data.views import Centre, GridCrops, ShortSide, Square
from latentiqa.errors import StoreError
from latentiqa.hyperfeatures.extraction import extract, open_store, read_features
from latentiqa.methods.lgdm import LGDM
from latentiqa.trajectory import Timesteps

SQUARE = Square(64)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Ten records and their image keys."""
    folder = tmp_path_factory.mktemp("photos")
    records = []
    for i in range(10):
        path = folder / f"p{i}.png"
        write_image(path, seed=i, size=(40, 40))
        records.append(Record(path.name, path, mos=float(i)))
    keys, bad = inspect_images(records)
    assert not bad
    return records, keys


def method(tiny, layers=("mid.*",), **kwargs) -> LGDM:
    return LGDM(tiny, Timesteps([40, 10], **kwargs), Layers(list(layers)))


@pytest.fixture
def micro(micro_folder) -> LGDM:
    backbone = BackboneSource("micro", str(micro_folder), resolution=64).load()
    return LGDM(backbone, Timesteps([40, 10]), Layers(["mid.*"]))


def make_trainer(callbacks) -> Trainer:
    return Trainer(
        accelerator="cpu", devices=1, logger=False, callbacks=callbacks, inference_mode=False,
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip


def run(lgdm, root, photos, trainer=make_trainer, views=SQUARE, **kwargs) -> int:
    records, keys = photos
    store = open_store(root, lgdm, views)
    options = {"batch_size": 2, "shard_size": 4} | kwargs
    return extract(lgdm, store, records, keys, views, trainer, **options)


def features(lgdm, root, photos, views=SQUARE, flips=False):
    store = open_store(root, lgdm, views)
    keys = [view for key in photos[1].values() for view in views.names(key, flips)]
    return read_features(store, keys, list(lgdm.widths))


def no_trainer(callbacks):
    raise AssertionError("nothing should be extracted")


def test_the_store_holds_what_the_method_computes(tiny, tmp_path, photos):
    lgdm = method(tiny)
    assert run(lgdm, tmp_path, photos) == 10
    records, _ = photos
    image = torch.cat([SQUARE(read_image(record.path)) for record in records])
    expected = lgdm.hyperfeatures(image, [record.name for record in records])
    expected = torch.cat(list(expected.values()), dim=1)
    torch.testing.assert_close(features(lgdm, tmp_path, photos), expected, rtol=1e-4, atol=1e-5)


def test_what_is_there_is_not_extracted_again(tiny, tmp_path, photos):
    run(method(tiny), tmp_path, photos)
    assert run(method(tiny), tmp_path, photos, no_trainer) == 0
    # Any subset of layers and timesteps, too.
    assert run(method(tiny, ["mid.attn.0"], use=[40]), tmp_path, photos, no_trainer) == 0
    subset = features(method(tiny, ["mid.attn.0"], use=[40]), tmp_path, photos)
    assert subset.shape == (10, 128)


def test_new_layers_alone_are_written(tiny, tmp_path, photos):
    run(method(tiny), tmp_path, photos)
    both = method(tiny, ["mid.*", "up.0.resnet.0"])
    assert run(both, tmp_path, photos) == 10
    store = open_store(tmp_path, both, SQUARE)
    written = [set(shard.widths) for shard in store._shards.values()]
    added = {"40/up.0.resnet.0/mean", "10/up.0.resnet.0/mean"}
    assert sorted(map(len, written)) == sorted([6] * 3 + [2] * 3)
    assert added in written
    assert features(both, tmp_path, photos).shape == (10, 2 * 4 * 128)


def test_an_interrupted_extraction_goes_on_to_the_same_bits(tiny, tmp_path, photos):
    class StopError(Exception):
        pass

    class Failing(LGDM):
        def predict_step(self, batch, batch_idx):
            if batch_idx == 3:
                raise StopError
            return super().predict_step(batch, batch_idx)

    failing = Failing(tiny, Timesteps([40, 10]), Layers(["mid.*"]))
    with pytest.raises(StopError):
        run(failing, tmp_path / "a", photos)
    # Three batches of two were computed: a full shard of four, and the two in flight.
    assert run(method(tiny), tmp_path / "a", photos) == 4
    run(method(tiny), tmp_path / "b", photos)
    resumed, whole = (features(method(tiny), tmp_path / s, photos) for s in "ab")
    assert torch.equal(resumed, whole)


def test_a_corrupt_shard_is_extracted_anew(tiny, tmp_path, photos):
    run(method(tiny), tmp_path, photos)
    expected = features(method(tiny), tmp_path, photos)
    shard = sorted(tmp_path.rglob("*.safetensors"))[0]
    data = bytearray(shard.read_bytes())
    data[-5] ^= 1
    shard.write_bytes(data)
    assert run(method(tiny), tmp_path, photos) in (2, 4)
    assert torch.equal(features(method(tiny), tmp_path, photos), expected)


def test_a_disk_too_small_is_said_before_anything_is_computed(tiny, tmp_path, photos, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**6, 10**6, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StoreError, match="free some space"):
        run(method(tiny), tmp_path, photos, no_trainer)


def test_the_estimate_is_logged_first(tiny, tmp_path, photos, caplog):
    caplog.set_level("INFO", logger="latentiqa")
    run(method(tiny), tmp_path, photos)
    assert "10 views of 10 pictures x 768 values x 4 bytes = 0.0 MB" in caplog.text


def test_other_views_have_other_addresses(tiny, tmp_path):
    lgdm = method(tiny)
    views = [Square(64), Centre(64), Square(128), GridCrops(64, 2), GridCrops(64, 3)]
    assert len({open_store(tmp_path, lgdm, view).key for view in views}) == 5


def test_each_crop_is_kept_by_itself(micro, tmp_path, photos):
    views = GridCrops(64, crops=2, short_side=96)
    few = photos[0][:3], dict(list(photos[1].items())[:3])
    assert run(micro, tmp_path, few, views=views, batch_size=4) == 3
    assert run(micro, tmp_path, few, no_trainer, views=views) == 0
    found = features(micro, tmp_path, few, views)
    assert len(found) == 6
    record = few[0][1]
    crops = views(read_image(record.path), record.name)
    expected = micro.hyperfeatures(crops, [f"{record.name}#0", f"{record.name}#1"])
    expected = torch.cat(list(expected.values()), dim=1)
    torch.testing.assert_close(found[2:4], expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found[2], found[3], rtol=1e-2)


def test_mirrored_copies_are_added_to_the_same_store(micro, tmp_path, photos, monkeypatch):
    few = photos[0][:4], dict(list(photos[1].items())[:4])
    run(micro, tmp_path, few)
    plain = features(micro, tmp_path, few)
    names = list(few[1])[:2]
    seen, predict_step = [], LGDM.predict_step

    def watched(self, batch, batch_idx):
        seen.extend(batch["name"])
        return predict_step(self, batch, batch_idx)

    monkeypatch.setattr(LGDM, "predict_step", watched)
    assert run(micro, tmp_path, few, mirrored=names) == 2
    assert seen == [f"{name}#mirrored" for name in names]
    assert torch.equal(features(micro, tmp_path, few), plain)
    some = few[0][:2], {name: few[1][name] for name in names}
    both = features(micro, tmp_path, some, flips=True)
    assert torch.equal(both[::2], plain[:2])
    assert not torch.allclose(both[1::2], plain[:2], rtol=1e-2)


def test_pictures_of_different_shapes_go_through_one_batch(micro, tmp_path):
    records = []
    for i, size in enumerate([(40, 80), (40, 80), (40, 40), (90, 40)]):
        path = write_image(tmp_path / f"p{i}.png", seed=i, size=size)
        records.append(Record(path.name, path, mos=0.0))
    photos = records, inspect_images(records)[0]
    views = ShortSide(64)
    together, alone = tmp_path / "together", tmp_path / "alone"
    for root, batch_size in ((together, 4), (alone, 1)):
        assert run(micro, root, photos, views=views, batch_size=batch_size) == 4
    found = features(micro, together, photos, views)
    torch.testing.assert_close(found, features(micro, alone, photos, views), rtol=1e-4, atol=1e-5)
    expected = micro.hyperfeatures(views(read_image(records[3].path)), ["p3.png"])
    expected = torch.cat(list(expected.values()), dim=1)
    torch.testing.assert_close(found[3:], expected, rtol=1e-4, atol=1e-5)
