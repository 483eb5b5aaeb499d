"""Views of a picture: what of it a method sees, the whole of it resized, or crops."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice

import torch
import torch.nn.functional as F
from torch import Tensor

from latentiqa.errors import ConfigError, check_integer
from latentiqa.noise import generator_of


@dataclass(frozen=True)
class Views(ABC):
    """Turns a picture into K views of it; a method's score is the mean of theirs.

    All scaling is bicubic with antialiasing. A view depends on the picture and its name alone, so
    that scores depend neither on the batch nor on the order.
    """

    @property
    def number(self) -> int:
        """K, the views of a picture."""
        return 1

    @abstractmethod
    def __call__(self, image: Tensor, name: str = "") -> Tensor:
        """The views of a picture, differentiably.

        Args:
            image: ``(3, H, W)`` in [0, 1].
            name: the picture's.

        Returns:
            ``(K, 3, h, w)`` in [0, 1].
        """

    def names(self, name: str, flips: bool = False) -> list[str]:
        """Names of a picture's views, or their keys in a feature store.

        Args:
            name: the picture's name or key; of a single view it is the view's too.
            flips: after them, those of their mirrored copies.

        Example:
            >>> Square(64).names("a.png", flips=True), GridCrops(64, crops=2).names("a.png")
            (['a.png', 'a.png#mirrored'], ['a.png#0', 'a.png#1'])
        """
        names = [name] if self.number == 1 else [f"{name}#{k}" for k in range(self.number)]
        return [*names, *(f"{view}#mirrored" for view in names)] if flips else names


@dataclass(frozen=True)
class Sized(Views, ABC):
    """Views whose size is given.

    Attributes:
        size: in pixels; of which side, each says itself.

    Raises:
        ConfigError: a size below 1.
    """

    size: int

    def __post_init__(self) -> None:
        check_integer("views.size", self.size, 1)


@dataclass(frozen=True)
class Square(Sized):
    """The whole picture, stretched to a square: both sides are scaled, the aspect is not kept.

    Attributes:
        size: side in pixels.

    Raises:
        ConfigError: a size below 1.

    Example:
        >>> Square(64)(torch.rand(3, 100, 150)).shape
        torch.Size([1, 3, 64, 64])
    """

    def __call__(self, image: Tensor, name: str = "") -> Tensor:
        """``(1, 3, size, size)``."""
        return resize(image, self.size, self.size)[None]


@dataclass(frozen=True)
class Centre(Sized):
    """The middle of the picture after its short side has been scaled to the size.

    Attributes:
        size: side in pixels.

    Raises:
        ConfigError: a size below 1.

    Example:
        >>> Centre(64)(torch.rand(3, 100, 150)).shape
        torch.Size([1, 3, 64, 64])
    """

    def __call__(self, image: Tensor, name: str = "") -> Tensor:
        """``(1, 3, size, size)``."""
        return centre_crop(scale_short_side(image, self.size), self.size, self.size)[None]


@dataclass(frozen=True)
class ShortSide(Sized):
    """The whole picture in its aspect, as near as the multiple allows.

    Attributes:
        size: the short side in pixels, a multiple of ``multiple``.
        multiple: the long side is the nearest multiple of it, not below ``size``; a latent
            diffusion model halves its latents all the way through its U-Net.

    Raises:
        ConfigError: a value is outside its range.

    Example:
        >>> ShortSide(64, multiple=16)(torch.rand(3, 100, 150)).shape
        torch.Size([1, 3, 64, 96])
    """

    multiple: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("views.multiple", self.multiple, 1)
        if self.size % self.multiple:
            raise ConfigError(
                f"views.size={self.size}: expected a multiple of views.multiple={self.multiple}; "
                "choose another resolution, or for method=psi views.multiple=1."
            )

    def __call__(self, image: Tensor, name: str = "") -> Tensor:
        """``(1, 3, h, w)``; min(h, w) is ``size``."""
        scale = self.size / min(image.shape[-2:]) / self.multiple
        height, width = (round(side * scale) * self.multiple for side in image.shape[-2:])
        return resize(image, height, width)[None]


@dataclass(frozen=True)
class Whole(Views):
    """The picture in its own pixels: nothing is interpolated, so noise and blur stay as they are.

    What is over a multiple is cut off evenly at the edges, less than ``multiple`` a side. Only a
    picture with a side below ``multiple`` is scaled, its short side to just that.

    Attributes:
        multiple: as for `ShortSide`.

    Raises:
        ConfigError: a multiple below 1.

    Example:
        >>> Whole(multiple=64)(torch.rand(3, 100, 150)).shape
        torch.Size([1, 3, 64, 128])
    """

    multiple: int = 64

    def __post_init__(self) -> None:
        check_integer("views.multiple", self.multiple, 1)

    def __call__(self, image: Tensor, name: str = "") -> Tensor:
        """``(1, 3, h, w)``, multiples."""
        image = enlarge(image, self.multiple)
        height, width = (side - side % self.multiple for side in image.shape[-2:])
        return centre_crop(image, height, width).clamp(0, 1)[None]


@dataclass(frozen=True)
class Crops(Sized, ABC):
    """Squares of the picture. One that is smaller than a crop is first scaled up to it.

    Attributes:
        size: side of a crop in pixels.
        crops: K.
        short_side: what the picture's short side is scaled to before, ``size`` or more; None
            leaves the picture in its own pixels.

    Raises:
        ConfigError: a value is outside its range.
    """

    crops: int
    short_side: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("views.crops", self.crops, 1)
        if self.short_side is not None:
            check_integer("views.short_side", self.short_side, self.size)

    @property
    def number(self) -> int:
        """The number of crops."""
        return self.crops

    def __call__(self, image: Tensor, name: str = "") -> Tensor:
        """``(crops, 3, size, size)``."""
        if self.short_side is None:
            image = enlarge(image, self.size)
        else:
            image = scale_short_side(image, self.short_side)
        height, width = image.shape[-2:]
        places = self.places(height - self.size, width - self.size, name)
        crops = [image[:, y : y + self.size, x : x + self.size] for y, x in places]
        return torch.stack(crops).clamp(0, 1)

    @abstractmethod
    def places(self, below: int, right: int, name: str) -> list[tuple[int, int]]:
        """The crops' upper left corners, (y, x).

        Args:
            below: the largest y that keeps a crop inside the picture.
            right: the largest x.
            name: the picture's.
        """


@dataclass(frozen=True)
class RandomCrops(Crops):
    """Crops at random places, the same for a picture every time.

    Attributes:
        seed: draws the places, together with the picture's name and the crop's number.

    Example:
        >>> RandomCrops(64, crops=5)(torch.rand(3, 100, 150), "a.png").shape
        torch.Size([5, 3, 64, 64])
    """

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("views.seed", self.seed, 0)

    def places(self, below: int, right: int, name: str) -> list[tuple[int, int]]:
        """Each place is as likely as any other."""
        drawn = []
        for number in range(self.crops):
            generator = generator_of(self.seed, name, f"crop {number}")
            y, x = (int(torch.randint(n + 1, (), generator=generator)) for n in (below, right))
            drawn.append((y, x))
        return drawn


@dataclass(frozen=True)
class GridCrops(Crops):
    """Crops in rows and columns from edge to edge, evenly spaced.

    Of all grids with that many crops it is the one whose largest step between neighbours is
    smallest; so 6 crops are 2 x 3 of a landscape and 3 x 2 of a portrait. A single row or column
    goes through the middle, and counts as a step of twice what is left beside it.

    Example:
        >>> GridCrops(64, crops=6).places(100, 200, "a.png")
        [(0, 0), (0, 100), (0, 200), (100, 0), (100, 100), (100, 200)]
    """

    def places(self, below: int, right: int, name: str) -> list[tuple[int, int]]:
        """Row by row."""
        grids = [(n, self.crops // n) for n in range(1, self.crops + 1) if self.crops % n == 0]
        steps = {grid: max(_step(below, grid[0]), _step(right, grid[1])) for grid in grids}
        rows, columns = min(grids, key=steps.__getitem__)
        return [(y, x) for y in _spaced(below, rows) for x in _spaced(right, columns)]


@dataclass(frozen=True)
class InTurn(Views):
    """Views of views: what is seen of each part that is cut out of a picture.

    Attributes:
        first: cuts out the parts, or augments.
        then: sees each of them.

    Example:
        >>> views = InTurn(RandomCrops(64, crops=5), Square(32))
        >>> views(torch.rand(3, 100, 150), "a.png").shape
        torch.Size([5, 3, 32, 32])
    """

    first: Views
    then: Views

    @property
    def number(self) -> int:
        """Of the first times of the other."""
        return self.first.number * self.then.number

    def __call__(self, image: Tensor, name: str = "") -> Tensor:
        """``(number, 3, h, w)``."""
        parts = zip(self.first(image, name), self.first.names(name), strict=True)
        return torch.cat([self.then(part, of) for part, of in parts])


def _step(room: int, count: int) -> float:
    return room / (count - 1) if count > 1 else 2 * room


def _spaced(room: int, count: int) -> list[int]:
    """Places from 0 to ``room``; a single one in the middle."""
    return [round(i * room / (count - 1)) for i in range(count)] if count > 1 else [room // 2]


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """A picture (3, H, W) in [0, 1] as (3, height, width), bicubic with antialiasing."""
    scaled = F.interpolate(image[None], size=(height, width), mode="bicubic", antialias=True)[0]
    # Bicubic weights are partly negative: the result overshoots at edges. In place: what was
    # interpolated is a copy, whatever its size.
    return scaled.clamp_(0, 1)


def scale_short_side(image: Tensor, size: int) -> Tensor:
    """A picture (3, H, W) scaled so that its short side has so many pixels."""
    scale = size / min(image.shape[-2:])
    height, width = (round(side * scale) for side in image.shape[-2:])
    return resize(image, height, width)


def enlarge(image: Tensor, size: int) -> Tensor:
    """A picture (3, H, W) with both sides of ``size`` or more, scaled only where it must be."""
    return scale_short_side(image, size) if min(image.shape[-2:]) < size else image


def centre_crop(image: Tensor, height: int, width: int) -> Tensor:
    """The middle ``(..., height, width)`` of pictures ``(..., H, W)`` that are no smaller."""
    top, left = (image.shape[-2] - height) // 2, (image.shape[-1] - width) // 2
    return image[..., top : top + height, left : left + width]


def alike(images: Iterable[Tensor], most: int) -> Iterator[list[Tensor]]:
    """Pictures in their order, neighbours of one shape together, at most so many.

    Args:
        images: ``(3, h, w)`` each.
        most: pictures together.

    Example:
        >>> images = [torch.zeros(3, 2, width) for width in (4, 4, 4, 5, 4)]
        >>> [len(batch) for batch in alike(images, most=2)]
        [2, 1, 1, 1]
    """
    for _, neighbours in groupby(images, key=lambda image: image.shape):
        while batch := list(islice(neighbours, most)):
            yield batch
