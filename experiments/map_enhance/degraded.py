"""Degraded photos whose originals are known, enhanced in latents and in pixels.

python experiments/map_enhance/degraded.py OUTPUT --pictures FOLDER --count N [--dists FILE]
    [KEY=VALUE ...]

Each photo is degraded by blur, noise, JPEG and low light, and `latentiqa enhance` runs over all of
them with the recipe map_enhance, in the noise latents of EDICT and, as the control, in pixels; and
over the blurred ones with map_post_step, after another enhancer, an unsharp mask. Keys are handed
on to it. Two judges rate what is made and have no part in it: how usual the NSS of a picture are
among the folder's other photos, and the scorer `student`, a network of its own, though taught by
the prior.
Writes table.md, results.json and contact_sheet.png.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from latentiqa.commands.launch import launch
from latentiqa.data.distortions import distort
from latentiqa.data.folders import find_pictures
from latentiqa.data.images import read_image
from latentiqa.data.views import Centre
from latentiqa.enhance.photo import reduced, save_png, side_by_side, to_pillow
from latentiqa.enhance.prior import PsiPrior, RunPrior, rate
from latentiqa.errors import LatentiqaError
from latentiqa.files import write_atomic
from latentiqa.perceptual.dists import DISTSFeatures
from latentiqa.perceptual.lpips import LPIPSFeatures
from latentiqa.perceptual.nss import NSS
from latentiqa.runs import environment, write_json

KINDS = ("gaussian_blur", "gaussian_noise", "jpeg", "low_light")
EDICT = ["space=edict", "space.chain.steps=5"]
ASCENTS = {
    "latents": ("degraded", ["experiment=map_enhance", *EDICT]),
    "pixels": ("degraded", ["experiment=map_enhance", "space=pixels"]),
    "post_step": ("sharpened", ["experiment=map_post_step", *EDICT]),
}
"""By names: folder of the pictures that an ascent begins at, and what is typed for it."""
SHARPENED = "gaussian_blur"
"""Of this kind they are in ``sharpened``, too."""


def degrade(photos: list[Path], others: list[Path], folder: Path, level: int, size: int) -> None:
    """Write squares of so many pixels.

    They are ``originals/<i>.png``, ``degraded/<i>_<kind>.png`` and, of one kind,
    ``sharpened/<i>_<kind>.png``; of the others ``good/<i>.png``.
    """
    view = Centre(size)
    written: set[Path] = set()

    def save(place: str, name: str, picture: Image.Image) -> None:
        written.add(path := folder / place / f"{name}.png")
        save_png(path, picture)

    for i, path in enumerate(photos):
        original = view(read_image(path))[0]
        save("originals", f"{i:02d}", to_pillow(original))
        for kind in KINDS:
            worse = distort(original.permute(1, 2, 0).numpy(), kind, level, seed=i)
            picture = to_pillow(torch.from_numpy(worse).permute(2, 0, 1))
            save("degraded", f"{i:02d}_{kind}", picture)
            if kind == SHARPENED:
                sharper = picture.filter(ImageFilter.UnsharpMask(radius=2, percent=150))
                save("sharpened", f"{i:02d}_{kind}", sharper)
    for i, path in enumerate(others):
        save("good", f"{i:02d}", to_pillow(view(read_image(path))[0]))
    places = {path.parent for path in written}
    if older := sorted({path for place in places for path in place.iterdir()} - written):
        raise SystemExit(f"{older[0]}: of another call; remove it, or give another OUTPUT")


class Measures:
    """Distances to the original, and the judges.

    Args:
        good: folder that the NSS of good pictures are known from.
        dists: VGG-16's weights, or None: without DISTS.
    """

    def __init__(self, good: Path, dists: str | None) -> None:
        self.distances = {"LPIPS": LPIPSFeatures().distance}
        if dists is not None:
            self.distances["DISTS"] = DISTSFeatures(dists).distance
        judges = {
            "NSS": PsiPrior(psi=NSS(), good=str(good)),
            "student": RunPrior(run="student"),
        }
        self.judges = {
            name: judge.load(torch.device("cpu"), differentiable=False)
            for name, judge in judges.items()
        }

    @torch.no_grad()
    def __call__(self, image: Tensor, original: Tensor) -> dict[str, float]:
        """Of a picture ``(3, H, W)``: PSNR, the distances, the judges' scores."""
        image, original = image[None], original[None]
        psnr = peak_signal_noise_ratio(image, original, data_range=1.0).item()
        distances = {name: f(image, original).item() for name, f in self.distances.items()}
        return {"PSNR": psnr, **distances, **{j: rate(f, image) for j, f in self.judges.items()}}


def enhance(folder: Path, name: str, options: list[str]) -> dict[str, tuple[float, float]]:
    """Run `latentiqa enhance` over the degraded pictures.

    Returns:
        By the name of a picture, Q where its ascent begins, and of the result.

    Raises:
        LatentiqaError: a picture failed.
    """
    (begins, keys), output = ASCENTS[name], folder / name
    names = [path.name for path in find_pictures([folder / begins])]
    typed = [str(folder / "degraded" / picture) for picture in names]
    if begins != "degraded":
        typed.append(f"input_reference={folder / begins}")
    if launch("enhance", [*typed, *keys, f"output={output}", *options]):
        raise LatentiqaError(f"{output}: not all pictures were enhanced; see above.")
    found = json.loads((output / "results.json").read_text())
    rows = zip(names, found["pictures"], strict=True)
    return {name: (row["start"]["mapped"], row["after"]["mapped"]) for name, row in rows}


def measure(folder: Path, options: list[str], dists: str | None) -> list[dict[str, Any]]:
    """A row for each ascent of a picture, ``before`` and ``after``."""
    measures, rows = Measures(folder / "good", dists), []
    for name, (begins, _) in ASCENTS.items():
        for picture, q in enhance(folder, name, options).items():
            number, _, kind = Path(picture).stem.partition("_")
            original = read_image(folder / "originals" / f"{number}.png")
            places = folder / begins, folder / name / "pictures"
            before, after = (
                measures(read_image(place / picture), original) | {"Q": score}
                for place, score in zip(places, q, strict=True)
            )
            row = {"ascent": name, "kind": kind, "picture": picture}
            rows.append(row | {"before": before, "after": after})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Means by ascent and kind, as Markdown."""
    keys = list(rows[0]["before"])
    judged = ["Q", "NSS", "student"]
    columns = ["ascent", "degraded by", *(f"{judge} rises" for judge in judged), *keys]
    lines = [f"| {' | '.join(columns)} |", "| - " * 2 + "| -: " * (len(columns) - 2) + "|"]
    for name in ASCENTS:
        of = [row for row in rows if row["ascent"] == name]
        kinds = list(dict.fromkeys(row["kind"] for row in of))
        for kind in [*kinds, "all"] if len(kinds) > 1 else kinds:
            its = [row for row in of if kind in (row["kind"], "all")]
            rises = [sum(r["after"][k] > r["before"][k] for r in its) for k in judged]
            cells = [name, kind, *(f"{n} of {len(its)}" for n in rises)]
            for key in keys:
                means = [statistics.fmean(r[k][key] for r in its) for k in ("before", "after")]
                cells.append(" → ".join(f"{mean:.3g}" for mean in means))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def contact_sheet(folder: Path, side: int = 192) -> Image.Image:
    """A row a degradation of the first photo: original, degraded, and what both ascents made.

    The last row has the sharpened picture between degraded and made.
    """
    degraded, sharpened = folder / "degraded", folder / "sharpened"
    latents, pixels, afterwards = (folder / name / "pictures" for name in ASCENTS)
    shown = [(f"00_{kind}.png", (degraded, latents, pixels)) for kind in KINDS]
    shown += [(f"00_{SHARPENED}.png", (degraded, sharpened, afterwards))]
    rows = []
    for name, places in shown:
        paths = [folder / "originals" / "00.png", *(place / name for place in places)]
        rows.append(side_by_side([reduced(to_pillow(read_image(p)), side) for p in paths]))
    sheet = Image.new("RGB", (rows[0].width, len(rows) * (rows[0].height + 4) - 4), "white")
    for i, row in enumerate(rows):
        sheet.paste(row, (0, i * (row.height + 4)))
    return sheet


def main(arguments: list[str] | None = None) -> None:
    """Degrade, enhance, measure, and write the files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--pictures", type=Path, required=True, help="folder")
    parser.add_argument("--count", type=int, required=True, help="so many of them, the first")
    parser.add_argument("--size", type=int, default=256, help="pixels")
    parser.add_argument("--level", type=int, default=3, help="1 to 5")
    parser.add_argument("--dists", help="VGG-16's weights: measures DISTS, too")
    given, options = parser.parse_known_args(arguments)
    found = find_pictures([given.pictures])
    photos, others = found[: given.count], found[given.count :]
    if len(others) < 2:
        raise SystemExit(
            f"--count={given.count} of {len(found)} photos: expected one that leaves 2 or more, "
            "which a judge learns from what is usual"
        )
    degrade(photos, others, given.output, given.level, given.size)
    rows = measure(given.output, options, given.dists)
    save_png(given.output / "contact_sheet.png", contact_sheet(given.output))
    write_atomic(given.output / "table.md", table(rows))
    write_json(given.output / "results.json", {"pictures": rows, **environment()})


if __name__ == "__main__":
    main()
