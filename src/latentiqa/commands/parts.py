"""From a composed config to the objects that the verbs work with."""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from latentiqa.commands.launch import build
from latentiqa.commands.progress import track
from latentiqa.errors import ConfigError, DataError

if TYPE_CHECKING:
    from lightning import Callback, Trainer

    from latentiqa.data.images import BadImage, Resize
    from latentiqa.data.manifest import Manifest, Record
    from latentiqa.data.splits import Split
    from latentiqa.heads import Head
    from latentiqa.hyperfeatures.store import FeatureStore
    from latentiqa.methods.lgdm import LGDM

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

METHOD_KEYS = ("backbone", "timesteps", "layers", "guidance")


def plain(config: DictConfig) -> dict[str, Any]:
    """The resolved config as plain data."""
    container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def check_method(config: DictConfig) -> dict[str, Any]:
    """Build the small descriptions of the method, so that bad values end the run here.

    Raises:
        ConfigError: a value is outside its range.
    """
    from latentiqa.data.images import Resize
    from latentiqa.hyperfeatures.pooling import statistics_of

    for key in METHOD_KEYS:
        if config[key] is None:
            raise ConfigError(f"{key}=null: expected one of the choices in conf/{key}/.")
    described = {key: build(config[key]) for key in METHOD_KEYS}
    statistics_of(config.pooling)
    described["resize"] = Resize(described["backbone"].resolution, config.data.resize)
    return described


def load_lgdm(config: DictConfig, described: dict[str, Any], head: Head | None = None) -> LGDM:
    """Load the backbone and compose the method around it."""
    quieten()
    from latentiqa.methods.lgdm import LGDM

    backbone = described["backbone"].load()
    return LGDM(
        backbone,
        described["timesteps"],
        described["layers"],
        described["guidance"],
        pooling=config.pooling,
        prompt=config.prompt,
        seed=config.seed,
        head=head,
    )


def check_values(config: DictConfig) -> None:
    """Check the values that no class checks: those at the top and under ``data``.

    Raises:
        ConfigError: a value is outside its range.
    """
    for key, (kinds, expected) in PLAIN_VALUES.items():
        if key in config and not isinstance(config[key], kinds):
            raise ConfigError(f"{key}={config[key]!r}: expected {expected}.")
    shares = config.get("fractions", ListConfig([]))
    if not (isinstance(shares, ListConfig) and all(isinstance(x, (int, float)) for x in shares)):
        raise ConfigError(f"fractions={shares}: expected three shares, for example [0.7,0.1,0.2].")
    if config.data.on_error not in {"stop", "skip"}:
        raise ConfigError(f"data.on_error={config.data.on_error!r}: expected 'stop' or 'skip'.")
    for key, least in (("batch_size", 1), ("shard_size", 1), ("num_workers", 0)):
        value = config.data[key]
        if not isinstance(value, int) or value < least:
            raise ConfigError(f"data.{key}={value}: expected an integer >= {least}.")


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
    """What makes the Lightning trainer of the predict loop.

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
    from lightning.pytorch.callbacks import ProgressBar

    on_terminal = sys.stderr.isatty()
    callbacks = [
        build(callback) for callback in OmegaConf.select(config, "callbacks", default={}).values()
    ]
    if not on_terminal:
        callbacks = [c for c in callbacks if not isinstance(c, ProgressBar)]

    def make(extra: Sequence[Callback] = (), **changes: Any) -> Trainer:
        return build(
            config.trainer,
            callbacks=[*callbacks, *extra],
            logger=False,
            enable_progress_bar=on_terminal and any(isinstance(c, ProgressBar) for c in callbacks),
            enable_model_summary=False,
            enable_checkpointing=False,
            inference_mode=False,
            **changes,
        )

    # Once now: a wrong value or a GPU that is not there ends the run before pictures are read.
    make()
    return make


def inspect(records: Sequence[Record], on_error: str) -> dict[str, str]:
    """Read every picture once before anything is computed.

    Args:
        records: the pictures.
        on_error: ``stop`` or ``skip``.

    Returns:
        Image keys by name, of the readable ones.

    Raises:
        DataError: pictures are bad and ``on_error`` is ``stop``.
    """
    from latentiqa.data.images import inspect_images

    with track("reading pictures", len(records)) as advance:
        keys, bad = inspect_images(records, advance=advance)
    if bad:
        listing = listed(bad)
        if on_error == "stop":
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
    """The split that the config asks for, cut to ``limit`` pictures a part."""
    from dataclasses import replace

    from latentiqa.data.splits import make_split

    split = make_split(manifest, config.split, config.fractions, config.validation_fraction)
    limit = OmegaConf.select(config, "limit", default=None)
    if limit is None:
        return split
    if limit < 3:
        raise ConfigError(f"limit={limit}: expected at least 3 pictures a part.")
    return replace(
        split, **{p: _thinned(getattr(split, p), limit) for p in ("train", "val", "test")}
    )


def _thinned(names: Sequence[str], limit: int) -> tuple[str, ...]:
    """At most ``limit`` names, drawn by a fixed seed: neighbours are often copies of a content."""
    return tuple(sorted(random.Random(0).sample(names, min(limit, len(names)))))


def fill_store(
    config: DictConfig,
    lgdm: LGDM,
    resize: Resize,
    manifest: Manifest,
    keys: dict[str, str],
    make_trainer: Callable[..., Trainer],
) -> tuple[FeatureStore, int]:
    """Open the store of the method's hyperfeatures and extract what it lacks.

    Returns:
        The store, and the number of pictures that were extracted.
    """
    from latentiqa.hyperfeatures.extraction import extract, open_store

    store = open_store(config.paths.store, lgdm, resize)
    options = {key: config.data[key] for key in ("batch_size", "num_workers", "shard_size")}
    return store, extract(lgdm, store, manifest.records, keys, resize, make_trainer, **options)


def is_other_rank() -> bool:
    """Whether this is a further process of a multi-device run: the first one does the rest."""
    from lightning.pytorch.utilities import rank_zero_only

    return rank_zero_only.rank != 0


def notes_of(*notes: str | None) -> list[str]:
    """The caveats that go wherever the numbers go."""
    return [note for note in notes if note]
