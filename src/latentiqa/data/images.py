"""Picture files to tensors, and the pass that finds broken ones before hours are spent."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from latentiqa.data.manifest import Record
from latentiqa.errors import DataError, check_integer
from latentiqa.hashing import file_digest

Pixels = NDArray[np.uint8] | NDArray[np.uint16]

MAX_PIXELS = 120_000_000
"""More than most cameras take; a small file that claims more is made to fill the memory."""


@dataclass(frozen=True)
class BadImage:
    """A file that cannot be rated, and why."""

    path: Path
    reason: str


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read a picture as people see it.

    The EXIF orientation is applied; greyscale, palette and CMYK become RGB; transparency is laid
    over white; 16-bit greyscale is scaled by 65535. Colour profiles are not applied. Of an
    animation the first frame is read.

    Args:
        path: a file in any format that Pillow reads.
        max_pixels: larger pictures are refused, before their pixels are decoded. Pillow has a
            limit of its own for the whole process: it is raised where it is lower.

    Returns:
        (3, H, W), float32 in [0, 1].

    Raises:
        DataError: missing, unreadable, truncated or too large, with the file and the reason.
    """
    try:
        pixels = _decode(Path(path), max_pixels)
    except Exception as error:
        # Broken files make Pillow's decoders raise almost anything, SyntaxError included.
        raise DataError(f"{path}: {_reason(error, max_pixels)}") from error
    return _scaled(pixels)


def from_pillow(image: Image.Image, max_pixels: int = MAX_PIXELS) -> Tensor:
    """A picture that Pillow has opened or made, taken as `read_image` takes a file.

    Args:
        image: in any mode that has an agreed range.
        max_pixels: larger pictures are refused.

    Returns:
        (3, H, W), float32 in [0, 1].

    Raises:
        DataError: unreadable, truncated or too large, with the reason.
    """
    try:
        pixels = _upright(image, max_pixels)
    except Exception as error:
        reason = _reason(error, max_pixels)
        raise DataError(f"{type(image).__name__} {image.size}: {reason}") from error
    return _scaled(pixels)


def _scaled(pixels: Pixels) -> Tensor:
    """(H, W, 3) to (3, H, W), float32 in [0, 1]."""
    # Turned round while a number is a byte, and divided while it is cast: floats, four times the
    # memory, are written once.
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    most = np.float32(np.iinfo(pixels.dtype).max)
    return torch.from_numpy(np.divide(planes, most, dtype=np.float32))


def inspect_images(
    records: Iterable[Record],
    workers: int = 4,
    advance: Callable[[], object] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> tuple[dict[str, str], list[BadImage]]:
    """Decode every file once, and hash it.

    Args:
        records: the pictures.
        workers: threads; Pillow decodes outside Python's global lock.
        advance: called after each picture, for progress bars.
        max_pixels: larger pictures are unreadable; see `read_image`.

    Returns:
        Image keys of the readable pictures by name: ``<sha256 of the bytes, 16 digits>:<name>``;
        and the unreadable ones, both in the order of ``records``.

    Raises:
        ConfigError: ``workers`` or ``max_pixels`` is below 1.
    """
    check_integer("workers", workers, 1)
    check_integer("max_pixels", max_pixels, 1)
    keys: dict[str, str] = {}
    bad: list[BadImage] = []
    records = tuple(records)
    with ThreadPoolExecutor(max_workers=workers) as pool:
        inspected = pool.map(lambda record: _inspect(record, max_pixels), records)
        for record, found in zip(records, inspected, strict=True):
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


def _inspect(record: Record, max_pixels: int) -> str | BadImage:
    """The key of one picture, or why it has none."""
    try:
        _decode(record.path, max_pixels)
        return f"{file_digest(record.path)}:{record.name}"
    except Exception as error:
        return BadImage(record.path, _reason(error, max_pixels))


def _decode(path: Path, max_pixels: int) -> Pixels:
    """Read a file as RGB, (H, W, 3); raises whatever Pillow stumbles over."""
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
    with Image.open(path) as image:
        return _upright(image, max_pixels)


def _upright(image: Image.Image, max_pixels: int) -> Pixels:
    """An opened picture as RGB, (H, W, 3), turned as its EXIF orientation says."""
    if image.width * image.height > max_pixels:
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


def _reason(error: Exception, max_pixels: int) -> str:
    """What to tell the owner of the file."""
    if isinstance(error, Image.DecompressionBombError):
        return (
            f"refused: {error}; more than {max_pixels} pixels are taken for a decompression "
            "bomb, raise data.max_pixels (from Python max_pixels) if it is a real picture"
        )
    if isinstance(error, UnidentifiedImageError):
        return "not a picture in a format that Pillow reads"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
