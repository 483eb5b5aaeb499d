"""Degraded photos whose originals are known, enhanced in latents and in pixels.

python experiments/map_enhance/degraded.py OUTPUT --pictures FOLDER [--dists FILE] [KEY=VALUE ...]

Each photo is degraded by blur, noise, JPEG and low light, and `latentiqa enhance` runs over all of
them with the recipe map_enhance, in the noise latents of EDICT and, as the control, in pixels.
Keys are handed on to it. The judge is neither trained nor shown to the ascent: how usual the NSS
of a picture are among the originals. Writes table.md, results.json and contact_sheet.png.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from latentiqa.commands.launch import launch
from latentiqa.data.distortions import distort
from latentiqa.data.folders import find_pictures
from latentiqa.data.images import read_image
from latentiqa.data.views import Centre
from latentiqa.enhance.photo import reduced, save_png, side_by_side, to_pillow
from latentiqa.enhance.prior import PsiPrior, rate
from latentiqa.errors import LatentiqaError
from latentiqa.files import write_atomic
from latentiqa.perceptual.dists import DISTSFeatures
from latentiqa.perceptual.lpips import LPIPSFeatures
from latentiqa.perceptual.nss import NSS
from latentiqa.runs import environment, write_json

KINDS = ("gaussian_blur", "gaussian_noise", "jpeg", "low_light")
SPACES = {"latents": ["space=edict", "space.chain.steps=5"], "pixels": ["space=pixels"]}
"""Names of the two ascents, and what is typed for them."""


def degrade(photos: list[Path], folder: Path, level: int, size: int) -> None:
    """Write ``originals/<i>.png`` and ``degraded/<i>_<kind>.png``, squares of so many pixels."""
    view = Centre(size)
    for i, path in enumerate(photos):
        original = view(read_image(path))[0]
        save_png(folder / "originals" / f"{i:02d}.png", to_pillow(original))
        for kind in KINDS:
            worse = distort(original.permute(1, 2, 0).numpy(), kind, level, seed=i)
            picture = to_pillow(torch.from_numpy(worse).permute(2, 0, 1))
            save_png(folder / "degraded" / f"{i:02d}_{kind}.png", picture)


class Measures:
    """Distances to the original, and the judge.

    Args:
        originals: folder that the judge knows good pictures from.
        dists: VGG-16's weights, or None: without DISTS.
    """

    def __init__(self, originals: Path, dists: str | None) -> None:
        self.distances = {"LPIPS": LPIPSFeatures().distance}
        if dists is not None:
            self.distances["DISTS"] = DISTSFeatures(dists).distance
        prior = PsiPrior(psi=NSS(), good=str(originals))
        self.judge = prior.load(torch.device("cpu"), differentiable=False)

    @torch.no_grad()
    def __call__(self, image: Tensor, original: Tensor) -> dict[str, float]:
        """Of a picture ``(3, H, W)``: PSNR, the distances, ``judge``."""
        image, original = image[None], original[None]
        psnr = peak_signal_noise_ratio(image, original, data_range=1.0).item()
        distances = {name: f(image, original).item() for name, f in self.distances.items()}
        return {"PSNR": psnr, **distances, "judge": rate(self.judge, image)}


def enhance(folder: Path, name: str, options: list[str]) -> dict[str, dict[str, Any]]:
    """Run `latentiqa enhance`, and read its rows by the name of the picture.

    Raises:
        LatentiqaError: a picture failed.
    """
    output = folder / name
    typed = [str(folder / "degraded"), "experiment=map_enhance", f"output={output}"]
    if launch("enhance", [*typed, *SPACES[name], *options]):
        raise LatentiqaError(f"{output}: not all pictures were enhanced; see above.")
    found = json.loads((output / "results.json").read_text())
    return {Path(row["result"]).name: row for row in found["pictures"]}


def measure(folder: Path, options: list[str], dists: str | None) -> list[dict[str, Any]]:
    """A row for each degraded picture and each ascent, ``before`` and ``after``."""
    measures, rows = Measures(folder / "originals", dists), []
    for name in SPACES:
        for picture, row in enhance(folder, name, options).items():
            number, _, kind = Path(picture).stem.partition("_")
            original = read_image(folder / "originals" / f"{number}.png")
            pair = {
                "before": read_image(folder / "degraded" / picture),
                "after": read_image(folder / name / "pictures" / picture),
            }
            measured = {
                when: measures(image, original) | {"Q": row[when]["mapped"]}
                for when, image in pair.items()
            }
            rows.append({"ascent": name, "kind": kind, "picture": picture, **measured})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Means by ascent and kind, as Markdown."""
    keys = list(rows[0]["before"])
    columns = ["ascent", "degraded by", "Q rises", "judge rises", *keys]
    lines = [f"| {' | '.join(columns)} |", "| - " * 2 + "| -: " * (len(keys) + 2) + "|"]
    for name in SPACES:
        for kind in (*KINDS, "all"):
            its = [r for r in rows if r["ascent"] == name and kind in (r["kind"], "all")]
            rises = [sum(r["after"][k] > r["before"][k] for r in its) for k in ("Q", "judge")]
            cells = [name, kind, *(f"{n} of {len(its)}" for n in rises)]
            for key in keys:
                means = [statistics.fmean(r[k][key] for r in its) for k in ("before", "after")]
                cells.append(" → ".join(f"{mean:.3g}" for mean in means))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def contact_sheet(folder: Path, side: int = 192) -> Image.Image:
    """A row a degradation of the first photo: original, degraded, and what both ascents made."""
    rows = []
    for kind in KINDS:
        name = f"00_{kind}.png"
        paths = [folder / "originals" / "00.png", folder / "degraded" / name]
        paths += [folder / ascent / "pictures" / name for ascent in SPACES]
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
    parser.add_argument("--count", type=int, help="only so many of them, 2 or more")
    parser.add_argument("--size", type=int, default=256, help="pixels")
    parser.add_argument("--level", type=int, default=3, help="1 to 5")
    parser.add_argument("--dists", help="VGG-16's weights: measures DISTS, too")
    given, options = parser.parse_known_args(arguments)
    photos = find_pictures([given.pictures])[: given.count]
    degrade(photos, given.output, given.level, given.size)
    rows = measure(given.output, options, given.dists)
    save_png(given.output / "contact_sheet.png", contact_sheet(given.output))
    write_atomic(given.output / "table.md", table(rows))
    write_json(given.output / "results.json", {"pictures": rows, **environment()})


if __name__ == "__main__":
    main()
