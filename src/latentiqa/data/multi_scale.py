"""Views at several scales: the whole picture, and crops of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latentiqa.data.views import Sized, resize, scale_short_side
from latentiqa.errors import ConfigError, check_integer


@dataclass(frozen=True)
class MultiScale(Sized):
    """One view of the whole picture, and as many crops at each scale, from a grid.

    With 7 crops at scales 1 and 0.75, 15 views in all, and a stride of 32 this is how MS-LIQE sees
    a picture at a size of 224. That the global view is the whole picture stretched to a square,
    and which places of the grid are taken, is our reading: they are spread evenly over it, row by
    row, beginning at the upper left corner, and repeated where there are fewer than crops. Where
    a scale leaves the short side below ``size`` the picture is scaled so that it has just that.

    Attributes:
        size: side of all views in pixels.
        crops: at each scale.
        scales: of the picture before it is cropped; at 1.0 it keeps its own pixels.
        stride: of the grid, pixels at that scale.

    Raises:
        ConfigError: a value is outside its range.

    Example:
        >>> MultiScale(64)(torch.rand(3, 100, 150)).shape
        torch.Size([15, 3, 64, 64])
        >>> MultiScale(64, crops=3).places(100, 100)
        [(0, 0), (32, 32), (64, 64)]
    """

    crops: int = 7
    scales: Sequence[float] = (1.0, 0.75)
    stride: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("views.crops", self.crops, 1)
        check_integer("views.stride", self.stride, 1)
        if isinstance(self.scales, str) or not isinstance(self.scales, Sequence):
            raise ConfigError(f"views.scales={self.scales}: expected a list, such as [1.0, 0.75].")
        # The same address whether it was written as a list or not, as integers or not.
        object.__setattr__(self, "scales", tuple(map(float, self.scales)))
        if not self.scales or not 0 < min(self.scales) <= max(self.scales) < float("inf"):
            raise ConfigError(
                f"views.scales={list(self.scales)}: expected one or more numbers > 0, such as "
                "[1.0, 0.75]."
            )

    @property
    def number(self) -> int:
        """One, and the crops of all scales."""
        return 1 + self.crops * len(self.scales)

    def __call__(self, image: Tensor, name: str = "") -> Tensor:
        """``(number, 3, size, size)``: the whole picture, then the crops scale by scale."""
        views = [resize(image, self.size, self.size)]
        shorter = min(image.shape[-2:])
        for scale in self.scales:
            side = max(self.size, round(scale * shorter))
            scaled = image if side == shorter else scale_short_side(image, side)
            height, width = scaled.shape[-2:]
            places = self.places(height - self.size, width - self.size)
            views += [scaled[:, y : y + self.size, x : x + self.size] for y, x in places]
        return torch.stack(views).clamp(0, 1)

    def places(self, below: int, right: int) -> list[tuple[int, int]]:
        """The crops' upper left corners at one scale, (y, x).

        Args:
            below: the largest y that keeps a crop inside the scaled picture.
            right: the largest x.
        """
        rows, columns = (range(0, room + 1, self.stride) for room in (below, right))
        grid = [(y, x) for y in rows for x in columns]
        return [grid[i * len(grid) // self.crops] for i in range(self.crops)]
