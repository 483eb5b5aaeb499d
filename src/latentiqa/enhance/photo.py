"""Enhanced pictures as files: what came with the photo goes with the result."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from latentiqa.data.distortions import to_bytes
from latentiqa.files import write_atomic

ORIENTATION = re.compile(r'tiff:Orientation="\d"|<tiff:Orientation>\d</tiff:Orientation>')
"""Of XMP, in its two spellings."""


def to_pillow(image: Tensor) -> Image.Image:
    """A picture ``(3, H, W)``, clipped to [0, 1], in 8 bits."""
    return Image.fromarray(to_bytes(image.detach().float().cpu().permute(1, 2, 0).numpy()))


def metadata(path: Path) -> dict[str, Any]:
    """What of a file `save_png` keeps: EXIF, XMP, ICC profile and resolution.

    The orientation is taken out of EXIF and XMP, as pictures are read upright. A profile of
    another colour space than RGB does not fit what was read. What a PNG cannot hold is left out:
    EXIF data with values of another kind than their tags', and resolutions that are no number.
    """
    kept: dict[str, Any] = {}
    with Image.open(path) as image:
        exif = image.getexif()
        exif.pop(ExifTags.Base.Orientation, None)
        # Its thumbnail is not copied: it shows the picture as it was.
        # Pillow packs it by the tags; its errors for what does not fit them are of any kind.
        with suppress(Exception):
            if data := exif.tobytes() if len(exif) else b"":
                kept["exif"] = data
        xmp = image.info.get("xmp")
        if isinstance(xmp, bytes):
            with suppress(UnicodeDecodeError):
                kept["xmp"] = ORIENTATION.sub("", xmp.decode("utf-8").strip("\0"))
        profile = image.info.get("icc_profile")
        if profile and profile[16:20] == b"RGB ":
            kept["icc_profile"] = profile
        dpi = tuple(map(float, image.info.get("dpi", ())))
        # A PNG's are whole numbers of pixels a metre, in 31 bits.
        if len(dpi) == 2 and all(0 < value < 1e7 for value in dpi):
            kept["dpi"] = dpi
    return kept


def save_png(path: Path, image: Image.Image, xmp: str | None = None, **kept: Any) -> None:
    """Write a PNG atomically, with what `metadata` kept."""
    text = PngInfo()
    if xmp is not None:
        text.add_itxt("XML:com.adobe.xmp", xmp)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=text, **kept)
    write_atomic(path, buffer.getvalue())


def side_by_side(images: Sequence[Image.Image], gap: int = 4) -> Image.Image:
    """Pictures of one size in a row, white between them."""
    width, height = images[0].size
    row = Image.new("RGB", (len(images) * (width + gap) - gap, height), "white")
    for i, image in enumerate(images):
        row.paste(image, (i * (width + gap), 0))
    return row


def reduced(image: Image.Image, side: int) -> Image.Image:
    """A picture whose longer side is at most so many pixels."""
    small = image.copy()
    small.thumbnail((side, side))
    return small


def save_gif(path: Path, images: Sequence[Image.Image], milliseconds: int = 200) -> None:
    """Write pictures one after the other as an endless GIF, atomically; the last one stays."""
    buffer = io.BytesIO()
    durations = [milliseconds] * (len(images) - 1) + [5 * milliseconds]
    first, *rest = images
    first.save(buffer, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0)
    write_atomic(path, buffer.getvalue())


def as_saved(image: Tensor) -> Tensor:
    """The picture that a reader of the file gets, rounded to 8 bits."""
    return (image.detach().clamp(0, 1) * 255).round().div(255).to(torch.float32)
