"""Extract what a store lacks, with Lightning's predict loop, shard by shard."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from latentiqa.data.datamodule import PictureDataModule, PictureDataset
from latentiqa.data.images import MAX_PIXELS
from latentiqa.data.manifest import Record
from latentiqa.data.views import Views
from latentiqa.hyperfeatures.store import FeatureStore, check_space, estimate_bytes
from latentiqa.recipe import recipe_of

log = logging.getLogger(__name__)


class Extractor(Protocol):
    """A LightningModule whose predict step gives hyperfeatures by name, such as LGDM."""

    name: str

    @property
    def widths(self) -> dict[str, int]:
        """Every hyperfeature's name and its length."""
        ...

    def recipe(self) -> dict[str, Any]:
        """All that changes the value of a hyperfeature, as plain data."""
        ...


class ShardWriter(Callback):
    """Collect predictions and write a shard each time enough views have come together.

    Shards end with batches, so a resumed run meets the same batches as an uninterrupted one and
    its features are the same to the bit. What has been computed when a run fails is written too.

    Args:
        store: where to.
        names: the hyperfeatures to keep.
        shard_size: views a shard, about; a killed run loses at most these.
    """

    def __init__(self, store: FeatureStore, names: Sequence[str], shard_size: int) -> None:
        self.store = store
        self.names = names
        self.shard_size = shard_size
        self.keys: list[str] = []
        self.features: list[dict[str, Tensor]] = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: Any,
        outputs: Any,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the batch; write when there is enough."""
        self.keys += batch["key"]
        self.features.append({name: outputs[name].cpu() for name in self.names})
        if len(self.keys) >= self.shard_size:
            self.flush()

    def on_predict_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Write the rest, and wait for the other processes to do so."""
        self.flush()
        trainer.strategy.barrier()

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Nothing that was computed is lost."""
        self.flush()

    def flush(self) -> None:
        """Write what has been collected."""
        keys, features = self.keys, self.features
        # Emptied first: a failing write must not be tried again by on_exception.
        self.keys, self.features = [], []
        if keys:
            stacked = {name: torch.cat([batch[name] for batch in features]) for name in self.names}
            self.store.write(keys, stacked)


def open_store(root: str | Path, method: Extractor, views: Views) -> FeatureStore:
    """The store of these hyperfeatures: its key holds all that changes their values."""
    return FeatureStore(Path(root), method.recipe() | {"picture": recipe_of(views)})


def extract(
    method: Extractor,
    store: FeatureStore,
    records: Sequence[Record],
    keys: Mapping[str, str],
    views: Views,
    make_trainer: Callable[..., Trainer],
    *,
    mirrored: Collection[str] = (),
    max_pixels: int = MAX_PIXELS,
    batch_size: int = 8,
    num_workers: int = 0,
    shard_size: int = 64,
) -> int:
    """Compute the hyperfeatures that the store lacks.

    Args:
        method: the LightningModule that computes them.
        store: from `open_store`.
        records: the dataset's pictures.
        keys: image keys by name of the pictures that are wanted.
        views: of each picture; their features are kept one by one.
        make_trainer: callbacks, changed trainer arguments -> Lightning trainer; called only if
            something is missing.
        mirrored: names of the pictures whose views are wanted mirrored, too.
        max_pixels: see `latentiqa.data.images.read_image`.
        batch_size: views computed together on each device.
        num_workers: processes that read ahead.
        shard_size: views a shard, about.

    Returns:
        Number of pictures that were extracted.

    Raises:
        StoreError: the features do not fit on the disk (before anything is computed), or cannot
            be written.
    """
    asked = {name: views.names(key, flips=name in mirrored) for name, key in keys.items()}
    wanted = [view for of_picture in asked.values() for view in of_picture]
    missing = set(store.missing(wanted, list(method.widths)))
    # Where only some layers are new, only those are written.
    widths = {n: width for n, width in method.widths.items() if store.missing(wanted, [n])}
    pending = {name: keys[name] for name, of_picture in asked.items() if missing & {*of_picture}}
    n_bytes = estimate_bytes(len(missing), widths)
    log.info(
        "features %s: %d of %d pictures are complete in the store %s; to extract: %d views of %d "
        "pictures x %d values x 4 bytes = %.1f MB",
        method.name,
        len(keys) - len(pending),
        len(keys),
        store.path,
        len(missing),
        len(pending),
        sum(widths.values()),
        n_bytes / 1e6,
    )
    if not missing:
        return 0
    check_space(store.path, n_bytes)
    dataset = PictureDataset(records, pending, None, views, missing, max_pixels)
    callbacks = [ShardWriter(store, list(widths), shard_size)]
    trainer = make_trainer(callbacks)
    if trainer.world_size > len(pending):
        # Lightning cannot deal fewer pictures than there are processes.
        trainer = make_trainer(callbacks, devices=1)
    trainer.predict(
        method,  # pyright: ignore[reportArgumentType]
        PictureDataModule(dataset, batch_size, num_workers),
        return_predictions=False,
    )
    store.refresh()
    return len(pending)


def read_features(store: FeatureStore, keys: Sequence[str], names: Sequence[str]) -> Tensor:
    """Hyperfeatures of pictures as one matrix, ``(N, F)`` float32, columns in the order of names.

    Raises:
        StoreError: something asked for is not in the store.
    """
    features = store.read(keys, names)
    return torch.cat([features[name] for name in names], dim=1)
