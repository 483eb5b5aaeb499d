"""One picture of all 25 distortions at five levels, for a person to check.

python experiments/synthetic_kodak/contact_sheet.py FOLDER [NAME]

Shows the middle of the picture NAME of FOLDER, by default the first one; writes contact_sheet.png
beside this script. Colours are rounded to 5 bits a channel, which halves the file.
"""

from __future__ import annotations

import sys
from pathlib import Path

from latentiqa.data.contact_sheet import contact_sheet
from latentiqa.data.folders import find_pictures
from latentiqa.data.images import read_image

OUTPUT = Path(__file__).with_name("contact_sheet.png")


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
