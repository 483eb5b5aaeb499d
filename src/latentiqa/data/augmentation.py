"""KADID-10k's distortions at random, for training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from latentiqa.data.kadid import check_kinds, check_levels, distort
from latentiqa.errors import ConfigError, check_integer


class RandomDistortion:
    """Distorts a picture with probability ``p``, by a random kind at a random level.

    What is done depends on (seed, index) alone, not on the order of the pictures or on the
    number of workers. It belongs into a dataset's ``__getitem__``, between reading a picture or
    a crop and scaling it:

        image = self.augment(read_image(record.path), index + epoch * len(self))

    (`latentiqa.data.crops.DegradedCrops` has kinds of its own, for which there are captions.)

    Args:
        p: probability of a distortion.
        types: which of `latentiqa.data.kadid.KINDS`, by numbers or names; default: all 25.
        levels: which of 1 to 5; default: all.
        seed: of everything that is drawn.

    Raises:
        ConfigError: a value is outside its range.

    Example:
        >>> augment = RandomDistortion(p=0.9, types=["jpeg", "lens_blur"], levels=[4, 5])
        >>> [augment.draw(index) for index in range(3)]
        [(10, 4), (10, 5), (2, 4)]
        >>> augment(torch.rand(3, 48, 64), index=0).shape
        torch.Size([3, 48, 64])
    """

    def __init__(
        self,
        p: float = 0.5,
        types: Sequence[int | str] | None = None,
        levels: Sequence[int] | None = None,
        seed: int = 0,
    ) -> None:
        if not 0 <= p <= 1:
            raise ConfigError(f"p={p}: expected a probability")
        check_integer("seed", seed, 0)
        self.p = p
        self.kinds = check_kinds(types)
        self.levels = check_levels(levels)
        self.seed = seed

    def draw(self, index: int) -> tuple[int, int] | None:
        """Kind and level of the picture at an index, or none if it is left as it is."""
        rng = np.random.default_rng([self.seed, index])
        if rng.random() >= self.p:
            return None
        return int(rng.choice(self.kinds)), int(rng.choice(self.levels))

    def __call__(self, image: Tensor, index: int) -> Tensor:
        """Distort a picture, or give it back.

        Args:
            image: (3, H, W), float32 in [0, 1], of 16 pixels a side and more.
            index: its place in the row of all pictures that training sees, 0 and more.

        Returns:
            (3, H, W), float32 in [0, 1].

        Raises:
            LatentiqaError: the installed Pillow has no JPEG 2000 codec.
        """
        drawn = self.draw(index)
        if drawn is None:
            return image
        kind, level = drawn
        # A stream of its own: `draw` has used the first numbers of (seed, index).
        seed = int(np.random.default_rng([self.seed, index, 1]).integers(2**31))
        distorted = distort(image.permute(1, 2, 0).numpy(), kind, level, seed)
        return torch.from_numpy(np.ascontiguousarray(distorted)).permute(2, 0, 1).contiguous()
