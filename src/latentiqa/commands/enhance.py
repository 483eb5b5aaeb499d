"""latentiqa enhance: raise a quality model's score of pictures, in the latents of diffusion.

Usage: latentiqa enhance PICTURE_OR_FOLDER ... [group=choice ...] [key=value ...]

The ascent is of lambda Q(x) - D(x, input): Q is the prior's score, mapped to 0 to 100, D the
fidelity. Results go to output=FOLDER at the inputs' size, with EXIF data and colour profile.

  latentiqa enhance photos/                                       prior: the scorer lgdm
  latentiqa enhance photos/ prior=run prior.run=runs/mine-... 'judges=[lgdm]'
  latentiqa enhance photos/ prior=callable prior.function=my_models:sharpness reference=good/
  latentiqa enhance photos/ space=pixels 'judges=[runs/psi-...]'  the control: pixels
  latentiqa enhance photos/ input_reference=upscaled/             after another enhancer

space= edict, ddim, fixed_point, latents or pixels; prior= lgdm, run, psi, liqe or
callable; fidelity= nlpd, mse, lpips, dists or mix; ascent= momentum or adam.

Judges rate and do not guide: where the prior rises and every one of them falls, it is said. With
input_reference= the ascent begins at the other enhancer's picture, which fidelity holds to; what is
compared before and after is the input.

Writes pictures/, before_after/, way/ (a strip or a GIF), trajectories/ (CSV) and results.json,
whose path is printed last. Pictures that are done are skipped when the same command is given
again. Pictures that cannot be enhanced are listed, and the exit status is then 1.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, ListConfig
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from latentiqa.commands.launch import Done, build
from latentiqa.commands.parts import device_of, listed, notes_of, plain, quieten
from latentiqa.commands.progress import track
from latentiqa.commands.trace import spread
from latentiqa.data.folders import find_pictures
from latentiqa.data.manifest import Record
from latentiqa.errors import ConfigError, DataError, LatentiqaError, check_integer
from latentiqa.hashing import file_digest
from latentiqa.runs import environment, peak_memory_mb, read_json, signature, write_csv, write_json

if TYPE_CHECKING:
    import torch

    from latentiqa.backbones.ldm import LatentDiffusion
    from latentiqa.backbones.source import BackboneSource
    from latentiqa.data.images import BadImage
    from latentiqa.enhance.ascent import Ascent
    from latentiqa.enhance.enhancer import Enhanced, Enhancer
    from latentiqa.enhance.fidelity import Term
    from latentiqa.enhance.prior import Logistic, Prior, Quality
    from latentiqa.enhance.space import Space
    from latentiqa.enhance.tiles import Tiling

log = logging.getLogger(__name__)

POSITIONAL = "input"

WAYS = ("strip", "gif", "none")

WRITTEN = ("pictures", "before_after", "way", "models")
"""Folders below ``output`` with pictures; the last one is of `latentiqa compare`."""

SHOWN = 256, 8
"""Longest side of a picture of the way, and how many at most."""

FLAT = 1.0
"""A mapped score below has hardly any gradient: the logistic rises 25 times less than at 50."""

UNSIGNED = ("input", "output", "input_reference", "reference", "data")
"""Keys that do not change a picture's result; what is in the files is signed by content."""


@dataclass(frozen=True)
class Plan:
    """What the config says, checked before anything heavy is loaded."""

    source: BackboneSource
    space: Space
    prior: Prior
    terms: dict[str, Term]
    ascent: Ascent
    tiling: Tiling
    judges: dict[str, Prior]
    device: torch.device
    folder: Path
    pictures: dict[Path, Path]
    reference: list[Path]

    @cached_property
    def identities(self) -> list[str | None]:
        """Of prior, judges and the scale's pictures, whose files may change below one name."""
        models = [model.identity() for model in (self.prior, *self.judges.values())]
        return models + [file_digest(path) for path in self.reference]


def plan_run(config: DictConfig) -> Plan:
    """Check the config and find the pictures.

    Raises:
        LatentiqaError: a value is outside its range, or there is no picture.
    """
    from latentiqa.enhance.prior import named
    from latentiqa.enhance.tiles import Tiling

    check_integer("way.every", config.way.every, 1)
    check_integer("data.max_pixels", config.data.max_pixels, 1)
    if config.way.kind not in WAYS:
        raise ConfigError(f"way.kind={config.way.kind!r}: expected one of {', '.join(WAYS)}.")
    if not isinstance(config.judges, ListConfig):
        raise ConfigError(f"judges={config.judges}: expected a list, for example [lgdm].")
    other = config.input_reference
    if other is not None and not Path(other).is_dir():
        raise ConfigError(f"input_reference={other}: expected a folder.")
    if other is not None and Path(other).resolve().is_relative_to(Path(config.output).resolve()):
        raise ConfigError(
            f"output={config.output}: input_reference={other} lies inside of it and could be "
            "written over; expected another folder."
        )
    judges = {judge.title: judge for judge in map(named, map(str, config.judges))}
    if len(judges) < len(config.judges):
        raise ConfigError(f"judges={list(config.judges)}: two of them have the same name.")
    given = list(config.input) if isinstance(config.input, ListConfig) else [config.input]
    find_callables()
    terms = build(config.fidelity)
    if not terms:
        raise ConfigError("fidelity: expected one or more terms; choose one of conf/fidelity/.")
    prior = build(config.prior)
    prior.check()
    for judge in judges.values():
        judge.check(differentiable=False)
    return Plan(
        build(config.backbone),
        build(config.space),
        prior,
        terms,
        build(config.ascent),
        Tiling(config.tiles.side, config.tiles.overlap),
        judges,
        device_of(config),
        Path(config.output),
        named_results(given, Path(config.output)),
        reference_pictures(config),
    )


def reference_pictures(config: DictConfig) -> list[Path]:
    """Pictures that scales are fitted on; none without ``reference``."""
    return [] if config.reference is None else find_pictures([config.reference])


def find_callables() -> None:
    """Let ``module:name`` find modules that lie where the command is typed, as a user's do."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def named_results(inputs: Sequence[str], output: Path) -> dict[Path, Path]:
    """Each picture and the path of its result below ``pictures/``, a PNG.

    A second picture that differs in its suffix alone keeps that suffix before the new one.

    Raises:
        ConfigError: the results would lie among the inputs or in their place, or two have one
            name.
    """
    results: dict[Path, Path] = {}
    written = [(output / place).resolve() for place in WRITTEN]
    names: dict[Path, Path] = {}
    for given in map(Path, inputs):
        if given.is_dir() and output.resolve().is_relative_to(given.resolve()):
            raise ConfigError(f"output={output}: it lies inside of {given}; expected another one.")
        for path in find_pictures([given]):
            if path in results:
                continue
            if any(path.resolve().is_relative_to(place) for place in written):
                raise ConfigError(
                    f"output={output}: {path} is a result there, which would be written over; "
                    "expected another folder."
                )
            relative = path.relative_to(given) if given.is_dir() else Path(path.name)
            if names.setdefault(relative, path) != path:
                raise ConfigError(f"{path}: {names[relative]} has the same name; rename one.")
            result = relative.with_suffix(".png")
            if result in results.values():
                result = relative.with_name(f"{relative.name}.png")
            results[path] = result
    return results


def run(config: DictConfig) -> Done:
    """Enhance pictures; see the module's docstring."""
    started = time.monotonic()
    plan = plan_run(config)

    from latentiqa.data.images import BadImage, inspect_images

    records = [Record(str(path), path, mos=0.0) for path in plan.pictures]
    with track("reading pictures", len(records)) as advance:
        keys, bad = inspect_images(records, advance=advance, max_pixels=config.data.max_pixels)
    quieten()
    enhancer = load(config, plan)
    log.info("prior %s: Q = 50 at %.4g, spread %.4g (%s)", *told(plan.prior, enhancer.scale))
    rows: list[dict[str, Any]] = []
    with track("enhancing", len(keys)) as advance:
        for record in (record for record in records if record.name in keys):
            try:
                with memory_told():
                    rows.append(enhance_one(config, plan, enhancer, record.path))
            except LatentiqaError as error:
                bad.append(BadImage(record.path, str(error).removeprefix(f"{record.path}: ")))
            advance()
    show(rows, list(plan.judges))
    path = plan.folder / "results.json"
    seconds = round(time.monotonic() - started, 2)
    write_json(path, results_of(config, plan, enhancer, rows, bad) | {"seconds": seconds})
    if bad:
        log.error("%d of %d pictures failed:\n%s", len(bad), len(records), listed(bad))
    print(path)
    return Done(status=1 if bad else 0)


@contextmanager
def memory_told() -> Iterator[None]:
    """Make of a device without memory for a picture an error that is this picture's alone.

    Raises:
        LatentiqaError: it is.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise LatentiqaError(
            f"the device's memory is not enough for it ({error}); use a smaller tiles.side or "
            "picture, or trainer=cpu."
        ) from error


def told(prior: Prior, scale: Logistic) -> tuple[str, float, float, str]:
    """The prior and its scale, for the log."""
    return prior.title, scale.centre, scale.spread, scale.source


def load(config: DictConfig, plan: Plan, backbone: LatentDiffusion | None = None) -> Enhancer:
    """Load all models, and fit the prior's scale where it is not given.

    Args:
        config: its ``reference`` and ``way`` are read.
        plan: of the run.
        backbone: where it is loaded already.
    """
    from latentiqa.enhance.enhancer import Enhancer

    quality = plan.prior.load(plan.device)
    return Enhancer(
        backbone=backbone or plan.source.load(plan.device),
        space=plan.space,
        ascent=plan.ascent,
        quality=quality,
        scale=scale_of(config, plan, quality),
        weight=plan.prior.weight,
        terms=plan.terms,
        judges={
            name: judge.load(plan.device, differentiable=False)
            for name, judge in plan.judges.items()
        },
        tiling=plan.tiling,
        keep_every=None if config.way.kind == "none" else config.way.every,
    )


def scale_of(config: DictConfig, plan: Plan, quality: Quality) -> Logistic:
    """The scale fitted on ``reference``, else the prior's own.

    Raises:
        ConfigError: there is neither.
    """
    from latentiqa.enhance.prior import fit_scale

    if plan.reference:
        source = f"{len(plan.reference)} pictures of {config.reference}"
        return fit_scale(quality, plan.reference, plan.device, config.data.max_pixels, source)
    if (scale := plan.prior.scale()) is None:
        raise ConfigError(
            f"prior {plan.prior.title} has no scale: give reference=FOLDER of pictures to fit it "
            "on, or both prior.centre and prior.spread."
        )
    return scale


def enhance_one(config: DictConfig, plan: Plan, enhancer: Enhancer, path: Path) -> dict[str, Any]:
    """Enhance a picture and write its files, or read what was written before.

    Returns:
        Its row of results.json.

    Raises:
        DataError: there is no reference of its name and size.
    """
    name = plan.pictures[path]
    other = reference_of(config, path, name)
    sign = sign_of(config, plan, enhancer, path, other)
    done = plan.folder / "rows" / name.with_suffix(".json")
    made = (plan.folder / "pictures" / name).is_file()
    if made and done.is_file() and not config.force:
        row = read_json(done)
        if row["signature"] == sign:
            return row

    from latentiqa.data.images import read_image

    image = read_image(path, config.data.max_pixels)
    reference = None if other is None else read_image(other, config.data.max_pixels)
    if reference is not None and reference.shape != image.shape:
        sizes = [f"{x.shape[-1]} x {x.shape[-2]}" for x in (image, reference)]
        raise DataError(f"{path}: {sizes[0]} pixels, but {other} has {sizes[1]}; resize one.")
    started = time.monotonic()
    found = enhancer(image, reference)
    done.unlink(missing_ok=True)  # it must not vouch for another run's picture
    write_files(config, plan.folder, name, path, image, found)
    row = {
        "name": str(path),
        "result": str(Path("pictures", name)),
        "before": found.before,
        "start": found.start,
        "after": found.after,
        "distance": found.distance,
        "adversarial": found.is_adversarial,
        "ended": found.ended,
        "seconds": round(time.monotonic() - started, 2),
        "signature": sign,
    }
    write_json(done, row)  # the last file: without it the picture is not done
    return row


def reference_of(config: DictConfig, path: Path, name: Path) -> Path | None:
    """The other enhancer's picture, if there is one to begin at; raises as `beside`."""
    if config.input_reference is None:
        return None
    return beside(Path(config.input_reference), path, name)


def beside(folder: Path, path: Path, name: Path) -> Path:
    """A picture's counterpart in another folder: of the input's name, or that with ``.png``.

    Raises:
        DataError: there is none.
    """
    place = folder / name.parent
    wanted = list(dict.fromkeys([path.name, name.name]))
    for found in (place / one for one in wanted):
        if found.is_file():
            return found
    raise DataError(f"{path}: no {' nor '.join(wanted)} in {place}.")


def sign_of(
    config: DictConfig, plan: Plan, enhancer: Enhancer, path: Path, other: Path | None
) -> str:
    """Hash of all that determines a picture's result."""
    values = {key: value for key, value in plain(config).items() if key not in UNSIGNED}
    if not plan.reference:  # a fitted one differs in its last bits with the number of threads
        values["scale"] = [enhancer.scale.centre, enhancer.scale.spread]
    values["models"] = plan.identities
    return signature(
        values,
        backbone=enhancer.backbone.identity,
        picture=file_digest(path),
        reference="" if other is None else file_digest(other),
    )


def write_files(
    config: DictConfig, folder: Path, name: Path, path: Path, image: Any, found: Enhanced
) -> None:
    """All files of one picture but its row."""
    from latentiqa.enhance.photo import (
        metadata,
        reduced,
        save_gif,
        save_png,
        side_by_side,
        to_pillow,
    )

    before, after = to_pillow(image), to_pillow(found.picture)
    save_png(folder / "pictures" / name, after, **metadata(path))
    save_png(folder / "before_after" / name, side_by_side([before, after]))
    write_csv(folder / "trajectories" / name.with_suffix(".csv"), found.rows, list(found.rows[0]))
    side, most = SHOWN
    frames = [reduced(to_pillow(frame), side) for frame in found.frames()]
    match config.way.kind:
        case "strip":
            save_png(folder / "way" / name, side_by_side(spread(frames, most)))
        case "gif":
            save_gif(folder / "way" / name.with_suffix(".gif"), frames)


def results_of(
    config: DictConfig,
    plan: Plan,
    enhancer: Enhancer,
    rows: Sequence[Mapping[str, Any]],
    bad: Sequence[BadImage],
) -> dict[str, Any]:
    """What stands in results.json."""
    scale = enhancer.scale
    rises = sum(row["after"]["prior"] > row["before"]["prior"] for row in rows)
    return {
        "kind": "enhance",
        "name": config.name,
        "prior": plan.prior.title,
        "scale": {"centre": scale.centre, "spread": scale.spread, "source": scale.source},
        "judges": list(plan.judges),
        "backbone": enhancer.backbone.identity,
        "n": {
            "pictures": len(rows),
            "prior_rises": rises,
            # Of none without a judge.
            "adversarial": sum(bool(row["adversarial"]) for row in rows) if plan.judges else None,
            "failed": len(bad),
        },
        "pictures": list(rows),
        "failed": [{"name": str(image.path), "reason": image.reason} for image in bad],
        "peak_memory_mb": peak_memory_mb(),
        **environment(),
        "notes": notes_of(plan.source.note),
        "config": plain(config),
    }


def show(rows: Sequence[Mapping[str, Any]], judges: Sequence[str]) -> None:
    """What all models say before and after, a line a picture, and what is suspicious."""
    console = Console(stderr=True, highlight=False)
    table = Table(Column("picture", overflow="fold"), "Q", *judges, "ended")
    for row in rows:
        before, after = row["before"], row["after"]
        cells = [f"{before['mapped']:.1f} → {after['mapped']:.1f}"]
        cells += [f"{before[judge]:.4g} → {after[judge]:.4g}" for judge in judges]
        ended = ", ".join(dict.fromkeys(row["ended"]))
        table.add_row(Text(row["name"]), *cells, ended)
    console.print(table)
    if suspicious := [row["name"] for row in rows if row["adversarial"]]:
        log.warning(
            "adversarial: of %d of %d pictures the prior's score rises and every judge's falls; "
            "what rose is not their quality:\n  %s",
            *(len(suspicious), len(rows), "\n  ".join(suspicious)),
        )
    if flat := [row["name"] for row in rows if row["start"]["mapped"] < FLAT]:
        log.warning(
            "of %d of %d pictures Q begins near 0, where its scale is flat and the prior leads "
            "nowhere; fit it on pictures like these (reference=FOLDER), or set prior.centre and "
            "prior.spread:\n  %s",
            *(len(flat), len(rows), "\n  ".join(flat)),
        )
