"""A finished run of train or distill, read back from its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from latentiqa.commands.launch import build
from latentiqa.commands.parts import (
    backbone_of,
    check_method,
    feature_names,
    load_extractors,
    rated_dataset,
)
from latentiqa.errors import ConfigError, DataError
from latentiqa.hashing import digest, folder_digest
from latentiqa.runs import read_json
from latentiqa.training import RATERS

PACKAGED = Path(__file__).parents[1] / "scorers"
"""Finished runs that the package carries, by name: results.json, head/ and what was trained."""

DEFAULT = "student"
"""Which of them scores where none is named."""

if TYPE_CHECKING:
    from torch import Tensor

    from latentiqa.data.views import Views
    from latentiqa.heads import Head
    from latentiqa.methods.base import FeatureExtractor
    from latentiqa.report.finished import Finished
    from latentiqa.report.layers import Scores


@dataclass(frozen=True)
class FinishedRun:
    """What `latentiqa train` or `latentiqa distill` left in its folder.

    Attributes:
        folder: the run's folder.
        results: what its results.json says.
    """

    folder: Path
    results: dict[str, Any]

    @property
    def is_embedded(self) -> bool:
        """Whether it is one that the package carries."""
        return self.folder.parent == PACKAGED

    @property
    def method(self) -> str:
        """What scores, such as ``LGDM on tiny + efficientnet, ridge``."""
        choices = self.results["config"]["choices"]
        backbone = choices.get("backbone")
        titles = {
            "lgdm": f"LGDM on {backbone}",
            "latents": f"latents of {backbone}",
            "dpiqa": f"DP-IQA on {backbone}",
            "genziqa": f"GenzIQA on {backbone}",
            "student": f"student {choices.get('student')}",
        }
        names: list[str] = self.results["features"].split(" + ")
        features = " + ".join(titles.get(name, name) for name in names)
        return f"{features}, {choices['head']}" if "head" in choices else features

    @property
    def trained_on(self) -> str:
        """What its head was fitted and chosen on: ``2,000 photos of biq2021 (official split)``."""
        if self.results.get("zero_shot"):
            return "no rated photos"
        n = self.results["n"]["train"] + self.results["n"]["val"]
        return f"{n:,} photos of {self.results['dataset']} ({self.results['split']} split)"

    @property
    def identity(self) -> str:
        """Names the run and all that it computes with: what is taught by it depends on this."""
        trained = [self.folder / part for part in ("head", *RATERS.values())]
        return digest(
            {
                "signature": self.results["signature"],
                "features": {name: s["key"] for name, s in self.results["stores"].items()},
                "weights": {p.name: folder_digest(p) for p in trained if p.is_dir()},
            }
        )

    @property
    def srcc(self) -> float | None:
        """SRCC on its test part; None where it is undefined."""
        return self.results["metrics"]["test"]["srcc"]


@dataclass(frozen=True)
class LoadedRun:
    """A finished run, ready to score.

    Attributes:
        extractors: what computes the features.
        head: fitted on them.
        views: what of a picture the extractors see.
        seen_images: image keys of the pictures that its head was fitted or chosen on.
    """

    extractors: list[FeatureExtractor]
    head: Head
    views: Views
    seen_images: frozenset[str]


def packaged() -> list[str]:
    """Names of the scorers that the package carries."""
    return sorted(path.parent.name for path in PACKAGED.glob("*/results.json"))


def folder_of(run: str | Path | None) -> Path:
    """The folder that a run is named by, whether or not it is there; see `find_run`."""
    if run is None or (str(run) in packaged() and not Path(run).exists()):
        return PACKAGED / str(run or DEFAULT)
    return Path(run).parent if Path(run).name == "results.json" else Path(run)


def find_run(run: str | Path | None, runs: str | Path) -> FinishedRun:
    """Find a finished training run; nothing heavy is loaded.

    Args:
        run: its folder, or the path of its results.json; or the name of one that the package
            carries, None for `DEFAULT`.
        runs: where runs are kept, to tell of those there are.

    Raises:
        ConfigError: there is no such run.
        DataError: its results.json is broken.
    """
    folder, inside = folder_of(run), packaged()
    if not (folder / "results.json").is_file():
        known = sorted(str(p.parent) for p in Path(runs).glob("*/results.json"))
        there = f"finished runs: {', '.join(known)}" if known else "there is no finished run yet"
        missing = f"run={run}: no results.json there"
        if run is None:
            missing = f"run=null: this installation carries no scorer ({folder} is not there)"
        more = f"; or take one inside the package, {' or '.join(inside)}" if inside else ""
        raise ConfigError(
            f"{missing}; {there}. Train one first, for example `latentiqa train experiment=demo`, "
            f"and give the folder it prints as run=...{more}."
        )
    return FinishedRun(folder, read_json(folder / "results.json"))


def load_run(run: FinishedRun) -> LoadedRun:
    """Load the method and the head of a finished training run.

    Of its folder, results.json and head/ are read, and what a method has trained.

    Raises:
        ConfigError: what is here is not what the run was made with.
        DataError: a file of the run is broken.
    """
    from latentiqa.heads import load_head

    config = OmegaConf.create(run.results["config"])
    assert isinstance(config, DictConfig)
    method = check_method(config)
    head, meta = load_head(run.folder / "head")
    extractors = load_extractors(config, method, run.folder)
    if feature_names(extractors) != meta["features"]:
        raise ConfigError(
            f"run={run.folder}: its head was fitted on other features than the config beside "
            "it gives; train it again with force=true."
        )
    here, trained_on = backbone_of(extractors), run.results["backbone"]
    if here != trained_on:
        raise ConfigError(
            f"run={run.folder}: it was trained on the backbone {trained_on}, here the same name "
            f"is {here}; get those weights back or train again."
        )
    return LoadedRun(extractors, head, method.views, frozenset(meta["seen_images"]))


def read_layers(run: Finished) -> Scores:
    """What each layer of a finished run of train knows alone, from the features in its store.

    The dataset's lists are read again for the scores; no picture is opened, no model is loaded,
    and nothing of the test part is read.

    Raises:
        DataError: the run is another method's, or what it left behind is not there any more.
        LatentiqaError: the dataset is not where it was.
    """
    import torch

    from latentiqa.data.splits import Split
    from latentiqa.heads import load_head
    from latentiqa.hyperfeatures.extraction import read_features
    from latentiqa.hyperfeatures.store import FeatureStore
    from latentiqa.report.layers import scores_of_layers

    folder, result = run.file.parent, run.result
    if "lgdm" not in (result.get("stores") or {}):
        raise DataError(f"{run.file}: expected a run with method=lgdm.")
    config = OmegaConf.create(result["config"])
    assert isinstance(config, DictConfig)
    manifest, views = rated_dataset(config), build(config.views)
    if manifest.fingerprint != result["dataset_fingerprint"]:
        raise DataError(f"{run.file}: its dataset has changed since; train it again.")
    path = Path(config.paths.store) / result["stores"]["lgdm"]["key"]
    if not (path / "recipe.json").is_file():
        raise DataError(
            f"{path}: the run's features are not there; run latentiqa train again with force=true, "
            "from the folder that it was started in."
        )
    recipe = read_json(path / "recipe.json")
    recipe.pop("schema")
    store = FeatureStore(path.parent, recipe)
    meta = load_head(folder / "head")[1]
    # Those of train and val alone: an image key ends with the picture's name.
    keys = {key.partition(":")[2]: key for key in meta["seen_images"]}
    split = Split.from_json((folder / "split.json").read_text(encoding="utf-8"))
    parts = {"train": split.train, "val": split.val}
    parts = {part: [name for name in names if name in keys] for part, names in parts.items()}

    def read(part: str, names: Sequence[str]) -> Tensor:
        asked = [view for name in parts[part] for view in views.names(keys[name])]
        return read_features(store, asked, names).unflatten(0, (len(parts[part]), -1))

    targets = {
        part: torch.tensor([manifest.target(manifest.by_name[name].mos) for name in names])
        for part, names in parts.items()
    }
    return scores_of_layers(meta["features"], read, targets["train"], targets["val"])
