"""Training of a rater, DP-IQA's or GenzIQA's: the first part of its `latentiqa train`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from latentiqa.commands.fitting import finished_before, fitting_of
from latentiqa.commands.parts import make_rater

if TYPE_CHECKING:
    from pathlib import Path

    from lightning import Trainer
    from lightning.pytorch.loggers import Logger

    from latentiqa.commands.parts import Method
    from latentiqa.data.datamodule import RatedModule
    from latentiqa.data.manifest import Manifest


def train_rater(
    config: DictConfig,
    method: Method,
    manifest: Manifest,
    parts: Mapping[str, Sequence[str]],
    keys: Mapping[str, str],
    folder: Path,
    make_trainer: Callable[..., Trainer],
    logger: Logger | None,
) -> dict[str, Any]:
    """Train a rater on train, choose the epoch on validation, leave it in the run's folder.

    A training that was interrupted goes on from its last checkpoint; one that is finished is not
    repeated. The test part is not read.

    Args:
        config: of the run.
        method: one that is trained.
        manifest: the dataset.
        parts: names of the readable pictures of each part.
        keys: their image keys.
        folder: of the run.
        make_trainer: from `latentiqa.commands.parts.trainer_factory`.
        logger: receives losses and validation SRCC.

    Returns:
        How it was trained.

    Raises:
        ConfigError: the batch cannot be dealt out, or the backbone is not one to train.
        DataError: training diverged.
    """
    from latentiqa.training.module import RaterTraining

    plan = method.rater
    assert plan is not None
    if report := finished_before(config, plan, folder):
        return report

    fitting = fitting_of(config, plan, len(parts["train"]), folder, make_trainer, logger)
    in_a_pass = plan.training.pictures_a_pass(fitting.trainer.world_size)
    pictures = _pictures(config, method, manifest, parts, keys, in_a_pass)
    rater = make_rater(method, config.seed)
    return fitting.fit(RaterTraining(rater, plan.training, fitting.an_epoch), pictures)


def _pictures(
    config: DictConfig,
    method: Method,
    manifest: Manifest,
    parts: Mapping[str, Sequence[str]],
    keys: Mapping[str, str],
    in_a_pass: int,
) -> RatedModule:
    from latentiqa.data.datamodule import PictureDataset, RatedModule

    views, data = method.views, config.data

    def rated(part: str, flips: bool) -> PictureDataset:
        own = {name: keys[name] for name in parts[part]}
        wanted = [view for key in own.values() for view in views.names(key, flips)]
        records = manifest.records
        return PictureDataset(
            records, own, manifest.target, views, frozenset(wanted), data.max_pixels
        )

    return RatedModule(
        rated("train", data.flips),
        rated("val", False),
        batch_size=in_a_pass,
        val_batch_size=data.batch_size,
        num_workers=data.num_workers,
        seed=config.seed,
    )
