"""How fast pictures come in: latentiqa's input pipeline against a plain Pillow loop.

python experiments/input_pipeline/measure.py OUTPUT [--pictures FOLDER] [--size 512]
    [--batch-size 8] [--count 256] [--rounds 5]

Without a folder: the photos inside the scikit-image wheel, each as a PNG and as a JPEG of quality
90. Writes results.json and table.md to OUTPUT.

Plain is what one would type: open, convert to RGB, resize (bicubic), float32 in [0, 1], stack.
The pipeline is `PictureDataModule` with 0, 1 and 2 workers. All of them read the same pictures in
every round, one after the other, in turn from the first way and from the last; figures are medians
over the rounds. A round before those that count fills the page cache.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from latentiqa.data.datamodule import PictureDataModule, PictureDataset
from latentiqa.data.demo import PHOTOS
from latentiqa.data.folders import find_pictures
from latentiqa.data.images import inspect_images
from latentiqa.data.manifest import UNRATED, Record
from latentiqa.data.views import Square
from latentiqa.errors import ConfigError, DataError, check_integer
from latentiqa.files import write_atomic
from latentiqa.runs import environment, write_json

PLAIN = "plain Pillow loop"
WORKERS = (0, 1, 2)
FEWEST_ROUNDS = 3

Batches = Callable[[], Iterable[Tensor]]


class Pass(NamedTuple):
    """Seconds from the start of one pass over the pictures to its first batch and to its end."""

    first: float
    whole: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--pictures", type=Path)
    for key, default in {"size": 512, "batch-size": 8, "count": 256, "rounds": 5}.items():
        parser.add_argument(f"--{key}", type=int, default=default)
    options = parser.parse_args(arguments)
    check_integer("--rounds", options.rounds, FEWEST_ROUNDS)
    check_integer("--count", options.count, 1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.pictures or write_photos(Path(scratch))
        paths = find_pictures([folder])
        results = measure(paths, options.size, options.batch_size, options.count, options.rounds)
    write_json(options.output / "results.json", results)
    table = table_of(results)
    write_atomic(options.output / "table.md", table)
    print(table)


def write_photos(folder: Path, photos: Iterable[str] = tuple(PHOTOS)) -> Path:
    """Write photos of the scikit-image wheel in their own size, as PNG and as JPEG."""
    spec = find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("scikit-image is not installed; give your own pictures with --pictures")
    for photo in photos:
        with Image.open(Path(spec.submodule_search_locations[0], "data", PHOTOS[photo])) as image:
            rgb = image.convert("RGB")
        rgb.save(folder / f"{photo}.png")
        rgb.save(folder / f"{photo}.jpg", quality=90)
    return folder


def measure(
    paths: Sequence[Path], size: int, batch_size: int, count: int, rounds: int
) -> dict[str, Any]:
    """Time every way in turn.

    Args:
        paths: pictures; they are taken again from the first on until there are ``count``.
        size: side in pixels of what comes out.
        batch_size: pictures a batch.
        count: pictures a pass.
        rounds: passes of each way that count.

    Returns:
        What results.json holds.

    Raises:
        ConfigError: a picture cannot be read.
    """
    taken = islice(cycle(paths), count)
    records = [Record(f"{i}:{path.name}", path, UNRATED) for i, path in enumerate(taken)]
    keys, bad = inspect_images(records)
    if bad:
        raise ConfigError(f"{bad[0].path}: {bad[0].reason}; leave it out of --pictures")

    def pipeline(workers: int) -> Batches:
        def batches() -> Iterator[Tensor]:
            dataset = PictureDataset(records, keys, None, Square(size))
            module = PictureDataModule(dataset, batch_size, workers)
            return (stack for batch in module.predict_dataloader() for stack in batch["image"])

        return batches

    ways: dict[str, Batches] = {PLAIN: lambda: plain_loop(records, size, batch_size)}
    ways |= {f"pipeline, {workers} workers": pipeline(workers) for workers in WORKERS}
    difference = largest_difference(*(ways[way]() for way in list(ways)[:2]))
    passes: dict[str, list[Pass]] = {way: [] for way in ways}
    inspections = []
    for number in range(rounds + 1):
        for way in list(ways) if number % 2 else reversed(ways):
            found = timed(ways[way])
            if number:
                passes[way].append(found)
        started = time.perf_counter()
        inspect_images(records)
        if number:
            inspections.append(time.perf_counter() - started)
    plain = rate(passes[PLAIN], count)
    return {
        "kind": "input_pipeline",
        "size": size,
        "batch_size": batch_size,
        "pictures": {"a_pass": count, "different": len(set(paths)), **described(paths)},
        "rounds": rounds,
        "ways": {
            way: {
                "first_batch_seconds": median(found.first for found in passes[way]),
                "images_per_second": rate(passes[way], count),
                "against_plain": rate(passes[way], count) / plain,
                "passes": [found._asdict() for found in passes[way]],
            }
            for way in ways
        },
        "inspect_images_per_second": count / median(inspections),
        "largest_mean_difference": difference,
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "pillow": metadata.version("pillow"),
        "numpy": metadata.version("numpy"),
        **environment(),
    }


def plain_loop(records: Sequence[Record], size: int, batch_size: int) -> Iterator[Tensor]:
    """Batches ``(B, 3, size, size)`` in [0, 1] as anyone would make them with Pillow."""
    for start in range(0, len(records), batch_size):
        batch = []
        for record in records[start : start + batch_size]:
            with Image.open(record.path) as image:
                resized = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
            pixels = np.asarray(resized, dtype=np.float32) / 255
            batch.append(torch.from_numpy(pixels).permute(2, 0, 1))
        yield torch.stack(batch).contiguous()


def timed(batches: Batches) -> Pass:
    """One pass, from before the data loader is made until its last batch is there."""
    started = time.perf_counter()
    iterator = iter(batches())
    next(iterator)
    first = time.perf_counter() - started
    for _ in iterator:
        pass
    return Pass(first, time.perf_counter() - started)


def rate(passes: Sequence[Pass], count: int) -> float:
    """Pictures a second of the median pass, the start of its workers included."""
    return count / median(found.whole for found in passes)


def largest_difference(one: Iterable[Tensor], other: Iterable[Tensor]) -> float:
    """The largest mean absolute difference of a picture, in steps of 8 bits.

    Pillow rounds to 8 bits, which the pipeline does not: less than a step shows that both ways do
    the same work.
    """
    pairs = zip(one, other, strict=True)
    means = [(a - b).abs().mean(dim=(1, 2, 3)).max().item() for a, b in pairs]
    return 255 * max(means)


def described(paths: Iterable[Path]) -> dict[str, Any]:
    """What the pictures are: how many of each format, and their sizes."""
    formats: dict[str, int] = {}
    megapixels = []
    for path in sorted(set(paths)):
        with Image.open(path) as image:
            formats[str(image.format)] = formats.get(str(image.format), 0) + 1
            megapixels.append(image.width * image.height / 1e6)
    ends = {"least": min(megapixels), "median": median(megapixels), "most": max(megapixels)}
    return {"formats": formats, "megapixels": {key: round(n, 3) for key, n in ends.items()}}


def table_of(results: dict[str, Any]) -> str:
    """The figures as a Markdown table, and what they were measured with below."""
    lines = ["| way | first batch, s | images/s | against plain |", "| --- | ---: | ---: | ---: |"]
    lines += [
        f"| {way} | {found['first_batch_seconds']:.3f} | {found['images_per_second']:.1f} "
        f"| {found['against_plain']:.2f} |"
        for way, found in results["ways"].items()
    ]
    lines.append(f"| `inspect_images` | | {results['inspect_images_per_second']:.1f} | |")
    pictures = results["pictures"]
    formats = ", ".join(f"{n} {name}" for name, n in pictures["formats"].items())
    lines += [
        "",
        f"{pictures['different']} pictures ({formats}; median {pictures['megapixels']['median']} "
        f"megapixels), {pictures['a_pass']} a pass, to {results['size']} pixels, batches of "
        f"{results['batch_size']}; medians of {results['rounds']} rounds; {results['cores']} "
        f"cores, {results['torch_threads']} PyTorch threads. Largest mean difference of a picture "
        f"between the two: {results['largest_mean_difference']:.2f} of 255.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
