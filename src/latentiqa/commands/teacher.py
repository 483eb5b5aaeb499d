"""Training of DP-IQA's teacher, the first part of its `latentiqa train`."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from latentiqa.commands.fitting import fitting_of
from latentiqa.commands.parts import is_other_rank

if TYPE_CHECKING:
    from pathlib import Path

    from lightning import Trainer
    from lightning.pytorch.loggers import Logger

    from latentiqa.commands.parts import Method
    from latentiqa.data.datamodule import RatedModule
    from latentiqa.data.manifest import Manifest

log = logging.getLogger(__name__)


def train_teacher(
    config: DictConfig,
    method: Method,
    manifest: Manifest,
    parts: Mapping[str, Sequence[str]],
    keys: Mapping[str, str],
    folder: Path,
    make_trainer: Callable[..., Trainer],
    logger: Logger | None,
) -> dict[str, Any]:
    """Train the teacher on train, choose the epoch on validation, leave it in ``teacher/``.

    A training that was interrupted goes on from its last checkpoint; one that is finished is not
    repeated. The test part is not read.

    Args:
        config: of the run.
        method: with DP-IQA's parts.
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
    from latentiqa.dpiqa.saving import NAME, save_teacher
    from latentiqa.dpiqa.teacher import Teacher
    from latentiqa.dpiqa.training import TeacherTraining
    from latentiqa.saving import read_report

    finished, checkpoints = folder / NAME, folder / "checkpoints"
    if config.force and not is_other_rank():
        for old in (finished, checkpoints):
            shutil.rmtree(old, ignore_errors=True)
    if report := read_report(finished, NAME):
        return report

    recipe = method.dpiqa["training"]
    fitting = fitting_of(config, recipe, len(parts["train"]), checkpoints, make_trainer, logger)
    pictures = _pictures(config, method, manifest, parts, keys, fitting.trainer.world_size)
    assert method.backbone is not None
    teacher = Teacher(method.backbone.load(), method.dpiqa["teacher"], seed=config.seed)
    counts = teacher.parameter_counts()
    log.info(
        "teacher: %s M parameters are trained; at most %d epochs of %d steps",
        " + ".join(f"{part} {count / 1e6:.1f}" for part, count in counts.items()),
        fitting.epochs,
        fitting.an_epoch,
    )
    state, reached = fitting.fit(TeacherTraining(teacher, recipe, fitting.an_epoch), pictures)
    teacher.load_trained({k.removeprefix("teacher."): v for k, v in state.items()})
    report = {**reached, "parameters": counts}
    fitting.finish(lambda: save_teacher(teacher, finished, report))
    return report


def _pictures(
    config: DictConfig,
    method: Method,
    manifest: Manifest,
    parts: Mapping[str, Sequence[str]],
    keys: Mapping[str, str],
    devices: int,
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
        batch_size=method.dpiqa["training"].pictures_a_pass(devices),
        val_batch_size=data.batch_size,
        num_workers=data.num_workers,
        seed=config.seed,
    )
