"""A finished training run, read back from its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from latentiqa.commands.parts import check_method, load_lgdm
from latentiqa.errors import ConfigError
from latentiqa.runs import read_json

if TYPE_CHECKING:
    from latentiqa.data.images import Resize
    from latentiqa.methods.lgdm import LGDM


@dataclass(frozen=True)
class FinishedRun:
    """What `latentiqa train` left in its folder.

    Attributes:
        folder: the run's folder.
        results: what its results.json says.
    """

    folder: Path
    results: dict[str, Any]


@dataclass(frozen=True)
class LoadedRun:
    """A finished run, ready to score.

    Attributes:
        lgdm: the method, with the fitted head.
        resize: brings pictures to the backbone's resolution.
        seen_images: image keys of the pictures that its head was fitted or chosen on.
    """

    lgdm: LGDM
    resize: Resize
    seen_images: frozenset[str]


def find_run(run: str | Path, runs: str | Path) -> FinishedRun:
    """Find a finished training run; nothing heavy is loaded.

    Args:
        run: its folder, or the path of its results.json.
        runs: where runs are kept, to tell of those there are.

    Raises:
        ConfigError: there is no such run.
        DataError: its results.json is broken.
    """
    folder = Path(run).parent if Path(run).name == "results.json" else Path(run)
    if not (folder / "results.json").is_file():
        known = sorted(str(p.parent) for p in Path(runs).glob("*/results.json"))
        there = f"finished runs: {', '.join(known)}" if known else "there is no finished run yet"
        raise ConfigError(
            f"run={run}: no results.json there; {there}. Train one first, for example "
            "`latentiqa train experiment=demo`, and give the folder it prints."
        )
    return FinishedRun(folder, read_json(folder / "results.json"))


def load_run(run: FinishedRun) -> LoadedRun:
    """Load the method and the head of a finished training run.

    Raises:
        ConfigError: what is here is not what the run was made with.
        DataError: a file of the run is broken.
    """
    from latentiqa.heads import load_head

    config = OmegaConf.create(run.results["config"])
    assert isinstance(config, DictConfig)
    described = check_method(config)
    head, meta = load_head(run.folder / "head")
    lgdm = load_lgdm(config, described, head)
    if list(lgdm.widths) != meta["features"]:
        raise ConfigError(
            f"run={run.folder}: its head was fitted on other hyperfeatures than the config beside "
            "it gives; train it again with force=true."
        )
    if lgdm.backbone.identity != (trained_on := run.results["backbone"]):
        raise ConfigError(
            f"run={run.folder}: it was trained on the backbone {trained_on}, here the same name "
            f"is {lgdm.backbone.identity}; get those weights back or train again."
        )
    return LoadedRun(lgdm, described["resize"], frozenset(meta["seen_images"]))
