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
class TrainedRun:
    """What `latentiqa train` left in its folder.

    Attributes:
        folder: the run's folder.
        results: what its results.json says.
        seen_images: image keys of the pictures that its head was fitted or chosen on.
        lgdm: the method, with the fitted head.
        resize: brings pictures to the backbone's resolution.
    """

    folder: Path
    results: dict[str, Any]
    seen_images: frozenset[str]
    lgdm: LGDM
    resize: Resize


def trained_results(run: str | Path, runs: str | Path) -> dict[str, Any]:
    """The results.json of a finished training run.

    Args:
        run: its folder, or the path of its results.json.
        runs: where runs are kept, to tell of those there are.

    Raises:
        ConfigError: there is no such run.
    """
    folder = _folder(run)
    if not (folder / "results.json").is_file():
        known = sorted(str(p.parent) for p in Path(runs).glob("*/results.json"))
        there = f"finished runs: {', '.join(known)}" if known else "there is no finished run yet"
        raise ConfigError(
            f"run={run}: no results.json there; {there}. Train one first, for example "
            "`latentiqa train experiment=demo`, and give the folder it prints."
        )
    return read_json(folder / "results.json") | {"folder": str(folder)}


def load_run(run: str | Path, runs: str | Path) -> TrainedRun:
    """Load the method and the head of a finished training run.

    Raises:
        ConfigError: there is no such run.
        DataError: a file of the run is broken.
    """
    from latentiqa.heads import load_head

    folder, results = _folder(run), trained_results(run, runs)
    config = OmegaConf.create(results["config"])
    assert isinstance(config, DictConfig)
    described = check_method(config)
    head, meta = load_head(folder / "head")
    lgdm = load_lgdm(config, described, head)
    if list(lgdm.widths) != meta["features"]:
        raise ConfigError(
            f"run={run}: its head was fitted on other hyperfeatures than the config beside it "
            "gives; train it again with force=true."
        )
    if lgdm.backbone.identity != results["backbone"]:
        raise ConfigError(
            f"run={run}: it was trained on the backbone {results['backbone']}, here the same name "
            f"is {lgdm.backbone.identity}; get those weights back or train again."
        )
    return TrainedRun(folder, results, frozenset(meta["seen_images"]), lgdm, described["resize"])


def _folder(run: str | Path) -> Path:
    path = Path(run)
    return path.parent if path.name == "results.json" else path
