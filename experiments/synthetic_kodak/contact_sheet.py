"""One picture of all 25 distortions at five levels, for a person to check.

python experiments/synthetic_kodak/contact_sheet.py FOLDER [NAME]

Shows the middle of the picture NAME of FOLDER, by default the first one; writes contact_sheet.png
beside this script. Colours are rounded to 5 bits a channel, which halves the file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from latentiqa.data.distortions import Picture, to_bytes
from latentiqa.data.folders import find_pictures
from latentiqa.data.images import read_image
from latentiqa.data.kadid import KINDS, LEVELS, distort
from latentiqa.errors import ConfigError

OUTPUT = Path(__file__).with_name("contact_sheet.png")
LABEL_WIDTH = 220
HEADER = 18
GAP = 2


def contact_sheet(image: Picture, tile: int = 96, seed: int = 0) -> Image.Image:
    """The 25 distortions of KADID-10k, one a row, at levels 0 (the original) to 5.

    The middle of the picture is shown at its own scale. What is distorted is a square twice as
    wide, so that blocks and patches are about as dense as in a picture of 512 x 384.

    Args:
        image: (H, W, 3) in [0, 1].
        tile: side of what is shown, pixels.
        seed: of what is drawn.

    Returns:
        RGB.

    Raises:
        ConfigError: the picture is smaller than two tiles.
    """
    height, width = image.shape[:2]
    side = 2 * tile
    if tile < 16 or min(height, width) < side:
        raise ConfigError(
            f"tile={tile}: expected 16 or more, and at most half of the picture, {width} x {height}"
        )
    top, left = (height - side) // 2, (width - side) // 2
    square = np.ascontiguousarray(image[top : top + side, left : left + side])
    across, down = tile + GAP, tile + GAP
    size = (LABEL_WIDTH + (1 + len(LEVELS)) * across, HEADER + len(KINDS) * down)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    for column, text in enumerate(("original", *(f"level {level}" for level in LEVELS))):
        draw.text((LABEL_WIDTH + column * across, 2), text, "black", font)
    for row, (number, kind) in enumerate(KINDS.items()):
        y = HEADER + row * down
        strengths = ", ".join(f"{strength:g}" for strength in kind.strengths)
        draw.text((4, y + 4), f"{number} {kind.name}\n{strengths}", "black", font)
        for level in (0, *LEVELS):
            shown = square if level == 0 else distort(square, number, level, seed)
            middle = shown[tile // 2 : tile // 2 + tile, tile // 2 : tile // 2 + tile]
            sheet.paste(Image.fromarray(to_bytes(middle)), (LABEL_WIDTH + level * across, y))
    return sheet


def main(folder: str, name: str | None = None) -> None:
    """Write the sheet."""
    path = find_pictures([folder])[0] if name is None else Path(folder, name)
    sheet = contact_sheet(read_image(path).permute(1, 2, 0).numpy(), tile=72)
    rounded = [round(value / 255 * 31) * 255 // 31 for value in range(256)]
    sheet.point(3 * rounded).save(OUTPUT, optimize=True)
    print(f"{OUTPUT}: {OUTPUT.stat().st_size // 1024} KiB, of {path}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
