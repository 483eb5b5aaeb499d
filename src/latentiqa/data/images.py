"""Picture files to tensors, and the pass that finds broken ones before hours are spent."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from latentiqa.data.manifest import Record
from latentiqa.errors import ConfigError, DataError
from latentiqa.hashing import file_digest

Pixels = NDArray[np.uint8] | NDArray[np.uint16]

MAX_PIXELS = 120_000_000
"""More than the largest cameras take; a small file that claims more is made to fill the memory."""


@dataclass(frozen=True)
class BadImage:
    """A file that cannot be rated, and why."""

    path: Path
    reason: str


def read_image(path: str | Path) -> Tensor:
    """Read a picture as people see it.

    The EXIF orientation is applied; greyscale, palette and CMYK become RGB; transparency is laid
    over white; 16-bit greyscale is scaled by 65535. Colour profiles are not applied. Of an
    animation the first frame is read.

    Args:
        path: a file in any format that Pillow reads.

    Returns:
        (3, H, W), float32 in [0, 1].

    Raises:
        DataError: missing, unreadable, truncated or too large, with the file and the reason.
    """
    try:
        pixels = _decode(Path(path))
    except Exception as error:
        # Broken files make Pillow's decoders raise almost anything, SyntaxError included.
        raise DataError(f"{path}: {_reason(error)}") from error
    return _scaled(pixels)


def from_pillow(image: Image.Image) -> Tensor:
    """A picture that Pillow has opened or made, taken as `read_image` takes a file.

    Returns:
        (3, H, W), float32 in [0, 1].

    Raises:
        DataError: unreadable, truncated or too large, with the reason.
    """
    try:
        pixels = _upright(image)
    except Exception as error:
        raise DataError(f"{type(image).__name__} {image.size}: {_reason(error)}") from error
    return _scaled(pixels)


def _scaled(pixels: Pixels) -> Tensor:
    """(H, W, 3) to (3, H, W), float32 in [0, 1]."""
    # Turned round while a number is a byte, and divided while it is cast: floats, four times the
    # memory, are written once.
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    most = np.float32(np.iinfo(pixels.dtype).max)
    return torch.from_numpy(np.divide(planes, most, dtype=np.float32))


@dataclass(frozen=True)
class Resize:
    """Bring a picture to ``size`` x ``size``, by bicubic interpolation with antialiasing.

    Attributes:
        size: side in pixels.
        mode: ``stretch`` scales both sides to ``size`` and ignores the aspect, as the papers do;
            ``short_side`` keeps the aspect and crops the centre.

    Raises:
        ConfigError: a size below 1 or an unknown mode.

    Example:
        >>> Resize(64, "short_side")(torch.rand(3, 100, 150)).shape
        torch.Size([3, 64, 64])
    """

    size: int
    mode: str = "stretch"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"size={self.size}: expected at least 1 pixel")
        if self.mode not in ("stretch", "short_side"):
            raise ConfigError(f"mode={self.mode!r}: expected stretch or short_side")

    def __call__(self, image: Tensor) -> Tensor:
        """Resize in [0, 1], differentiably.

        Args:
            image: ``(3, H, W)`` or ``(B, 3, H, W)``.

        Returns:
            ``(3, size, size)`` or ``(B, 3, size, size)``.
        """
        height, width = image.shape[-2:]
        if self.mode == "short_side":
            scale = self.size / min(height, width)
            height, width = round(height * scale), round(width * scale)
        else:
            height = width = self.size
        # Bicubic weights are partly negative: the result overshoots at edges.
        batch = image if image.ndim == 4 else image[None]
        scaled = F.interpolate(batch, size=(height, width), mode="bicubic", antialias=True)
        top, left = (height - self.size) // 2, (width - self.size) // 2
        # In place: what was interpolated is a copy, whatever its size.
        square = scaled[..., top : top + self.size, left : left + self.size].clamp_(0, 1)
        return square if image.ndim == 4 else square[0]


def inspect_images(
    records: Iterable[Record],
    workers: int = 4,
    advance: Callable[[], object] | None = None,
) -> tuple[dict[str, str], list[BadImage]]:
    """Decode every file once, and hash it.

    Args:
        records: the pictures.
        workers: threads; Pillow decodes outside Python's global lock.
        advance: called after each picture, for progress bars.

    Returns:
        Image keys of the readable pictures by name: ``<sha256 of the bytes, 16 digits>:<name>``;
        and the unreadable ones, both in the order of ``records``.

    Raises:
        ConfigError: ``workers`` is below 1.
    """
    if workers < 1:
        raise ConfigError(f"workers={workers}: expected at least 1")
    keys: dict[str, str] = {}
    bad: list[BadImage] = []
    records = tuple(records)
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for record, found in zip(records, pool.map(_inspect, records), strict=True):
            if isinstance(found, BadImage):
                bad.append(found)
            else:
                keys[record.name] = found
            if advance is not None:
                advance()
    return keys, bad


def content_of(key: str) -> str:
    """The part of an image key that stands for the file's bytes, without the name.

    Example:
        >>> content_of("0123456789abcdef:photo: 1.png")
        '0123456789abcdef'
    """
    return key.split(":", 1)[0]


def _inspect(record: Record) -> str | BadImage:
    """The key of one picture, or why it has none."""
    try:
        _decode(record.path)
        return f"{file_digest(record.path)}:{record.name}"
    except Exception as error:
        return BadImage(record.path, _reason(error))


def _decode(path: Path) -> Pixels:
    """Read a file as RGB, (H, W, 3); raises whatever Pillow stumbles over."""
    with Image.open(path) as image:
        return _upright(image)


def _upright(image: Image.Image) -> Pixels:
    """An opened picture as RGB, (H, W, 3), turned as its EXIF orientation says."""
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
    image.load()
    # Turning would copy a picture that stands upright already.
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    return _rgb(image)


def _rgb(image: Image.Image) -> Pixels:
    """Pixels of any Pillow mode as RGB, (H, W, 3)."""
    if image.mode == "F":
        raise ValueError("floating point pixels have no agreed range; save it with 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = np.asarray(image, dtype=np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError("32-bit pixels have no agreed range; save it with 8 or 16 bits")
        return np.repeat(grey.astype(np.uint16)[..., None], 3, axis=2)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _reason(error: Exception) -> str:
    """What to tell the owner of the file."""
    if isinstance(error, Image.DecompressionBombError):
        return (
            f"refused: {error}; more than {MAX_PIXELS} pixels are taken for a decompression "
            "bomb, scale it down if it is a real picture"
        )
    if isinstance(error, UnidentifiedImageError):
        return "not a picture in a format that Pillow reads"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
