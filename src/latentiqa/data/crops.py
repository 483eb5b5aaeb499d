"""Random crops of photos, degraded on the fly and captioned with what was done to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from latentiqa.data.captions import caption, levels, sample_degradations
from latentiqa.data.distortions import distort
from latentiqa.data.images import MAX_PIXELS, read_image
from latentiqa.data.manifest import Record
from latentiqa.errors import ConfigError, check_integer


class DegradedCrops(Dataset[dict[str, Any]]):
    """An endless row of degraded crops: what stands at an index depends on (seed, index) alone.

    Args:
        records: the photos; their scores are not read.
        size: side of the crops, pixels. Smaller photos are enlarged to it.
        seed: of everything that is drawn.
        clean: probability of a crop that is left as it is.
        zoom: the largest side that is cropped, in multiples of ``size``; it is drawn between 1
            and this (and what the photo has), and scaled down to ``size``.
        max_pixels: see `latentiqa.data.images.read_image`.

    Raises:
        ConfigError: a value is outside its range.
    """

    def __init__(
        self,
        records: Sequence[Record],
        size: int = 256,
        seed: int = 0,
        clean: float = 0.25,
        zoom: float = 2.0,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if not records:
            raise ConfigError("crops: expected at least one photo.")
        check_integer("crops.size", size, 32)
        if not 0 <= clean <= 1:
            raise ConfigError(f"crops.clean={clean}: expected a probability.")
        if not zoom >= 1:
            raise ConfigError(f"crops.zoom={zoom}: expected a factor >= 1.")
        self.records = records
        self.size = size
        self.seed = seed
        self.clean = clean
        self.zoom = zoom
        self.max_pixels = max_pixels

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``image`` (3, size, size) in [0, 1], ``caption``, ``levels`` (K,) and ``name``.

        Raises:
            DataError: the photo cannot be read.
        """
        rng = np.random.default_rng([self.seed, index])
        record = self.records[int(rng.integers(len(self.records)))]
        photo = read_image(record.path, self.max_pixels)
        crop = random_crop(photo, self.size, self.zoom, rng)
        degradations = sample_degradations(rng, clean=self.clean)
        picture = crop.permute(1, 2, 0).numpy()
        for kind, level in degradations:
            picture = distort(picture, kind, level, seed=int(rng.integers(2**31)))
        image = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)
        return {
            "image": image,
            "caption": caption(degradations, rng),
            "levels": torch.tensor(levels(degradations)),
            "name": record.name,
        }


def random_crop(image: Tensor, size: int, zoom: float, rng: np.random.Generator) -> Tensor:
    """A random square of a photo, scaled to ``size``, mirrored half of the time.

    Args:
        image: ``(3, H, W)`` in [0, 1].
        size: side of the result, pixels.
        zoom: the square's side is drawn from [1, zoom] times ``size``, as far as the photo goes.
        rng: draws side, place and mirroring.

    Returns:
        ``(3, size, size)`` in [0, 1].
    """
    shorter = min(image.shape[-2:])
    side = min(round(size * rng.uniform(1, zoom)), shorter)
    top, left = (int(rng.integers(length - side + 1)) for length in image.shape[-2:])
    crop = image[:, top : top + side, left : left + side]
    if side != size:
        scaled = F.interpolate(crop[None], size=(size, size), mode="bicubic", antialias=True)
        crop = scaled[0].clamp(0, 1)
    return crop.flip(-1) if rng.random() < 0.5 else crop


class Onward(Sampler[int]):
    """The indices from ``start`` on, without end, every ``stride``-th.

    Training goes on where it was by starting at the number of crops already seen.
    """

    def __init__(self, start: int = 0, stride: int = 1) -> None:
        self.start = start
        self.stride = stride

    def __iter__(self) -> Iterator[int]:
        index = self.start
        while True:
            yield index
            index += self.stride


class CropModule(LightningDataModule):
    """Crops for training without end, and a fixed row of held-out crops.

    Args:
        train: crops of the training photos.
        val: crops of other photos.
        val_crops: how many of them validation looks at.
        batch_size: crops a step and device.
        num_workers: processes that read ahead; 0 reads in the main process.

    Attributes:
        source: what training reads: ``train``, or what has been put in its place.

    Raises:
        ConfigError: a value is outside its range.
    """

    def __init__(
        self,
        train: DegradedCrops,
        val: DegradedCrops,
        val_crops: int = 128,
        batch_size: int = 16,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        check_integer("crops.val_crops", val_crops, 1)
        check_integer("crops.batch_size", batch_size, 1)
        check_integer("crops.num_workers", num_workers, 0)
        self.train = train
        self.source: Dataset[dict[str, Any]] = train
        self.val = val
        self.val_crops = val_crops
        self.batch_size = batch_size
        self.num_workers = num_workers

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Crops without end; of a resumed run, from the first one that it has not seen."""
        rank, ranks, seen = 0, 1, 0
        if self.trainer is not None:
            rank, ranks = self.trainer.global_rank, self.trainer.world_size
            a_step = self.batch_size * ranks * self.trainer.accumulate_grad_batches
            seen = self.trainer.global_step * a_step
        return self._loader(self.source, Onward(seen + rank, ranks))

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The same held-out crops every time."""
        rank, ranks = 0, 1
        if self.trainer is not None:
            rank, ranks = self.trainer.global_rank, self.trainer.world_size
        return self._loader(self.val, range(rank, self.val_crops, ranks))

    def _loader(
        self, crops: Dataset[dict[str, Any]], sampler: Sampler[int] | range
    ) -> DataLoader[dict[str, Any]]:
        return DataLoader(
            crops,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )
