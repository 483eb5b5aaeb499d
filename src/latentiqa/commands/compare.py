"""latentiqa compare: quality models compared by the pictures that they make.

Usage: latentiqa compare PICTURE_OR_FOLDER ... models=[NAME,...] [group=choice ...] [key=value ...]
       latentiqa compare serve [output=FOLDER] [serve.port=8000]
       latentiqa compare rank [PICKS ...] [output=FOLDER] [rank.key=value ...]

Every model enhances every picture, as latentiqa enhance does; all models rate all results; people
pick the better of two results on a page, and their picks become one ranking.

  latentiqa compare photos/ 'models=[lgdm,psi:nss,psi:efficientnet]' good=kodak/ reference=any/
  latentiqa compare photos/ 'models=[student,runs/mine-...]' pristine=good/ 'measures=[psnr,lpips]'
  latentiqa compare serve                          then open the printed address and pick
  latentiqa compare rank picks/ more.csv           ranking of all raters, with intervals

A model is lgdm or student (scorers inside the package), a run's folder, module:name (any callable
of Python) or psi:NAME, how usual its features are among the pictures of good=FOLDER (a choice of
conf/perceptual/). All are mapped to 0 to 100: by their own scale, or one fitted on reference=.

The first form writes to output= (compare/):
  models/NAME/     what latentiqa enhance writes
  matrix.md, .csv  mean score of each model's pictures by each model, and measures to pristine ones
  page/            the 2AFC page, of the selection.count pictures that models disagree about and
                   that differ from each other. index.html opens from the disk, or put the folder on
                   any web server; picks are downloaded at the end.
  sheet.png        what the page shows, with names
  results.json     everything; its path is printed last
What is done is not done again when the same command is given, nor when models or pictures are
added. Pictures that fail are listed, and the exit status is then 1.

serve puts the page on this machine alone (127.0.0.1) and writes picks to output/picks/STUDY/, rank
reads those of the page's study there if none are given. It writes ranking.md, .csv, .json and .png
and raters.csv to output. Raters who miss catch trials, contradict themselves or the others, or lean
to a side are flagged with the reason; rank.drop_flagged=true ranks without them. A folder of photos
that is called serve or rank is ./serve, ./rank.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from latentiqa.commands import enhance
from latentiqa.commands.launch import Done, build
from latentiqa.commands.models import INPUT, PRISTINE, Model, check_models, distance_of, model_of
from latentiqa.commands.opinions import rank, serve
from latentiqa.commands.parts import device_of, listed, notes_of, plain, quieten
from latentiqa.commands.progress import track
from latentiqa.data.manifest import Record
from latentiqa.errors import ConfigError, DataError, LatentiqaError, check_integer
from latentiqa.files import write_atomic
from latentiqa.hashing import digest, file_digest
from latentiqa.report.tables import to_csv, to_markdown
from latentiqa.runs import environment, peak_memory_mb, read_json, write_json

if TYPE_CHECKING:
    from torch import Tensor

    from latentiqa.comparison.measures import Measure
    from latentiqa.comparison.page import Options
    from latentiqa.data.images import BadImage
    from latentiqa.enhance.prior import Logistic
    from latentiqa.perceptual import PooledPsi

log = logging.getLogger(__name__)

POSITIONAL = "input"

FORMS = {"serve": serve, "rank": rank}
"""First words that are no pictures."""

ENHANCE_KEYS = (
    *("backbone", "space", "fidelity", "ascent", "tiles", "way", "data", "reference", "force"),
)
"""What one model's enhancement reads of the config."""

SHOWN = 256
"""Longest side of a picture of sheet.png."""


@dataclass(frozen=True)
class Plan:
    """What the config says, checked before anything heavy is loaded.

    Attributes:
        base: of an enhancement, without its prior.
        models: that make pictures and judge.
        judges: that judge alone.
        measures: to pristine pictures.
        psi: of the distance between inputs.
        options: of the page.
        pristine: folder, if there is one.
    """

    base: enhance.Plan
    models: list[Model]
    judges: list[Model]
    measures: dict[str, Measure]
    psi: PooledPsi
    options: Options
    pristine: Path | None


@dataclass(frozen=True)
class Made:
    """A picture that all models have enhanced.

    Attributes:
        path: of the input.
        name: what it is called on the page and in results.json.
        files: whose -> the picture's file: input, models, and pristine where it is given.
        rows: of each model, as in the results.json of latentiqa enhance.
    """

    path: Path
    name: str
    files: dict[str, Path]
    rows: dict[str, dict[str, Any]]


def run(config: DictConfig) -> Done:
    """Make, serve or rank; see the module's docstring."""
    given = _listed(config.input)
    if given[0] in FORMS:
        return FORMS[given[0]](config, given[1:])
    return make(config)


def make(config: DictConfig) -> Done:
    """Let all models enhance and judge all pictures, and write the page."""
    started = time.monotonic()
    plan = plan_run(config)

    from latentiqa.data.images import inspect_images

    records = [Record(str(path), path, mos=0.0) for path in plan.base.pictures]
    with track("reading pictures", len(records)) as advance:
        keys, bad = inspect_images(records, advance=advance, max_pixels=config.data.max_pixels)
    quieten()
    paths = [record.path for record in records if record.name in keys]
    paths, pristine = find_pristine(config, plan, paths, bad)
    features = features_of(config, plan, paths, bad)
    paths = list(features)
    rows, scales, identity = enhance_all(config, plan, paths, bad)
    made = [
        Made(
            path,
            plan.base.pictures[path].with_suffix("").as_posix(),
            {INPUT: path}
            | {m.name: _folder(plan, m) / rows[m.name][path]["result"] for m in plan.models}
            | ({PRISTINE: pristine[path]} if path in pristine else {}),
            {m.name: rows[m.name][path] for m in plan.models},
        )
        for path in paths
        if all(path in found for found in rows.values())
    ]
    made, scores = judge_all(config, plan, made, bad)
    if not made:
        raise DataError(f"no picture was enhanced and rated by all models:\n{listed(bad)}")
    alone = alone_of(plan, scores)
    mapped = to_scales(scores, scales)
    measured = measure_all(config, plan, made)
    chosen, discrepancies = choose(config, plan, made, features)
    study = write_study(config, plan, [made[i] for i in chosen])
    table = write_matrix(plan, mapped, measured, scales)
    results = {
        "kind": "compare",
        "name": config.name,
        "models": {
            name: {"centre": s.centre, "spread": s.spread, "source": s.source}
            for name, s in scales.items()
        },
        "judges": [judge.name for judge in plan.judges],
        "backbone": identity,
        "n": {
            "pictures": len(made),
            "shown": len(chosen),
            "failed": len({one.path for one in bad}),
            "adversarial": sum(sum(values) for values in alone.values()),
        },
        **table,
        "study": study,
        "shown": [made[i].name for i in chosen],
        "pictures": [
            {
                "name": found.name,
                "discrepancy": discrepancies[i],
                "scores": at(scores, i),
                "measures": at(measured, i),
                "enhanced": {
                    name: {**row, "adversarial": alone[name][i]} for name, row in found.rows.items()
                },
            }
            for i, found in enumerate(made)
        ],
        "failed": [{"name": str(image.path), "reason": image.reason} for image in bad],
        "seconds": round(time.monotonic() - started, 2),
        "peak_memory_mb": peak_memory_mb(),
        **environment(),
        "notes": notes_of(plan.base.source.note),
        "config": plain(config),
    }
    path = plan.base.folder / "results.json"
    write_json(path, results)
    if told := [f"{m}: {sum(values)} of {len(made)}" for m, values in alone.items() if any(values)]:
        log.warning(
            "adversarial: a model's own score rises and that of every other one falls; what rose "
            "is not the quality:\n  %s",
            "\n  ".join(told),
        )
    if bad:
        log.error("%d pictures failed:\n%s", len({image.path for image in bad}), listed(bad))
    log.info("page: %s, or latentiqa compare serve", plan.base.folder / "page" / "index.html")
    print(path)
    return Done(status=1 if bad else 0)


def alone_of(
    plan: Plan, scores: Mapping[str, Mapping[str, Sequence[float]]]
) -> dict[str, list[bool]]:
    """Of each model on which of its pictures its own score rises and that of all others falls."""
    from latentiqa.enhance.enhancer import rises_alone

    found: dict[str, list[bool]] = {}
    for model in plan.models:
        gains = {
            judge: [
                after - before for after, before in zip(values, scores[INPUT][judge], strict=True)
            ]
            for judge, values in scores[model.name].items()
        }
        own = gains.pop(model.name)
        others = zip(*gains.values(), strict=True)
        found[model.name] = [bool(rises_alone(*pair)) for pair in zip(own, others, strict=True)]
    return found


def at(table: Mapping[str, Mapping[str, Sequence[float]]], i: int) -> dict[str, dict[str, float]]:
    """Of all values those of one picture."""
    return {who: {key: values[i] for key, values in row.items()} for who, row in table.items()}


# ---- what the config says


def plan_run(config: DictConfig) -> Plan:
    """Check the config and find the pictures.

    Raises:
        LatentiqaError: a value is outside its range, or there is no picture.
    """
    from latentiqa.comparison.measures import MEASURES, check_measures
    from latentiqa.comparison.page import Options
    from latentiqa.comparison.selection import check_selection
    from latentiqa.enhance.tiles import Tiling
    from latentiqa.perceptual import PooledPsi

    for key in ("models", "judges", "measures"):
        if not isinstance(config[key], ListConfig):
            raise ConfigError(f"{key}={config[key]}: expected a list, for example [lgdm].")
    check_integer("way.every", config.way.every, 1)
    check_integer("data.max_pixels", config.data.max_pixels, 1)
    if config.way.kind not in enhance.WAYS:
        raise ConfigError(
            f"way.kind={config.way.kind!r}: expected one of {', '.join(enhance.WAYS)}."
        )
    check_selection(config.selection.count, config.selection.diversity)
    check_measures(list(config.measures))
    if (folder := config.pristine) is not None and not Path(folder).is_dir():
        raise ConfigError(f"pristine={folder}: expected a folder.")
    enhance.find_callables()
    models = [model_of(config, str(word)) for word in config.models]
    judges = [model_of(config, str(word)) for word in config.judges]
    check_models(config, models, judges)
    psi = build(config.selection.psi)
    if not isinstance(psi, PooledPsi):
        raise ConfigError(
            f"selection.psi={type(psi).__name__}: expected a psi with statistics of the picture "
            "alone, such as perceptual@selection.psi=nss."
        )
    psi.widths(config.selection.pooling)
    terms = build(config.fidelity)
    if not terms:
        raise ConfigError("fidelity: expected one or more terms; choose one of conf/fidelity/.")
    output = Path(config.output)
    base = enhance.Plan(
        build(config.backbone),
        build(config.space),
        models[0].prior,
        terms,
        build(config.ascent),
        Tiling(config.tiles.side, config.tiles.overlap),
        {},
        device_of(config),
        output,
        enhance.named_results(_listed(config.input), output),
        enhance.reference_pictures(config),
    )
    distances = {m: distance_of(config, m) for m in config.measures if m not in MEASURES}
    measures = {m: MEASURES.get(m) or distances[m] for m in config.measures}
    pristine = None if folder is None else Path(folder)
    options = Options(**config.page)
    for model in models:
        model.prior.check()
    for judge in judges:
        judge.prior.check(differentiable=False)
    return Plan(base, models, judges, measures, psi, options, pristine)


# ---- what is made


def find_pristine(
    config: DictConfig, plan: Plan, paths: Sequence[Path], bad: list[BadImage]
) -> tuple[list[Path], dict[Path, Path]]:
    """Pristine pictures of the inputs.

    An input without a readable one of its size, or that cannot be measured against it, is bad:
    what models make of it has its size, and could not either.
    """
    if plan.pristine is None:
        return list(paths), {}

    from latentiqa.comparison.measures import measured
    from latentiqa.data.images import BadImage, read_image

    found: dict[Path, Path] = {}
    for path in paths:
        try:
            other = enhance.beside(plan.pristine, path, plan.base.pictures[path])
            image, best = (read_image(p, config.data.max_pixels) for p in (path, other))
            sizes = [x.shape[:0:-1] for x in (image, best)]
            if sizes[0] != sizes[1]:
                told = " and ".join(f"{width} x {height}" for width, height in sizes)
                raise DataError(f"{path}: it and {other} are of {told} pixels; resize one.")
            measured(image, best, plan.measures)
            found[path] = other
        except LatentiqaError as error:
            bad.append(BadImage(path, str(error).removeprefix(f"{path}: ")))
    return list(found), found


def features_of(
    config: DictConfig, plan: Plan, paths: Sequence[Path], bad: list[BadImage]
) -> dict[Path, Tensor | None]:
    """Pooled features of the inputs, ``(1, D)``, where some of them are to be chosen by these.

    An input that has none, as it is too small, say, is bad. Without a choice there are none.
    """
    import torch

    from latentiqa.data.images import BadImage, read_image

    count = config.selection.count
    if count is None or len(paths) <= count:
        return dict.fromkeys(paths)
    found: dict[Path, Tensor | None] = {}
    for path in paths:
        try:
            batch = read_image(path, config.data.max_pixels)[None].to(plan.base.device)
            with torch.no_grad():
                statistics = plan.psi.statistics(batch, config.selection.pooling)
            found[path] = torch.cat([*statistics.values()], 1).cpu()
        except LatentiqaError as error:
            bad.append(BadImage(path, f"selection.psi: {error}"))
    return found


def enhance_all(
    config: DictConfig, plan: Plan, paths: Sequence[Path], bad: list[BadImage]
) -> tuple[dict[str, dict[Path, dict[str, Any]]], dict[str, Logistic], str]:
    """Every model enhances every picture, one model in memory at a time.

    Returns:
        Rows by model and picture, without those that failed, which are added to ``bad``; the
        scale of each model; the backbone's identity.
    """
    from latentiqa.data.images import BadImage

    values = plain(config)
    shared = {key: values[key] for key in ENHANCE_KEYS} | {"input_reference": None}
    backbone = plan.base.source.load(plan.base.device)
    rows: dict[str, dict[Path, dict[str, Any]]] = {}
    scales: dict[str, Logistic] = {}
    for model in plan.models:
        own = OmegaConf.create(shared | {"prior": model.said})
        its = replace(plan.base, prior=model.prior, folder=_folder(plan, model))
        enhancer = enhance.load(own, its, backbone)
        scales[model.name], rows[model.name] = enhancer.scale, {}
        log.info("%s: Q = 50 at %.4g, spread %.4g (%s)", model.name, *_told(enhancer.scale))
        with track(f"enhancing by {model.name}", len(paths)) as advance:
            for path in paths:
                try:
                    with enhance.memory_told():
                        rows[model.name][path] = enhance.enhance_one(own, its, enhancer, path)
                except LatentiqaError as error:
                    reason = str(error).removeprefix(f"{path}: ")
                    bad.append(BadImage(path, f"{model.name}: {reason}"))
                advance()
    return rows, scales, backbone.identity


def judge_all(
    config: DictConfig, plan: Plan, made: Sequence[Made], bad: list[BadImage]
) -> tuple[list[Made], dict[str, dict[str, list[float]]]]:
    """Raw scores of all pictures by all models and judges, one of them in memory at a time.

    What a judge has rated is kept in ratings/, by the pictures' content.

    Returns:
        The pictures, without those that a judge cannot rate, which are added to ``bad``; and whose
        pictures -> judge -> a score a picture.
    """
    from latentiqa.data.images import BadImage

    content = {path: file_digest(path) for found in made for path in found.files.values()}
    known: dict[str, dict[str, float]] = {}
    for judge in (*plan.models, *plan.judges):
        known[judge.name] = {}
        failed = judge_one(config, plan, judge, content, known[judge.name])
        for found in made:
            for maker, path in found.files.items():
                if path in failed:
                    bad.append(BadImage(found.path, f"{judge.name} on {maker}: {failed[path]}"))
        made = [found for found in made if not failed.keys() & set(found.files.values())]
    makers = list(made[0].files) if made else []
    return list(made), {
        maker: {
            judge: [scores[content[found.files[maker]]] for found in made]
            for judge, scores in known.items()
        }
        for maker in makers
    }


def judge_one(
    config: DictConfig,
    plan: Plan,
    judge: Model,
    content: Mapping[Path, str],
    known: dict[str, float],
) -> dict[Path, str]:
    """Rate what was not rated before.

    Args:
        config: of the comparison.
        plan: of it.
        judge: who rates.
        content: of the pictures, by path.
        known: is filled with scores by content.

    Returns:
        Why pictures could not be rated.
    """
    from latentiqa.data.images import read_image
    from latentiqa.enhance.prior import rate

    kept = plan.base.folder / "ratings" / f"{judge.folder}.json"
    signed = digest(judge.said)
    if kept.is_file() and not config.force and (before := read_json(kept))["judge"] == signed:
        known |= before["scores"]
    missing = [path for path, key in content.items() if key not in known]
    if not missing:
        return {}
    failed: dict[Path, str] = {}
    quality = judge.prior.load(plan.base.device, differentiable=False)
    with track(f"rating by {judge.name}", len(missing)) as advance:
        for path in missing:
            try:
                with enhance.memory_told():
                    image = read_image(path, config.data.max_pixels)[None].to(plan.base.device)
                    known[content[path]] = rate(quality, image)
            except LatentiqaError as error:
                failed[path] = str(error)
            advance()
    write_json(kept, {"judge": signed, "scores": known})
    return failed


def to_scales(
    scores: Mapping[str, Mapping[str, Sequence[float]]], scales: Mapping[str, Logistic]
) -> dict[str, dict[str, list[float]]]:
    """Scores mapped to 0 to 100, of the judges that have a scale; of others as they are."""
    import torch

    return {
        maker: {
            judge: scales[judge](torch.tensor(values, dtype=torch.float64)).tolist()
            if judge in scales
            else list(values)
            for judge, values in row.items()
        }
        for maker, row in scores.items()
    }


def measure_all(
    config: DictConfig, plan: Plan, made: Sequence[Made]
) -> dict[str, dict[str, list[float]]]:
    """Measures of inputs and results against pristine pictures; nothing without them."""
    if plan.pristine is None:
        return {}

    from latentiqa.comparison.measures import measured
    from latentiqa.data.images import read_image

    makers = [maker for maker in made[0].files if maker != PRISTINE]
    found: dict[str, dict[str, list[float]]] = {
        maker: {measure: [] for measure in plan.measures} for maker in makers
    }
    with track("measuring", len(made)) as advance:
        for picture in made:
            best = read_image(picture.files[PRISTINE], config.data.max_pixels)
            for maker in makers:
                image = read_image(picture.files[maker], config.data.max_pixels)
                for name, value in measured(image, best, plan.measures).items():
                    found[maker][name].append(value)
            advance()
    return found


def choose(
    config: DictConfig,
    plan: Plan,
    made: Sequence[Made],
    features: Mapping[Path, Tensor | None],
) -> tuple[list[int], list[float]]:
    """The pictures that people are shown, and how far models' results are apart on each."""
    import torch

    from latentiqa.comparison.selection import apart, discrepancy, select
    from latentiqa.data.images import read_image

    most = config.data.max_pixels
    discrepancies = []
    with track("comparing results", len(made)) as advance:
        for found in made:
            results = [read_image(found.files[model.name], most) for model in plan.models]
            discrepancies.append(discrepancy(results))
            advance()
    count = config.selection.count
    if count is None or len(made) <= count:
        return list(range(len(made))), discrepancies
    known = [x for found in made if (x := features[found.path]) is not None]
    between = apart(torch.cat(known))
    return select(discrepancies, between, count, config.selection.diversity), discrepancies


# ---- what is written


def write_study(config: DictConfig, plan: Plan, shown: Sequence[Made]) -> str:
    """The page and the sheet; returns the study's name."""
    from latentiqa.comparison.page import write_page
    from latentiqa.data.images import read_image
    from latentiqa.enhance.photo import reduced, to_pillow
    from latentiqa.report.figures import save_pictures

    names = [model.name for model in plan.models]
    pictures = {x.name: (x.path, {name: x.files[name] for name in names}) for x in shown}
    study = write_page(plan.base.folder / "page", pictures, plan.options, config.data.max_pixels)

    def small(path: Path) -> Any:
        import numpy as np

        image = to_pillow(read_image(path, config.data.max_pixels))
        return np.asarray(reduced(image, SHOWN), dtype=float) / 255

    sheet = {x.name: {who: small(path) for who, path in x.files.items()} for x in shown}
    save_pictures(plan.base.folder / "sheet.png", sheet)
    return study


def write_matrix(
    plan: Plan,
    mapped: Mapping[str, Mapping[str, Sequence[float]]],
    measured: Mapping[str, Mapping[str, Sequence[float]]],
    scales: Mapping[str, Logistic],
) -> dict[str, Any]:
    """Print the matrix and write it; returns its means for results.json."""
    from latentiqa.comparison.matrix import OTHERS, matrix, means
    from latentiqa.comparison.measures import TITLES

    models = [model.name for model in plan.models]
    titles = {judge: judge for judge in next(iter(mapped.values()))}
    notes = [
        "mean scores of the pictures of a row by the model of a column, mapped to 0 to 100; a "
        f"model judges its own pictures, too, which {OTHERS} leaves out"
    ]
    if raw := [judge.name for judge in plan.judges if judge.name not in scales]:
        notes.append(f"not mapped: {', '.join(raw)}")
    if measured:
        titles |= {name: TITLES[name] for name in plan.measures}
        notes.append(
            "against the pristine pictures: " + ", ".join(titles[m] for m in plan.measures)
        )
    rows = {maker: {**row, **measured.get(maker, {})} for maker, row in mapped.items()}
    table = matrix(rows, models, titles, [*notes, *notes_of(plan.base.source.note)])
    for suffix, write in {"md": to_markdown, "csv": to_csv}.items():
        write_atomic(plan.base.folder / f"matrix.{suffix}", write(table))
    print(to_markdown(table))
    return {"matrix": means(mapped), "measures": means(measured)}


def _folder(plan: Plan, model: Model) -> Path:
    return plan.base.folder / "models" / model.folder


def _told(scale: Logistic) -> tuple[float, float, str]:
    return scale.centre, scale.spread, scale.source


def _listed(value: Any) -> list[str]:
    """One or several."""
    return [str(x) for x in value] if isinstance(value, ListConfig) else [str(value)]
