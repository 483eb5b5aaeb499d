"""Crops that are looked at once, and drawn from again and again.

What frozen models say of a crop, its latents and the targets of the alignment, costs more than the
training step that learns from them. Here it is computed for a number of crops before training,
kept in a store of the disk, and held in memory in half precision.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from latentiqa.data.captions import WORDS, caption, degradations_of
from latentiqa.data.crops import CropModule
from latentiqa.errors import check_integer
from latentiqa.hyperfeatures.store import FeatureStore, check_space, estimate_bytes
from latentiqa.pretraining.diffusion import DiffusionTraining

log = logging.getLogger(__name__)

SHARD = 64
"""Crops a shard of the store: a killed run loses at most so many."""


class CachedCrops(Dataset[dict[str, Any]]):
    """An endless row of draws from some crops; what stands at an index depends on (seed, index).

    Args:
        levels: of degradation, ``(N, K)``.
        latents: of the autoencoder, ``(N, C, h, w)``.
        targets: block -> map ``(N, D, H, W)``.
        seed: of what is drawn.
    """

    def __init__(
        self, levels: Tensor, latents: Tensor, targets: Mapping[str, Tensor], seed: int
    ) -> None:
        self.levels = levels
        self.latents = latents
        self.targets = targets
        self.seed = seed

    def __getitem__(self, index: int) -> dict[str, Any]:
        """What `DiffusionTraining.losses` reads of a crop; its caption is worded anew each time."""
        rng = np.random.default_rng([self.seed, index])
        drawn = int(rng.integers(len(self.levels)))
        return {
            "latents": self.latents[drawn],
            "targets": {block: maps[drawn] for block, maps in self.targets.items()},
            "caption": caption(degradations_of(self.levels[drawn].tolist()), rng),
            "levels": self.levels[drawn],
        }


class CropCache(Callback):
    """Before the first step, fills a store with crops and trains on them.

    With several processes each computes a share. A run that is killed meanwhile goes on behind
    the last shard.

    Args:
        number: crops, the first ones of the training's endless row.
        root: folder of all stores.
        recipe: all that changes what is stored: frozen models, photos, options of the crops.

    Raises:
        ConfigError: not a positive number.
    """

    def __init__(self, number: int, root: Path, recipe: Mapping[str, Any]) -> None:
        check_integer("crops.cached", number, 1)
        self.number = number
        self.root = root
        self.recipe = recipe

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute what is missing; let training read the cached crops.

        Raises:
            StoreError: the disk is too small.
        """
        stage = cast(DiffusionTraining, pl_module)
        # Any: the attribute is added by Lightning's trainer.
        module: CropModule = cast(Any, trainer).datamodule
        with trainer.precision_plugin.forward_context():
            shapes = self.shapes(stage, module.train.size)
            store = FeatureStore(self.root, self.recipe)
            keys = [str(index) for index in range(self.number)]
            todo = [int(key) for key in store.missing(keys, shapes)]
            widths = {name: shape.numel() for name, shape in shapes.items()}
            check_space(self.root, estimate_bytes(len(todo), widths))
            if todo:
                log.info("%s: computing %d of %d crops", store.path, len(todo), self.number)
            share = todo[trainer.global_rank :: trainer.world_size]
            self.fill(store, stage, module, share)
        trainer.strategy.barrier()
        store.refresh()
        levels = store.read(keys, ["levels"])["levels"]
        held = in_half_precision(store, keys, shapes)
        module.source = CachedCrops(levels, held.pop("latents"), held, module.train.seed)

    def shapes(self, stage: DiffusionTraining, size: int) -> dict[str, torch.Size]:
        """Shapes of what is stored of a crop, by name."""
        image = torch.zeros(1, 3, size, size, device=stage.device)
        levels = torch.zeros(1, len(WORDS))
        return {
            name: value.shape[1:] for name, value in flat(stage.describe(image), levels).items()
        }

    def fill(
        self, store: FeatureStore, stage: DiffusionTraining, module: CropModule, todo: list[int]
    ) -> None:
        """Compute crops and write them, a shard at a time."""
        loader = DataLoader(
            Subset(module.train, todo), batch_size=SHARD, num_workers=module.num_workers
        )
        for number, batch in enumerate(loader):
            described = stage.describe(batch["image"].to(stage.device))
            tensors = {
                name: value.flatten(1).float()
                for name, value in flat(described, batch["levels"]).items()
            }
            store.write([str(i) for i in todo[number * SHARD :][: len(batch["levels"])]], tensors)


def in_half_precision(
    store: FeatureStore, keys: Sequence[str], shapes: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """What is stored of some crops, levels apart, ``(N, *shape)`` float16 by name."""
    return {
        # One after the other: a store answers in single precision.
        name: store.read(keys, [name])[name].half().view(-1, *shape)
        for name, shape in shapes.items()
        if name != "levels"
    }


def flat(described: Mapping[str, Any], levels: Tensor) -> dict[str, Tensor]:
    """The tensors of `DiffusionTraining.describe`, and levels, in one mapping."""
    return {"levels": levels, "latents": described["latents"], **described["targets"]}
