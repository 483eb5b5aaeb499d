"""Pictures in batches, for Lightning's predict loop and for training."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, default_collate

from latentiqa.data.images import MAX_PIXELS, read_image
from latentiqa.data.manifest import Record
from latentiqa.data.views import Views, alike
from latentiqa.errors import ConfigError, check_integer

Sample = dict[str, Any]

Complete = Callable[[dict[str, Any]], dict[str, Any]]
"""What adds to a batch."""


class PictureDataset(Dataset[list[Sample]]):
    """Pictures with their scores: an item is the list of one picture's views, a sample each.

    Args:
        records: all pictures of the dataset; the position among them is a sample's ``index``.
        keys: image keys by name, from `latentiqa.data.images.inspect_images`. Pictures without a
            key are left out.
        target: maps a raw score to [0, 1], usually ``manifest.target``. ``None`` for pictures
            that nobody has rated: their ``target`` is NaN.
        views: of each picture.
        wanted: keys of the views to keep, as `Views.names` makes them of a picture's key, those of
            mirrored copies among them; None for all views and no mirrored copy.
        max_pixels: see `latentiqa.data.images.read_image`.

    Raises:
        ConfigError: a key belongs to none of the records.
    """

    def __init__(
        self,
        records: Sequence[Record],
        keys: Mapping[str, str],
        target: Callable[[float], float] | None,
        views: Views,
        wanted: Collection[str] | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if unknown := set(keys) - {record.name for record in records}:
            raise ConfigError(
                f"keys={sorted(unknown)[:5]}: {len(unknown)} names are not among the records; "
                "expected keys of this dataset's pictures"
            )
        self.samples = [(i, record) for i, record in enumerate(records) if record.name in keys]
        self.keys = keys
        self.target = target
        self.views = views
        self.wanted = wanted
        self.max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> list[Sample]:
        """Samples of a picture's views: image, mos, target, name, index, key.

        Raises:
            DataError: the file cannot be read.
        """
        index, record = self.samples[position]
        key = self.keys[record.name]
        wanted = self.views.names(key) if self.wanted is None else self.wanted
        views = self.views(read_image(record.path, self.max_pixels), record.name)
        names, keys = (self.views.names(text, flips=True) for text in (record.name, key))
        picture = {
            "mos": record.mos,
            "target": math.nan if self.target is None else self.target(record.mos),
            "index": index,
        }
        return [
            picture | {"image": image, "name": name, "key": key}
            for image, name, key in zip([*views, *views.flip(-1)], names, keys, strict=True)
            if key in wanted
        ]


class PictureDataModule(LightningDataModule):
    """Batches in the order of the records, for ``Trainer.predict``.

    Args:
        dataset: the pictures.
        batch_size: views that are computed together; a batch holds all views of a picture.
        num_workers: processes that read ahead; 0 reads in the main process.

    Raises:
        ConfigError: a batch size below 1 or a negative number of workers.
    """

    def __init__(self, dataset: PictureDataset, batch_size: int, num_workers: int = 0) -> None:
        super().__init__()
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size}: expected at least 1")
        if num_workers < 0:
            raise ConfigError(f"num_workers={num_workers}: expected 0 or more")
        self.dataset = dataset
        self.batch_size = batch_size
        self.num_workers = num_workers

    def predict_dataloader(self) -> DataLoader[list[Sample]]:
        """All samples once, unshuffled."""
        return DataLoader(
            self.dataset,
            batch_size=max(1, self.batch_size // self.dataset.views.number),
            shuffle=False,
            num_workers=self.num_workers,
            collate_fn=partial(collate, most=self.batch_size),
        )


class Rounds(Dataset[list[Sample]]):
    """Pictures without end, in rounds: all of them in a new order, each in one of its views.

    Order and views depend on (seed, round) alone, so training goes on where it was from the number
    of pictures already seen.

    Args:
        pictures: of a round, one or more.
        seed: of orders and views.

    Example:
        >>> rounds = Rounds([["a", "a mirrored"], ["b"], ["c"]], seed=0)
        >>> row = [rounds[position][0] for position in range(6)]
        >>> [sorted(view[0] for view in row[i : i + 3]) for i in (0, 3)]
        [['a', 'b', 'c'], ['a', 'b', 'c']]
    """

    def __init__(self, pictures: PictureDataset | Sequence[list[Any]], seed: int = 0) -> None:
        self.pictures = pictures
        self.seed = seed
        self._known: tuple[int, NDArray[np.intp]] | None = None

    def __getitem__(self, position: int) -> list[Sample]:
        """The one sample at a position of the row, 0 or more."""
        number, place = divmod(position, len(self.pictures))
        index = int(self._order(number)[place])
        views = self.pictures[index]
        return [views[np.random.default_rng([self.seed, number, index]).integers(len(views))]]

    def _order(self, number: int) -> NDArray[np.intp]:
        if self._known is None or self._known[0] != number:
            drawn = np.random.default_rng([self.seed, number]).permutation(len(self.pictures))
            self._known = number, drawn
        return self._known[1]


class RatedModule(LightningDataModule):
    """Rated pictures for training without end, shuffled, and those of validation.

    Args:
        train: pictures to train on; of several views of a picture one is shown each round, so that
            no two scores in a batch are of the same picture.
        val: pictures to choose on.
        batch_size: pictures of a pass on each device.
        val_batch_size: views that are computed together in validation.
        num_workers: processes that read ahead; 0 reads in the main process.
        seed: of the order.
        complete: gives a batch of training what else it needs, where it is read.

    Raises:
        ConfigError: a value is outside its range.
    """

    def __init__(
        self,
        train: PictureDataset,
        val: PictureDataset,
        batch_size: int,
        val_batch_size: int,
        num_workers: int = 0,
        seed: int = 0,
        complete: Complete | None = None,
    ) -> None:
        super().__init__()
        check_integer("batch_size", batch_size, 1)
        check_integer("val_batch_size", val_batch_size, 1)
        check_integer("num_workers", num_workers, 0)
        self.train = train
        self.val = val
        self.batch_size = batch_size
        self.val_batch_size = val_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.complete = complete

    def train_dataloader(self) -> DataLoader[list[Sample]]:
        """See `Rounds`; of a resumed run, from the first picture that it has not seen."""
        rank, ranks, seen = 0, 1, 0
        if self.trainer is not None:
            rank, ranks = self.trainer.global_rank, self.trainer.world_size
            a_step = self.batch_size * ranks * self.trainer.accumulate_grad_batches
            seen = self.trainer.global_step * a_step
        rounds = Rounds(self.train, self.seed)
        positions = count(seen + rank, ranks)
        return self._loader(rounds, positions, self.batch_size, self.batch_size, self.complete)

    def val_dataloader(self) -> DataLoader[list[Sample]]:
        """Every picture; of several devices each has as many, for which some come twice."""
        rank, ranks = 0, 1
        if self.trainer is not None:
            rank, ranks = self.trainer.global_rank, self.trainer.world_size
        n = len(self.val)
        positions = [i % n for i in range(rank, math.ceil(n / ranks) * ranks, ranks)]
        pictures = max(1, self.val_batch_size // self.val.views.number)
        return self._loader(self.val, positions, pictures, self.val_batch_size)

    def _loader(
        self,
        pictures: Dataset[list[Sample]],
        positions: Iterable[int],
        batch_size: int,
        most: int,
        complete: Complete | None = None,
    ) -> DataLoader[list[Sample]]:
        return DataLoader(
            pictures,
            batch_size=batch_size,
            sampler=positions,
            num_workers=self.num_workers,
            collate_fn=partial(collate, most=most, complete=complete),
        )


def collate(
    pictures: Sequence[Sequence[Sample]], most: int, complete: Complete | None = None
) -> dict[str, Any]:
    """Stack the samples of pictures into a batch.

    Args:
        pictures: items of a `PictureDataset`, B samples in all.
        most: samples that are stacked.
        complete: adds to the batch.

    Returns:
        ``image`` a list of (b, 3, h, w), B pictures in all: those of one shape are together;
        ``mos`` (B,) and ``target`` (B,) float32, ``index`` (B,) int64, ``name`` and ``key`` lists
        of B strings.
    """
    samples = [sample for views in pictures for sample in views]
    columns = {field: [sample[field] for sample in samples] for field in samples[0]}
    batch = columns | {
        # In a worker straight into the memory that the main process reads; `stack` would copy.
        "image": [default_collate(batch) for batch in alike(columns["image"], most)],
        "mos": torch.tensor(columns["mos"], dtype=torch.float32),
        "target": torch.tensor(columns["target"], dtype=torch.float32),
        "index": torch.tensor(columns["index"], dtype=torch.int64),
    }
    return batch if complete is None else complete(batch)
