"""From a composed config to the objects that the verbs work with."""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import DictConfig, ListConfig, OmegaConf

from latentiqa.commands.launch import build
from latentiqa.commands.progress import track
from latentiqa.errors import ConfigError, DataError, check_integer
from latentiqa.training import RATERS

if TYPE_CHECKING:
    import torch
    from lightning import Callback, Trainer
    from torch import Tensor

    from latentiqa.backbones.source import BackboneSource
    from latentiqa.data.images import BadImage
    from latentiqa.data.manifest import Manifest, Record
    from latentiqa.data.splits import Split
    from latentiqa.data.views import Views
    from latentiqa.hyperfeatures.store import FeatureStore
    from latentiqa.methods.base import FeatureExtractor
    from latentiqa.perceptual import PooledPsi
    from latentiqa.training.rater import Rater
    from latentiqa.training.recipe import Recipe

log = logging.getLogger(__name__)

PLAIN_VALUES: dict[str, tuple[Any, str]] = {
    "name": (str, "text, the first part of the run folder's name"),
    "seed": (int, "an integer"),
    "prompt": (str, 'text, or "" for none'),
    "limit": ((int, type(None)), "an integer >= 3, or null"),
    "validation_fraction": ((int, float), "0 < x < 1"),
    "force": (bool, "true or false"),
    "fast_dev_run": (bool, "true or false"),
}
"""Types of the keys at the top, and what to tell."""

LGDM_PARTS = ("timesteps", "layers", "guidance")
LGDM_KEYS = (*LGDM_PARTS, "perceptual", "prompt", "seed")
UNREAD_BY_RATERS = (*LGDM_PARTS, "perceptual", "prompt", "pooling", "head")
UNREAD = {
    "lgdm": (),
    "latents": LGDM_KEYS,
    "psi": ("backbone", *LGDM_KEYS),
    "dpiqa": UNREAD_BY_RATERS,
    "genziqa": UNREAD_BY_RATERS,
    "student": (),
}
"""Keys that a method does not read; its runs neither depend on them nor record them."""

METHODS = tuple(name for name in UNREAD if name != "student")
"""What `latentiqa train` runs."""


def plain(config: DictConfig, split: Split | None = None) -> dict[str, Any]:
    """The resolved config as plain data, ``null`` where its method does not read a key.

    Args:
        config: of the run.
        split: what `split_of` gave. In place of the path of a file stands what makes the split, so
            that a saved ``seed-3.json`` and ``split=3`` are the same run.
    """
    container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(container, dict)
    values = {str(key): value for key, value in container.items()}
    if split is not None and _is_path(config.split):
        unmade = {"split": split.kind, "fractions": None, "validation_fraction": None}
        values |= split.made_by or unmade
    if "method" in values and (unread := UNREAD[values["method"]["name"]]):
        values |= dict.fromkeys(unread)
        values["choices"] = {k: v for k, v in values["choices"].items() if k not in unread}
    return values


def without_usual_limit(values: Mapping[str, Any]) -> dict[str, Any]:
    """The config for a signature: ``data.max_pixels`` counts where it is not the default.

    So runs of verbs that had no such key at first keep their names, and their checkpoints.
    """
    from latentiqa.data.images import MAX_PIXELS

    data = dict(values["data"])
    if data["max_pixels"] == MAX_PIXELS:
        del data["max_pixels"]
    return {**values, "data": data}


@dataclass(frozen=True)
class RaterPlan:
    """What gives the scores itself, and how it is trained.

    Attributes:
        method: a key of `RATERS`.
        design: of the rater.
        training: of it.
    """

    method: str
    design: Any
    training: Recipe

    def folder(self, run: Path) -> Path:
        """Where what was trained is, in the folder of a run."""
        return run / RATERS[self.method]


@dataclass(frozen=True)
class Method:
    """Small descriptions of what computes the features, checked; nothing heavy is loaded.

    Attributes:
        backbone: the diffusion model; none where only psis see the picture.
        lgdm: its timesteps, layers and guidance; empty without LGDM.
        rater: of a method that gives scores itself; none otherwise.
        psis: psis of the picture itself by name.
        pooling: of each of them by name.
        views: what of a picture all of them see.
    """

    backbone: BackboneSource | None
    lgdm: dict[str, Any]
    rater: RaterPlan | None
    psis: dict[str, PooledPsi]
    pooling: dict[str, str]
    views: Views

    @property
    def note(self) -> str | None:
        """What goes wherever the numbers go."""
        return self.backbone.note if self.backbone else None

    @property
    def is_trained(self) -> bool:
        """Whether a rater is trained before it scores."""
        return self.rater is not None and self.rater.design.is_trained

    @property
    def is_zero_shot(self) -> bool:
        """Whether nothing at all is fitted, not even a head."""
        return self.rater is not None and not self.rater.design.is_trained


def check_method(config: DictConfig) -> Method:
    """Build the small descriptions of the method, so that bad values end the run here.

    Raises:
        ConfigError: a value is outside its range.
    """
    if OmegaConf.select(config, "method.name") == "student":
        return _check_student(config)
    psis, backbone = _check_psis(config), None
    lgdm: dict[str, Any] = {}
    rater = None
    match name := OmegaConf.select(config, "method.name"):
        case "lgdm":
            backbone = _chosen(config, "backbone")
            if config.perceptual is not None:
                build(config.perceptual)  # an error names it, and not the guidance.psi it becomes
            lgdm = {key: _chosen(config, key) for key in LGDM_PARTS}
        case "latents":
            backbone = _chosen(config, "backbone")
        case "psi":
            if not psis:
                raise ConfigError(
                    "method=psi with features=none: there is nothing to compute; choose one of "
                    "conf/features/, for example features=efficientnet, or method=lgdm."
                )
        case "dpiqa" | "genziqa":
            if psis:
                raise ConfigError(
                    f"method={name} with features={', '.join(psis)}: it gives the scores itself; "
                    "set features=none."
                )
            backbone = _chosen(config, "backbone")
            own = (build(config.method[key]) for key in (RATERS[name], "training"))
            rater = RaterPlan(name, *own)
        case _:
            raise ConfigError(f"method.name={name!r}: expected {', '.join(METHODS)}.")
    pooling = {} if rater else _check_pooling(config, [*([name] if backbone else []), *psis])
    if OmegaConf.select(config, "views") is None:
        raise ConfigError(
            "views=null: expected one of the choices in conf/views/; a run from before there were "
            "any has to be trained again."
        )
    return Method(backbone, lgdm, rater, psis, pooling, build(config.views))


def _check_student(config: DictConfig) -> Method:
    if "student" not in config:
        raise ConfigError("method.name=student: a student is trained by latentiqa distill.")
    views = _chosen(config, "views")
    if views.number != 1:
        raise ConfigError(
            f"views with {views.number} views of a picture: expected one, as of views=square; what "
            "a student is shown in training, augment says."
        )
    rater = RaterPlan("student", build(config.student), build(config.training))
    return Method(None, {}, rater, {}, {}, views)


def _chosen(config: DictConfig, key: str) -> Any:
    """The description that a group's choice builds."""
    if config[key] is None:
        raise ConfigError(f"{key}=null: expected one of the choices in conf/{key}/.")
    return build(config[key])


def rated_dataset(config: DictConfig) -> Manifest:
    """Read the dataset's lists; it must have scores.

    Raises:
        DataError: something of the dataset is missing or broken.
        ConfigError: it has no scores.
    """
    manifest = build(config.dataset)
    if not manifest.is_rated:
        raise ConfigError(
            f"dataset={manifest.dataset}: its pictures have no scores; it is for latentiqa "
            "pretrain, choose another one"
        )
    return manifest


def _check_psis(config: DictConfig) -> dict[str, PooledPsi]:
    from latentiqa.perceptual import PooledPsi

    psis = {str(name): build(psi) for name, psi in (config.features or {}).items()}
    for name, psi in psis.items():
        if not isinstance(psi, PooledPsi):
            raise ConfigError(
                f"features.{name}={type(psi).__name__}: expected a psi with statistics of the "
                "picture alone; choose one of conf/features/."
            )
    return psis


def _check_pooling(config: DictConfig, names: Sequence[str]) -> dict[str, str]:
    from latentiqa.hyperfeatures.pooling import statistics_of

    pooling = config.pooling
    if isinstance(pooling, str):
        pooling = dict.fromkeys(names, pooling)
    if not isinstance(pooling, dict | DictConfig) or set(pooling) != set(names):
        raise ConfigError(
            f"pooling={pooling}: expected one pooling for all, such as mean_std, or one for each "
            f"of what computes features: {', '.join(names)}."
        )
    for value in pooling.values():
        statistics_of(value)
    return {name: pooling[name] for name in names}


def load_extractors(
    config: DictConfig, method: Method, folder: Path | None = None
) -> list[FeatureExtractor]:
    """Load what computes the features: of diffusion, then of the psis; or a rater.

    Args:
        config: of the run.
        method: from `check_method`.
        folder: of the run, with what it has trained, for methods that are trained.

    Raises:
        ConfigError: there is no run, and the method is trained.
        DataError: what it has trained is missing or damaged.
    """
    from latentiqa.methods.latents import LatentFeatures
    from latentiqa.methods.lgdm import LGDM
    from latentiqa.methods.psi import PsiFeatures

    if plan := method.rater:
        from latentiqa.methods.rated import Rated

        if not plan.design.is_trained:
            rater, precision = make_rater(method, config.seed), plan.training.precision
            return [Rated(plan.method, rater, "untrained", precision)]
        if folder is None:
            raise ConfigError(
                f"method={plan.method} is trained before it is run: use latentiqa train."
            )
        rater, weights = load_rater(method, plan.folder(folder), config.seed)
        # A student scores as what is exported of it does.
        precision = "32-true" if plan.method == "student" else plan.training.precision
        return [Rated(plan.method, rater, weights, precision)]
    extractors: list[FeatureExtractor] = []
    if method.backbone and method.lgdm:
        lgdm = LGDM(
            method.backbone.load(),
            **method.lgdm,
            pooling=method.pooling["lgdm"],
            prompt=config.prompt,
            seed=config.seed,
        )
        extractors.append(lgdm)
    elif method.backbone:
        extractors.append(LatentFeatures(method.backbone.load(), method.pooling["latents"]))
    return extractors + [PsiFeatures(n, psi, method.pooling[n]) for n, psi in method.psis.items()]


def make_rater(method: Method, seed: int, state: Mapping[str, Tensor] | None = None) -> Rater:
    """Load the backbone of a method that gives scores itself, and put its rater around it.

    Args:
        method: from `check_method`.
        seed: of the run.
        state: what is to be loaded into it; what is known from there is not computed again.

    Raises:
        ConfigError: the backbone is not one for this method.
    """
    assert method.backbone is not None
    assert method.rater is not None
    design, backbone = method.rater.design, method.backbone.load()
    if method.rater.method == "dpiqa":
        from latentiqa.dpiqa.teacher import Teacher

        known = state["prompts"] if state and design.prompts != "learnt" else None
        return Teacher(backbone, design, seed=seed, prompts=known)
    from latentiqa.genziqa.rater import PromptRater

    return PromptRater(backbone, design, seed=seed)


def load_rater(method: Method, folder: Path, seed: int) -> tuple[Rater, str]:
    """Make a rater again of what `latentiqa.training.saving.save_rater` wrote.

    Args:
        method: from `check_method`.
        folder: where it is.
        seed: of its training.

    Returns:
        The rater, and the name of its weights.

    Raises:
        DataError: it is missing or damaged.
        ConfigError: it is of another design, or of another backbone.
    """
    assert method.rater is not None
    if method.rater.method == "student":
        from latentiqa.student.saving import load_student

        return load_student(folder, method.rater.design, seed)
    from latentiqa.training.saving import load_state

    state, weights = load_state(folder)
    rater = make_rater(method, seed, state)
    rater.load_trained(state)
    return rater, weights


def feature_names(extractors: Sequence[FeatureExtractor]) -> list[str]:
    """The columns that a head sees, in their order."""
    return [name for extractor in extractors for name in extractor.widths]


def backbone_of(extractors: Sequence[FeatureExtractor]) -> str | None:
    """Identity of the backbone that the features come from, if there is one."""
    return extractors[0].recipe().get("backbone")  # what has one comes first


def check_values(config: DictConfig) -> None:
    """Check the values that no class checks: those at the top and, where there are, under ``data``.

    Raises:
        ConfigError: a value is outside its range.
    """
    for key, (kinds, expected) in PLAIN_VALUES.items():
        if key in config and not isinstance(config[key], kinds):
            raise ConfigError(f"{key}={config[key]!r}: expected {expected}.")
    shares = config.get("fractions", ListConfig([]))
    if not (isinstance(shares, ListConfig) and all(isinstance(x, (int, float)) for x in shares)):
        raise ConfigError(f"fractions={shares}: expected three shares, for example [0.7,0.1,0.2].")
    if "data" not in config:
        return
    if config.data.get("on_error", "stop") not in {"stop", "skip"}:
        raise ConfigError(f"data.on_error={config.data.on_error!r}: expected 'stop' or 'skip'.")
    if not isinstance(config.data.get("flips", False), bool):
        raise ConfigError(f"data.flips={config.data.flips!r}: expected true or false.")
    least_values = {"batch_size": 1, "shard_size": 1, "num_workers": 0, "max_pixels": 1}
    for key, least in least_values.items():
        check_integer(f"data.{key}", config.data.get(key, least), least)


def device_of(config: DictConfig) -> torch.device:
    """The device that the trainer config names."""
    import torch

    device = torch.device("cuda" if config.trainer.accelerator in {"gpu", "cuda"} else "cpu")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("trainer=gpu: this PyTorch sees no GPU; leave trainer=cpu.")
    return device


def quieten() -> None:
    """Silence the libraries' advice and loading bars, which drown what a user asked for."""
    # Imported here: each sets its own level at import.
    import diffusers
    import lightning  # noqa: F401
    import transformers

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def trainer_factory(config: DictConfig) -> Callable[..., Trainer]:
    """What makes a Lightning trainer: of the predict loop, but for what is changed.

    Guidance needs gradients, so PyTorch's inference mode, Lightning's default, is off.

    Raises:
        ConfigError: a value of the trainer is not possible.
    """
    precision = OmegaConf.select(config, "trainer.precision", default=32)
    if str(precision) not in {"32", "32-true"}:
        # Autocast would change features behind the back of the store's address.
        raise ConfigError(
            f"trainer.precision={precision}: precision belongs to the backbone; set "
            "backbone.dtype=bfloat16 or float16 instead."
        )
    quieten()
    callbacks, progress_bar = callbacks_of(config)

    def make(extra: Sequence[Callback] = (), **changes: Any) -> Trainer:
        return build(
            config.trainer,
            callbacks=[*callbacks, *extra],
            enable_progress_bar=progress_bar,
            enable_model_summary=False,
            inference_mode=False,
            **{"logger": False, "enable_checkpointing": False} | changes,
        )

    # Once now: a wrong value or a GPU that is not there ends the run before pictures are read.
    make()
    return make


def callbacks_of(config: DictConfig) -> tuple[list[Callback], bool]:
    """The configured callbacks, and whether a progress bar is among them: only on a terminal."""
    from lightning.pytorch.callbacks import ProgressBar

    chosen = OmegaConf.select(config, "callbacks", default={}).values()
    callbacks = [build(callback) for callback in chosen]
    if not sys.stderr.isatty():
        callbacks = [c for c in callbacks if not isinstance(c, ProgressBar)]
    return callbacks, any(isinstance(c, ProgressBar) for c in callbacks)


def one_picture(config: DictConfig) -> Path:
    """The file that ``input`` names.

    Raises:
        ConfigError: it is none, or there are several.
    """
    given = list(config.input) if isinstance(config.input, ListConfig) else [config.input]
    if len(given) != 1 or not Path(given[0]).is_file():
        raise ConfigError(f"input={given}: expected the file of one picture.")
    return Path(given[0])


def inspect(records: Sequence[Record], options: DictConfig) -> dict[str, str]:
    """Read every picture once before anything is computed.

    Args:
        records: the pictures.
        options: the config's ``data``: ``on_error`` and ``max_pixels``.

    Returns:
        Image keys by name, of the readable ones.

    Raises:
        DataError: pictures are bad and ``on_error`` is ``stop``.
    """
    from latentiqa.data.images import inspect_images

    with track("reading pictures", len(records)) as advance:
        keys, bad = inspect_images(records, advance=advance, max_pixels=options.max_pixels)
    if bad:
        listing = listed(bad)
        if options.on_error == "stop":
            raise DataError(
                f"{len(bad)} of {len(records)} pictures cannot be read:\n{listing}\n"
                "Mend or remove them, or leave them out with data.on_error=skip."
            )
        log.warning("%d pictures are left out:\n%s", len(bad), listing)
    return keys


def listed(bad: Sequence[BadImage], most: int = 20) -> str:
    """Bad pictures with their reasons, a line each."""
    lines = [f"  {image.path}: {image.reason}" for image in bad[:most]]
    return "\n".join([*lines, f"  ... and {len(bad) - most} more"] if len(bad) > most else lines)


def split_of(config: DictConfig, manifest: Manifest) -> Split:
    """The split that the config asks for, cut to ``limit`` pictures a part.

    Raises:
        ConfigError: a value is not possible, or there is no such file.
        DataError: the dataset cannot be split so, or the file's split is none of this dataset or
            has a content in two parts.
    """
    from dataclasses import replace

    from latentiqa.data.splits import PARTS, load_split, make_split

    if not _is_path(config.split):
        split = make_split(manifest, config.split, config.fractions, config.validation_fraction)
    elif Path(config.split).is_file():
        split = load_split(config.split, manifest)
    else:
        raise ConfigError(
            f"split={config.split!r}: expected a seed (0, 1, ...), official, or the file of a "
            "split; there is no such file."
        )
    limit = OmegaConf.select(config, "limit", default=None)
    if limit is None:
        return split
    if limit < 3:
        raise ConfigError(f"limit={limit}: expected at least 3 pictures a part.")
    return replace(split, **{part: thinned(getattr(split, part), limit) for part in PARTS})


def _is_path(split: object) -> bool:
    """Whether ``split`` names a file, and not a seed or the official one."""
    return isinstance(split, str) and split != "official"


def thinned(names: Sequence[str], limit: int) -> tuple[str, ...]:
    """At most ``limit`` names, drawn by a fixed seed: neighbours are often copies of a content."""
    return tuple(sorted(random.Random(0).sample(names, min(limit, len(names)))))


class Filled(NamedTuple):
    """The store of an extractor's features, complete for the pictures of a run."""

    extractor: FeatureExtractor
    store: FeatureStore
    n_extracted: int


def fill_stores(
    config: DictConfig,
    extractors: Sequence[FeatureExtractor],
    views: Views,
    manifest: Manifest,
    keys: dict[str, str],
    make_trainer: Callable[..., Trainer],
    mirrored: Collection[str] = (),
) -> list[Filled]:
    """Open the store of each extractor and extract what it lacks.

    Args:
        config: its ``data`` and ``paths.store`` are read.
        extractors: what computes the features.
        views: of each picture.
        manifest: the dataset.
        keys: image keys by name of the pictures that are wanted.
        make_trainer: from `trainer_factory`.
        mirrored: names of the pictures whose views are wanted mirrored, too.
    """
    from latentiqa.hyperfeatures.extraction import extract, open_store

    names = ("batch_size", "num_workers", "shard_size", "max_pixels")
    options = {key: config.data[key] for key in names}
    filled = []
    for extractor in extractors:
        store = open_store(config.paths.store, extractor, views)
        n = extract(
            *(extractor, store, manifest.records, keys, views, make_trainer),
            mirrored=mirrored,
            **options,
        )
        filled.append(Filled(extractor, store, n))
    return filled


def read_stores(
    filled: Sequence[Filled], keys: Sequence[str], views: Views, flips: bool = False
) -> Tensor:
    """Features of the views of pictures, ``(N, K, F)`` float32, the last as `feature_names`.

    Args:
        filled: the stores.
        keys: image keys of the pictures.
        views: those that the stores were filled with.
        flips: their mirrored copies too, ``(N, 2 K, F)``.
    """
    import torch

    from latentiqa.hyperfeatures.extraction import read_features

    asked = [view for key in keys for view in views.names(key, flips)]
    parts = [read_features(f.store, asked, list(f.extractor.widths)) for f in filled]
    return torch.cat(parts, dim=1).unflatten(0, (len(keys), -1))


def is_other_rank() -> bool:
    """Whether this is a further process of a multi-device run: the first one does the rest."""
    from lightning.pytorch.utilities import rank_zero_only

    return rank_zero_only.rank != 0


def notes_of(*notes: str | None) -> list[str]:
    """The caveats that go wherever the numbers go."""
    return [note for note in notes if note]
