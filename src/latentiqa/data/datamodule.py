"""Pictures in batches, for Lightning's predict loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from latentiqa.data.images import read_image
from latentiqa.data.manifest import Record
from latentiqa.errors import ConfigError

Sample = dict[str, Any]


class PictureDataset(Dataset[Sample]):
    """Pictures with their scores, one sample each.

    Args:
        records: all pictures of the dataset; the position among them is a sample's ``index``.
        keys: image keys by name, from `latentiqa.data.images.inspect_images`. Pictures without a
            key are left out.
        target: maps a raw score to [0, 1], usually ``manifest.target``. ``None`` for pictures
            that nobody has rated: their ``target`` is NaN.
        transform: makes all pictures of one shape, (3, H, W) to (3, h, w); usually
            `latentiqa.data.images.Resize`.

    Raises:
        ConfigError: a key belongs to none of the records.
    """

    def __init__(
        self,
        records: Sequence[Record],
        keys: Mapping[str, str],
        target: Callable[[float], float] | None,
        transform: Callable[[Tensor], Tensor],
    ) -> None:
        if unknown := set(keys) - {record.name for record in records}:
            raise ConfigError(
                f"keys={sorted(unknown)[:5]}: {len(unknown)} names are not among the records; "
                "expected keys of this dataset's pictures"
            )
        self.samples = [(i, record) for i, record in enumerate(records) if record.name in keys]
        self.keys = keys
        self.target = target
        self.transform = transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> Sample:
        """One sample: image, mos, target, name, index, key.

        Raises:
            DataError: the file cannot be read.
        """
        index, record = self.samples[position]
        return {
            "image": self.transform(read_image(record.path)),
            "mos": record.mos,
            "target": math.nan if self.target is None else self.target(record.mos),
            "name": record.name,
            "index": index,
            "key": self.keys[record.name],
        }


class PictureDataModule(LightningDataModule):
    """Batches in the order of the records, for ``Trainer.predict``.

    Args:
        dataset: the pictures.
        batch_size: pictures a batch.
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

    def predict_dataloader(self) -> DataLoader[Sample]:
        """All samples once, unshuffled."""
        return DataLoader(
            self.dataset,
            batch_size=self.batch_size,
            shuffle=False,
            num_workers=self.num_workers,
            collate_fn=collate,
        )


def collate(samples: Sequence[Sample]) -> dict[str, Any]:
    """Stack samples into a batch.

    Returns:
        ``image`` (B, 3, H, W), ``mos`` (B,) and ``target`` (B,) float32, ``index`` (B,) int64,
        ``name`` and ``key`` lists of B strings.
    """
    columns = {field: [sample[field] for sample in samples] for field in samples[0]}
    return columns | {
        # In a worker straight into the memory that the main process reads; `stack` would copy.
        "image": default_collate(columns["image"]),
        "mos": torch.tensor(columns["mos"], dtype=torch.float32),
        "target": torch.tensor(columns["target"], dtype=torch.float32),
        "index": torch.tensor(columns["index"], dtype=torch.int64),
    }
