"""How far from a picture's latents each chain comes back, and what its gradient costs in memory.

python experiments/map_enhance/round_trip.py OUTPUT --pictures FOLDER

The middle of each picture is encoded, inverted and denoised again, by EDICT, plain DDIM inversion
and fixed-point DDIM inversion. Writes results.json and table.md. For the memory each number of
steps has a process of its own, as a process's largest memory is known only once.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from latentiqa.backbones.ldm import LatentDiffusion
from latentiqa.backbones.source import BackboneSource
from latentiqa.data.folders import find_pictures
from latentiqa.data.images import read_image
from latentiqa.data.views import Centre
from latentiqa.enhance.chain import Chain
from latentiqa.enhance.edict import EDICT
from latentiqa.enhance.inversion import DDIM
from latentiqa.files import write_atomic
from latentiqa.runs import environment, peak_memory_mb, write_json

MEMORY: dict[str, Callable[[int], EDICT]] = {
    "EDICT, inverse": lambda steps: EDICT(steps=steps),
    "EDICT, checkpoint": lambda steps: EDICT(steps=steps, memory="checkpoint"),
    "EDICT, plain": lambda steps: EDICT(steps=steps, memory="plain"),
}
"""Ways of the backward pass, of which --ways measures some: "plain" keeps a graph for each step."""


def chains(steps: int) -> dict[str, Chain]:
    """The compared chains by name."""
    return {
        "EDICT": EDICT(steps=steps),
        "DDIM": DDIM(steps=steps),
        "DDIM, 5 iterations": DDIM(steps=steps, iterations=5),
    }


@torch.no_grad()
def round_trip(backbone: LatentDiffusion, chain: Chain, image: Tensor) -> dict[str, float]:
    """Invert a picture's latents and denoise them again.

    Returns:
        ``rms``: root mean squared error of the latents, whose variance is about 1; ``psnr``: of
        the decoded picture to the one decoded from the latents themselves, dB; ``seconds``.
    """
    z0 = backbone.encode(image).double()
    started = time.perf_counter()
    back = chain.denoise(backbone, chain.invert(backbone, z0))[0]
    seconds = time.perf_counter() - started
    decoded, again = (backbone.decode(z.float()).clamp(0, 1) for z in (z0, back))
    psnr = peak_signal_noise_ratio(again, decoded, data_range=1.0).item()
    rms = (back - z0).square().mean().sqrt().item()
    return {"rms": rms, "psnr": min(psnr, 150.0), "seconds": seconds}


def measure_memory(source: BackboneSource, way: str, steps: int, size: int) -> float:
    """Largest memory of this process, MiB, after one gradient through the chain."""
    backbone, chain = source.load(), MEMORY[way](steps)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 1, *backbone.latent_shape(size, size), generator=generator)
    chain.denoise(backbone, z.double().requires_grad_()).sum().backward()
    return peak_memory_mb()


def table(rows: list[dict], memory: list[dict]) -> str:
    """Both tables as Markdown."""
    lines = [
        "| chain | steps | RMS error of the latents | PSNR | seconds |",
        "| - | -: | -: | -: | -: |",
    ]
    for row in rows:
        psnr = "> 100" if row["psnr"] > 100 else f"{row['psnr']:.1f}"
        name, steps = row["chain"], row["steps"]
        lines.append(f"| {name} | {steps} | {row['rms']:.2g} | {psnr} | {row['seconds']:.1f} |")
    lines += ["", "| gradient | steps | peak MiB |", "| - | -: | -: |"]
    lines += [f"| {m['way']} | {m['steps']} | {m['peak_memory_mb']:.0f} |" for m in memory]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write the files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--pictures", type=Path, help="folder")
    parser.add_argument("--count", type=int, help="only so many of them")
    parser.add_argument("--size", type=int, default=256, help="pixels")
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 25, 50])
    parser.add_argument("--backbone", default="tiny", help="tiny, a folder or a hub id")
    parser.add_argument("--ways", nargs="*", choices=MEMORY, default=list(MEMORY), metavar="WAY")
    parser.add_argument("--memory", choices=MEMORY, help="print the memory of one gradient")
    given = parser.parse_args(arguments)
    source = BackboneSource("backbone", given.backbone, resolution=given.size)
    if given.memory:
        print(measure_memory(source, given.memory, given.steps[0], given.size))
        return
    if given.pictures is None:
        parser.error("--pictures=FOLDER is needed")
    backbone, view = source.load(), Centre(given.size)
    images = [view(read_image(path)) for path in find_pictures([given.pictures])[: given.count]]
    rows = []
    for steps in given.steps:
        for name, chain in chains(steps).items():
            found = [round_trip(backbone, chain, image) for image in images]
            means = {key: statistics.fmean(one[key] for one in found) for key in found[0]}
            rows.append({"chain": name, "steps": steps, **means})
            print(rows[-1], flush=True)
    memory = []
    for way in given.ways:
        for steps in given.steps:
            options = ["--memory", way, "--steps", str(steps), "--size", str(given.size)]
            command = [sys.executable, __file__, str(given.output), *options]
            command += ["--backbone", given.backbone]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            peak = float(done.stdout.split()[-1])
            memory.append({"way": way, "steps": steps, "peak_memory_mb": peak})
    write_atomic(given.output / "table.md", table(rows, memory))
    write_json(
        given.output / "results.json",
        {
            "n": len(images),
            "size": given.size,
            "backbone": backbone.identity,
            "round_trip": rows,
            "memory": memory,
            **environment(),
        },
    )


if __name__ == "__main__":
    main()
