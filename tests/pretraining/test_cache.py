from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning import Trainer
from PIL import Image

from latentiqa.data.captions import caption, degradations_of, levels, sample_degradations
from latentiqa.data.crops import CropModule, DegradedCrops
from latentiqa.data.manifest import Record
from latentiqa.errors import ConfigError
from latentiqa.pretraining.alignment import LinearAlignment
from latentiqa.pretraining.cache import CachedCrops, CropCache

from .conftest import encoder


@pytest.fixture
def crops(tmp_path):
    rng = np.random.default_rng(0)
    records = []
    for i in range(3):
        path = tmp_path / f"{i}.png"
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(path)
        records.append(Record(path.name, path, mos=0.0))
    return DegradedCrops(records, size=32, seed=4)


@pytest.fixture
def fit(crops, diffusion, tmp_path):
    """Trains a step on so many cached crops; returns the stage and the data module."""

    def run(number, recipe=None):
        stage = diffusion(alignment=LinearAlignment(encoder, {"mid.resnet.0": ["a"]}))
        module = CropModule(crops, crops, val_crops=2, batch_size=2)
        cache = CropCache(number, tmp_path / "store", recipe or {"kind": "crops"})
        trainer = Trainer(
            accelerator="cpu",
            max_steps=1,
            limit_val_batches=0,
            callbacks=[cache],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(stage, module)
        return stage, module

    return run


def test_what_is_cached_is_what_the_frozen_models_say(fit, crops):
    stage, module = fit(3)
    cached = module.source
    assert isinstance(cached, CachedCrops)
    assert module.train is crops
    for index in range(3):
        crop = crops[index]
        expected = stage.describe(crop["image"][None])
        torch.testing.assert_close(
            cached.latents[index].float(), expected["latents"][0], rtol=1e-3, atol=1e-3
        )
        torch.testing.assert_close(
            cached.targets["a"][index].float(), expected["targets"]["a"][0], rtol=1e-3, atol=1e-3
        )
        torch.testing.assert_close(cached.levels[index], crop["levels"])


def test_draws_depend_on_seed_and_index_and_reach_every_crop(fit):
    _, module = fit(3)
    cached = module.source
    rows = [cached[index] for index in range(60)]
    again = cached[7]
    assert again["caption"] == rows[7]["caption"]
    assert torch.equal(again["latents"], rows[7]["latents"])
    drawn = {tuple(row["latents"].flatten().tolist()) for row in rows}
    assert len(drawn) == 3
    # The words change, what they say does not.
    for row in rows:
        done = degradations_of(row["levels"].tolist())
        rngs = [np.random.default_rng(i) for i in range(200)]
        assert row["caption"] in {caption(done, rng) for rng in rngs}


def test_only_what_is_missing_is_computed(fit, crops, monkeypatch):
    read = []
    original = DegradedCrops.__getitem__
    monkeypatch.setattr(
        DegradedCrops, "__getitem__", lambda self, i: read.append(i) or original(self, i)
    )
    fit(2)
    fit(5)
    fit(5)
    assert read == [0, 1, 2, 3, 4]
    fit(1, {"kind": "crops", "autoencoder": "another"})
    assert read[5:] == [0]


def test_degradations_are_read_from_their_levels():
    for seed in range(50):
        done = sample_degradations(np.random.default_rng(seed))
        assert degradations_of(torch.tensor(levels(done)).tolist()) == done


def test_a_cache_holds_a_crop_at_least(tmp_path):
    with pytest.raises(ConfigError, match=r"crops\.cached=0"):
        CropCache(0, tmp_path, {})
