"""Large pictures in overlapping tiles, and back without seams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from latentiqa.errors import ConfigError, check_integer


@dataclass(frozen=True)
class Tiling:
    """Squares of a picture.

    Args:
        side: of a tile, pixels; None: one tile, the whole picture.
        overlap: of neighbours, pixels, below half of the side; more where they must reach.

    Raises:
        ConfigError: a value is outside its range.
    """

    side: int | None = None
    overlap: int = 64

    def __post_init__(self) -> None:
        check_integer("tiles.overlap", self.overlap, 0)
        if self.side is not None:
            check_integer("tiles.side", self.side, 1)
            if 2 * self.overlap >= self.side:
                raise ConfigError(
                    f"tiles.overlap={self.overlap}: expected less than half of tiles.side="
                    f"{self.side}."
                )


@dataclass(frozen=True)
class Tiles:
    """A picture that has been cut; one that is smaller than a tile is padded to it.

    Args:
        height: of the picture.
        width: of the picture.
        tiling: how large tiles are.
        multiple: sides of tiles are multiples of it.

    Raises:
        ConfigError: the tiles' side is no multiple.

    Example:
        >>> tiles = Tiles(100, 300, Tiling(128, 32), multiple=64)
        >>> tiles.places
        [(0, 0), (0, 86), (0, 172)]
    """

    height: int
    width: int
    tiling: Tiling
    multiple: int

    def __post_init__(self) -> None:
        if self.tiling.side is not None and self.tiling.side % self.multiple:
            raise ConfigError(
                f"tiles.side={self.tiling.side}: expected a multiple of {self.multiple}, or null."
            )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a tile."""
        height, width = (-(-n // self.multiple) * self.multiple for n in (self.height, self.width))
        side = self.tiling.side
        return (height, width) if side is None else (min(side, height), min(side, width))

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width of the picture after padding."""
        height, width = self.size
        return max(height, self.height), max(width, self.width)

    @property
    def places(self) -> list[tuple[int, int]]:
        """Top and left of each tile in the padded picture, row by row."""
        rows, columns = (
            _starts(length, side, self.tiling.overlap)
            for length, side in zip(self.padded, self.size, strict=True)
        )
        return [(top, left) for top in rows for left in columns]

    def cut(self, image: Tensor) -> Iterator[Tensor]:
        """The tiles ``(3, h, w)`` of a picture ``(3, H, W)``; its borders are replicated."""
        below, right = (p - n for p, n in zip(self.padded, image.shape[-2:], strict=True))
        padded = F.pad(image[None], (0, right, 0, below), "replicate")[0]
        height, width = self.size
        for top, left in self.places:
            yield padded[:, top : top + height, left : left + width]

    def blend(self, tiles: Sequence[Tensor]) -> Tensor:
        """The picture ``(3, H, W)``; where tiles overlap, one fades into the other linearly."""
        height, width = self.size
        window = torch.outer(*(_ramps(side, self.tiling.overlap) for side in (height, width)))
        total = torch.zeros(3, *self.padded)
        weights = torch.zeros(self.padded)
        for (top, left), tile in zip(self.places, tiles, strict=True):
            place = (..., slice(top, top + height), slice(left, left + width))
            total[place] += window * tile.float().cpu()
            weights[place] += window
        return (total / weights)[:, : self.height, : self.width]


def _starts(length: int, side: int, overlap: int) -> list[int]:
    """Where tiles begin: evenly, the last one at the end, overlapping at least so much."""
    if length == side:
        return [0]
    number = 1 + -(-(length - side) // (side - overlap))
    return [round(i * (length - side) / (number - 1)) for i in range(number)]


def _ramps(side: int, overlap: int) -> Tensor:
    """Weights that rise from near 0 over the overlap, are 1 in the middle, and fall again."""
    distance = torch.minimum(torch.arange(1, side + 1), torch.arange(side, 0, -1))
    return (distance / (overlap + 1)).clamp(max=1.0)
