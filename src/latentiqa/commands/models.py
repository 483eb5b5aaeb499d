"""Quality models by a word: what latentiqa compare takes as models, judges and measures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from latentiqa.commands.launch import build
from latentiqa.commands.search_path import config_folder
from latentiqa.errors import ConfigError

if TYPE_CHECKING:
    from latentiqa.comparison.measures import Measure
    from latentiqa.enhance.prior import Prior

INPUT, PRISTINE = "input", "pristine"
"""Makers of pictures that are no models."""


@dataclass(frozen=True)
class Model:
    """One of what is compared, or a judge.

    Attributes:
        name: in all tables.
        prior: its description.
        said: all that determines its scores.
    """

    name: str
    prior: Prior
    said: dict[str, Any]

    @property
    def folder(self) -> str:
        """Its name as that of a folder or file."""
        return re.sub(r"[^\w.+-]+", "_", self.name)


def model_of(config: DictConfig, word: str) -> Model:
    """The description of a model by a word of ``models`` or ``judges``.

    Raises:
        ConfigError: there is no such run, choice of psi or folder.
    """
    from latentiqa.commands.trained import find_run
    from latentiqa.enhance.prior import PsiPrior, RunPrior, named

    if word.startswith("psi:"):
        options = psi_options(config, word.removeprefix("psi:"))
        if config.good is None:
            raise ConfigError(f"models: {word} needs good=FOLDER, of good pictures.")
        psi = build(options)
        prior = PsiPrior(psi=psi, good=str(config.good), pooling=config.pooling)
        said = {"psi": OmegaConf.to_container(options), "pooling": config.pooling}
        return Model(word, prior, said | {"content": prior.identity()})
    prior = named(word)
    if not isinstance(prior, RunPrior):
        return Model(prior.title, prior, {"function": word, "content": prior.identity()})
    return Model(prior.title, prior, {"run": find_run(prior.run, config.paths.runs).identity})


def psi_options(config: DictConfig, name: str) -> Any:
    """Keys of a psi: of its choice in conf/perceptual/ with what ``psis`` changes, or all of them.

    Raises:
        ConfigError: there is no such choice, or a key is missing.
    """
    folder = config_folder("conf") / "perceptual"
    found = config.psis.get(name) or OmegaConf.create({})
    if "_target_" not in found:
        if not (folder / f"{name}.yaml").is_file():
            known = sorted(path.stem for path in folder.glob("*.yaml"))
            raise ConfigError(
                f"psi:{name}: expected one of {', '.join(known)}, or psis.{name} with a _target_."
            )
        found = OmegaConf.merge(OmegaConf.load(folder / f"{name}.yaml"), found)
    if missing := OmegaConf.missing_keys(found):
        key = sorted(missing)[0]
        raise ConfigError(f"psi:{name} needs {key}: add '+psis.{name}.{key}=...'.")
    return found


def check_models(config: DictConfig, models: Sequence[Model], judges: Sequence[Model]) -> None:
    """Refuse names that stand twice, too few models, and models without a scale.

    Raises:
        ConfigError: there are such.
    """
    names = [model.name for model in (*models, *judges)]
    folders = [model.folder for model in (*models, *judges)]
    if len(models) < 2:
        raise ConfigError(f"models={list(config.models)}: expected two or more.")
    if len(set(folders)) < len(folders):
        raise ConfigError(
            f"models and judges: {', '.join(names)}: two have the same name; a model judges, too, "
            "and is not named among the judges again."
        )
    if taken := {INPUT, PRISTINE} & set(names):
        raise ConfigError(f"models and judges: {', '.join(taken)}: the name is taken; rename it.")
    bare = [m.name for m in models if m.prior.scale() is None]
    if config.reference is None and bare:
        raise ConfigError(
            f"models: {', '.join(bare)} has no scale of its own: give reference=FOLDER of pictures "
            "that all scales are fitted on."
        )


def distance_of(config: DictConfig, name: str) -> Measure:
    """LPIPS or DISTS as a measure.

    Raises:
        ConfigError: its weights are not given.
    """
    return build(psi_options(config, name)).distance
