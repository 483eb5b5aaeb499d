"""latentiqa assess: what a diffusion backbone can do, measured on pictures held out of training.

Usage: latentiqa assess [PICTURE_OR_FOLDER ...] backbone=NAME dataset=NAME [key=value ...]

Reconstructs the pictures, if any are given. On crops of the val part: the denoising loss at each
timestep, beside that of random weights; how often a degraded crop is denoised better with the
caption that fits than with a wrong one. And samples for prompts. The test part is never opened.

  latentiqa assess kodak/ backbone=tiny dataset=biq2021 dataset.root=BIQ2021 split=official
  latentiqa assess backbone=folder backbone.source=runs/pretrain-0123456789ab/pipeline

The run's folder holds results.json, whose path is the last line printed, denoising.csv and .png,
captions.csv and .png, samples.png and reconstruction.png. In captions.csv a wrong caption is
`another` (other kinds, other quality), `clean`, `degraded` (of a crop left as it is), `kind`
(another kind, same level) or `none`, the empty caption.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from latentiqa.commands.launch import Done, build
from latentiqa.commands.parts import (
    check_values,
    device_of,
    inspect,
    notes_of,
    plain,
    quieten,
    split_of,
    without_usual_limit,
)
from latentiqa.commands.progress import track
from latentiqa.commands.results import Clock
from latentiqa.data.folders import find_pictures
from latentiqa.data.manifest import Record
from latentiqa.errors import ConfigError, DataError, LatentiqaError, check_integer
from latentiqa.hashing import digest
from latentiqa.runs import environment, peak_memory_mb, read_json, signature, write_csv, write_json

if TYPE_CHECKING:
    import torch

    from latentiqa.backbones.ldm import LatentDiffusion
    from latentiqa.backbones.source import BackboneSource
    from latentiqa.data.manifest import Manifest
    from latentiqa.data.splits import Split
    from latentiqa.perceptual.lpips import LPIPS
    from latentiqa.pretraining.assessment import CaptionFit, Crops

log = logging.getLogger(__name__)

POSITIONAL = "input"

MULTIPLE = 64
"""Sides of pictures: the latents must halve through the whole U-Net."""

NETS = ("alex", "vgg")
"""Of LPIPS."""

SHOWN = 6
"""Pictures in reconstruction.png."""

LOSSES = ("trained", "random", "linear")
"""The denoising losses: the backbone's, and those of its controls."""


@dataclass(frozen=True)
class Plan:
    """An assessment with its values checked, before anything heavy is loaded."""

    source: BackboneSource
    device: torch.device
    pictures: list[Record]
    content: str
    manifest: Manifest
    split: Split


def plan_run(config: DictConfig) -> Plan:
    """Check the config, read the dataset's lists and the pictures to reconstruct.

    Raises:
        LatentiqaError: a value is outside its range, or a picture cannot be read.
    """
    from latentiqa.data.images import content_of

    check_values(config)
    check_numbers(config)
    source = build(config.backbone)
    device = device_of(config)
    manifest = build(config.dataset)
    split = split_of(config, manifest)
    pictures, content = [], ""
    if config.input is not None:
        given = list(config.input) if isinstance(config.input, ListConfig) else [config.input]
        records = [Record(str(path), path, mos=0.0) for path in find_pictures(given)]
        keys = inspect(records, config.data)
        pictures = [record for record in records if record.name in keys]
        content = digest(sorted(map(content_of, keys.values())))
    return Plan(source, device, pictures, content, manifest, split)


def check_numbers(config: DictConfig) -> None:
    """Check the values that no class checks.

    Raises:
        ConfigError: one is outside its range.
    """
    for key in ("crops.number", "crops.per_kind", "samples.number", "samples.steps"):
        check_integer(key, OmegaConf.select(config, key), 1)
    for key in ("crops.size", "samples.size"):
        value = OmegaConf.select(config, key)
        if not isinstance(value, int) or value < 1 or value % MULTIPLE:
            raise ConfigError(f"{key}={value}: expected a positive multiple of {MULTIPLE}.")
    for key in ("denoising.timesteps", "captions.timesteps"):
        value = OmegaConf.select(config, key)
        if not (isinstance(value, ListConfig) and value and all(t in range(1000) for t in value)):
            raise ConfigError(f"{key}={value}: expected one or more integers in 0..999.")
    prompts = config.samples.prompts
    texts = isinstance(prompts, ListConfig) and all(isinstance(prompt, str) for prompt in prompts)
    if not (texts and prompts):
        raise ConfigError(f"samples.prompts={prompts}: expected one or more texts.")


def run(config: DictConfig) -> Done:
    """Assess one backbone; see the module's docstring."""
    plan = plan_run(config)
    clock = Clock()
    quieten()
    backbone = plan.source.load(plan.device)
    values = plain(config, plan.split)
    # Weights and pictures are known by content, not by place.
    sign = signature(
        without_usual_limit(values) | {"input": None, "backbone": plan.source.dtype},
        backbone=backbone.identity,
        pictures=plan.content,
        dataset=plan.manifest.fingerprint,
        split=plan.split.hash,
    )
    folder = Path(config.paths.runs) / f"{config.name}-{sign}"
    results_path = folder / "results.json"
    if results_path.exists() and not config.force:
        log.info("this assessment is finished (force=true runs it again)")
        return announce(results_path)
    clock.lap("load")

    import torch

    val = plan.manifest.subset(plan.split.val)
    readable = inspect(val.records, config.data)
    records = [record for record in val if record.name in readable]
    if not records:
        raise DataError("the val part has no readable photos; use a larger dataset.")
    log.info("%s: %s, crops of %d photos", folder, backbone.identity, len(records))
    clock.lap("inspect")
    reconstruction = None
    if plan.pictures:
        reconstruction = measure_reconstruction(config, backbone, plan.pictures, folder)
        clock.lap("reconstruction")
    as_they_are, degraded, kinds = draw_crops(config, backbone, records)
    clock.lap("crops")
    denoising = measure_denoising(config, backbone, [as_they_are, degraded], folder)
    clock.lap("denoising")
    captions = measure_captions(config, backbone, as_they_are, degraded, kinds)
    write_captions(captions, folder)
    clock.lap("captions")
    draw_samples(config, backbone, folder)
    clock.lap("samples")
    write_json(
        results_path,
        {
            "kind": "assess",
            "name": config.name,
            "signature": sign,
            "backbone": backbone.identity,
            "parameters": {
                name: sum(p.numel() for p in getattr(backbone, name).parameters())
                for name in ("vae", "unet", "text_encoder")
            },
            "metrics": {
                "reconstruction": reconstruction,
                "denoising": denoising,
                "captions": captions,
            },
            "dataset": plan.manifest.dataset,
            "dataset_fingerprint": plan.manifest.fingerprint,
            "split": plan.split.kind,
            "split_hash": plan.split.hash,
            "n": {"pictures": len(plan.pictures), "photos": len(records)},
            "seconds": round(clock.last - clock.started, 2),
            "stages": clock.stages,
            "threads": torch.get_num_threads(),
            "peak_memory_mb": peak_memory_mb(),
            **environment(),
            "notes": notes_of(plan.source.note, plan.manifest.note),
            "config": values,
        },
    )
    return announce(results_path)


def measure_reconstruction(
    config: DictConfig, backbone: LatentDiffusion, pictures: Sequence[Record], folder: Path
) -> dict[str, Any]:
    """Mean PSNR and LPIPS of whole pictures; parts of the first few into reconstruction.png."""
    import torch
    from torchmetrics.functional.image import peak_signal_noise_ratio

    from latentiqa.data.images import read_image
    from latentiqa.data.views import centre_crop
    from latentiqa.pretraining.assessment import reconstruct
    from latentiqa.pretraining.grids import save_grid

    distances = lpips_nets(backbone.device)
    measured: dict[str, list[float]] = {"psnr": [], **{f"lpips_{net}": [] for net in distances}}
    shown = []
    with track("reconstructing", len(pictures)) as advance:
        for record in pictures:
            image = read_image(record.path, config.data.max_pixels)[None].to(backbone.device)
            height, width = (side - side % MULTIPLE for side in image.shape[-2:])
            if not height or not width:
                raise DataError(
                    f"{record.path}: {image.shape[-1]} x {image.shape[-2]} pixels; expected sides "
                    f"of {MULTIPLE} or more. Leave it out of input."
                )
            image = centre_crop(image, height, width)
            restored = reconstruct(backbone, image)
            psnr = peak_signal_noise_ratio(restored, image, data_range=1.0)
            measured["psnr"].append(psnr.item())
            with torch.no_grad():
                for net, lpips in distances.items():
                    measured[f"lpips_{net}"].append(lpips(image, restored).item())
            if len(shown) < SHOWN:
                shown.append(torch.cat([image, restored]).cpu())
            advance()
    side = min(config.crops.size, *(length for pair in shown for length in pair.shape[-2:]))
    pairs = torch.stack([centre_crop(pair, side, side) for pair in shown], dim=1)
    save_grid(folder / "reconstruction.png", list(pairs))
    means = {key: sum(values) / len(values) for key, values in measured.items()}
    keys = ("psnr", *(f"lpips_{net}" for net in NETS))
    return {"n": len(pictures), **{key: means.get(key) for key in keys}}


def lpips_nets(device: torch.device) -> dict[str, LPIPS]:
    """LPIPS by net; none where the package with the weights is not installed."""
    from latentiqa.perceptual.lpips import LPIPS

    try:
        return {net: LPIPS(net).to(device) for net in NETS}
    except LatentiqaError as error:
        log.warning("reconstructions are measured without LPIPS: %s", error)
        return {}


def draw_crops(
    config: DictConfig, backbone: LatentDiffusion, records: Sequence[Record]
) -> tuple[Crops, Crops, Crops]:
    """Crops as they are, degraded by anything, and degraded by one kind at a time."""
    import numpy as np

    from latentiqa.data.captions import CLEAN, WORDS, Degradation, sample_degradations
    from latentiqa.data.crops import DegradedCrops
    from latentiqa.pretraining.assessment import known_crops

    options, batch_size = config.crops, config.data.batch_size
    photos = DegradedCrops(
        records,
        options.size,
        config.seed,
        clean=1,
        zoom=options.zoom,
        max_pixels=config.data.max_pixels,
    )
    rng = np.random.default_rng(config.seed)
    number = options.number
    chains = [sample_degradations(rng, clean=0) for _ in range(number)]
    singles = [(Degradation(kind, 3 + i % 3),) for kind in WORDS for i in range(options.per_kind)]
    return (
        known_crops(backbone, photos, [CLEAN] * number, 0, batch_size),
        known_crops(backbone, photos, chains, number, batch_size),
        known_crops(backbone, photos, singles, 2 * number, batch_size),
    )


def measure_denoising(
    config: DictConfig, backbone: LatentDiffusion, crops: Sequence[Crops], folder: Path
) -> dict[str, Any]:
    """Denoising loss by timestep, of the backbone and of its controls; a table and a figure."""
    import torch

    from latentiqa.backbones.reinitialised import reinitialised
    from latentiqa.data.captions import describe
    from latentiqa.pretraining.assessment import denoising_errors, linear_loss
    from latentiqa.report.figures import save_lines

    timesteps = list(config.denoising.timesteps)

    def loss(model: LatentDiffusion) -> list[float]:
        errors = [
            denoising_errors(
                model,
                some,
                [describe(done) for done in some.degradations],
                timesteps,
                config.seed,
                config.data.batch_size,
            )
            for some in crops
        ]
        return torch.cat(errors).mean(dim=0).tolist()

    power = torch.cat([some.z0 for some in crops]).square().mean().item()
    lines = {
        "trained": loss(backbone),
        "random": loss(reinitialised(backbone, config.seed)),
        "linear": [linear_loss(backbone.rates(t), power) for t in timesteps],
    }
    rows = [
        {"timestep": t, **dict(zip(lines, losses, strict=True))}
        for t, *losses in zip(timesteps, *lines.values(), strict=True)
    ]
    write_csv(folder / "denoising.csv", rows, ["timestep", *lines])
    legend = {
        "trained": f"{config.backbone.name}",
        "random": "the same with random U-Net and text encoder",
        "linear": "best multiple of the noisy latents",
    }
    save_lines(
        folder / "denoising.png",
        timesteps,
        {legend[name]: values for name, values in lines.items()},
        "timestep",
        "mean squared error of the noise (variance 1)",
    )
    return {"n": sum(len(some.names) for some in crops), "timesteps": timesteps, **lines}


def measure_captions(
    config: DictConfig, backbone: LatentDiffusion, as_they_are: Crops, degraded: Crops, kinds: Crops
) -> list[dict[str, Any]]:
    """Fitting captions against wrong ones: a row for each sort of crops and of wrong captions."""
    import numpy as np

    from latentiqa.data.captions import CLEAN, WORDS, describe
    from latentiqa.pretraining.assessment import CaptionFit, another, caption_fit, other_kind

    rng = np.random.default_rng([config.seed, 1])

    def others(crops: Crops) -> list[str]:
        return [describe(another(done, rng)) for done in crops.degradations]

    def fits(crops: Crops, wrong: dict[str, list[str]]) -> dict[str, CaptionFit]:
        timesteps = list(config.captions.timesteps)
        return caption_fit(backbone, crops, wrong, timesteps, config.seed, config.data.batch_size)

    def none(crops: Crops) -> list[str]:
        return [""] * len(crops.names)

    clean = [describe(CLEAN)] * len(degraded.names)
    wrong = {"another": others(degraded), "clean": clean, "none": none(degraded)}
    found = [
        ("degraded", fits(degraded, wrong)),
        ("as they are", fits(as_they_are, {"degraded": others(as_they_are)})),
    ]
    single = [describe([other_kind(done, rng)]) for (done,) in kinds.degradations]
    by_kind = fits(kinds, {"another": others(kinds), "kind": single, "none": none(kinds)})
    found.append(("all kinds", by_kind))
    for kind in WORDS:
        its = [i for i, (done,) in enumerate(kinds.degradations) if done.kind == kind]
        found.append(
            (kind, {name: CaptionFit(f.fit[its], f.wrong[its]) for name, f in by_kind.items()})
        )
    return [
        {"crops": crops, "wrong": name, **fit.row()}
        for crops, results in found
        for name, fit in results.items()
    ]


def write_captions(captions: Sequence[dict[str, Any]], folder: Path) -> None:
    """The rows of `measure_captions` as a table and as a figure."""
    from latentiqa.report.figures import save_shares

    write_csv(folder / "captions.csv", captions, list(captions[0]))
    save_shares(
        folder / "captions.png",
        {
            f"{row['crops']}, not {row['wrong']} (n={row['n']})": (
                row["share"],
                row["low"],
                row["high"],
            )
            for row in captions
        },
        "share denoised better with the caption that fits",
    )


def draw_samples(config: DictConfig, backbone: LatentDiffusion, folder: Path) -> None:
    """A row of pictures for each prompt, into samples.png."""
    from latentiqa.pretraining.grids import save_grid
    from latentiqa.pretraining.sampling import sample

    options = config.samples
    with track("sampling", len(options.prompts)) as advance:
        rows = []
        for prompt in options.prompts:
            rows.append(
                sample(
                    backbone,
                    prompt,
                    options.number,
                    options.size,
                    options.steps,
                    options.guidance_scale,
                    config.seed,
                ).cpu()
            )
            advance()
    save_grid(folder / "samples.png", rows)


def announce(results_path: Path) -> Done:
    """Print the measures and, as the last line, the path of results.json."""
    results = read_json(results_path)
    metrics = results["metrics"]
    console = Console(stderr=True, highlight=False)
    if measured := metrics["reconstruction"]:
        values = [f"{key} {_shown(measured[key])}" for key in measured if key != "n"]
        console.print(f"reconstruction of {measured['n']} pictures: {', '.join(values)}")
    denoising = metrics["denoising"]
    table = Table("timestep", *LOSSES, title=f"denoising loss of {denoising['n']} crops")
    for t, *losses in zip(denoising["timesteps"], *(denoising[key] for key in LOSSES), strict=True):
        table.add_row(str(t), *map(_shown, losses))
    console.print(table)
    table = Table("crops", "wrong", "share", "95 %", "n", title="fitting caption preferred")
    for row in metrics["captions"]:
        interval = f"{row['low']:.2f} to {row['high']:.2f}"
        table.add_row(row["crops"], row["wrong"], f"{row['share']:.2f}", interval, str(row["n"]))
    console.print(table)
    for note in results["notes"]:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    # Unwrapped and alone on stdout, for scripts.
    print(results_path)
    return Done()


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
