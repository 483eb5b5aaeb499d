"""Training of a rater, DP-IQA's or GenzIQA's: the first part of its `latentiqa train`."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from latentiqa.commands.parts import is_other_rank, make_rater

if TYPE_CHECKING:
    from pathlib import Path

    from lightning import Trainer
    from lightning.pytorch.loggers import Logger

    from latentiqa.commands.parts import Method
    from latentiqa.data.datamodule import RatedModule
    from latentiqa.data.manifest import Manifest

log = logging.getLogger(__name__)


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
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

    from latentiqa.training.go_on import GoOn
    from latentiqa.training.module import RaterTraining
    from latentiqa.training.saving import read_report, save_rater

    assert method.rater is not None
    recipe = method.rater.training
    finished, checkpoints = method.rater.folder(folder), folder / "checkpoints"
    if config.force and not is_other_rank():
        for old in (finished, checkpoints):
            shutil.rmtree(old, ignore_errors=True)
    if report := read_report(finished):
        return report

    an_epoch = 1 if config.fast_dev_run else recipe.steps_an_epoch(len(parts["train"]))
    epochs = 1 if config.fast_dev_run else recipe.epochs
    watched: dict[str, Any] = {"monitor": "val/srcc", "mode": "max"}
    best = ModelCheckpoint(
        checkpoints, "best", save_weights_only=True, enable_version_counter=False, **watched
    )
    last = checkpoints / "last.ckpt"
    trainer = make_trainer(
        [
            # Scores may be constant at first: SRCC is then undefined.
            EarlyStopping(patience=recipe.patience, check_finite=False, **watched),
            best,
            GoOn(last, recipe.checkpoint_every, an_epoch),
        ],
        logger=logger or False,
        enable_checkpointing=True,
        max_steps=epochs * an_epoch,
        max_epochs=-1,
        precision=recipe.precision,
        gradient_clip_val=recipe.clip,
        accumulate_grad_batches=recipe.passes,
        val_check_interval=an_epoch * recipe.passes,
        check_val_every_n_epoch=None,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        # The data module deals the pictures out itself.
        use_distributed_sampler=False,
    )
    in_a_pass = recipe.pictures_a_pass(trainer.world_size)
    pictures = _pictures(config, method, manifest, parts, keys, in_a_pass)
    rater = make_rater(method, config.seed)
    counts = rater.parameter_counts()
    log.info(
        "%s: %s M parameters are trained; at most %d epochs of %d steps",
        finished.name,
        " + ".join(f"{part} {count / 1e6:.3g}" for part, count in counts.items()),
        epochs,
        an_epoch,
    )
    training = RaterTraining(rater, recipe, an_epoch)
    resume = str(last) if last.exists() else None
    if resume:
        log.info("going on from %s", resume)
    trainer.fit(training, pictures, ckpt_path=resume)

    import torch

    chosen = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
    state = {k.removeprefix("rater."): v for k, v in chosen["state_dict"].items()}
    rater.load_trained(state)
    report = {
        "steps": trainer.global_step,
        "best_step": chosen["global_step"],
        "epochs": math.ceil(trainer.global_step / an_epoch),
        "best_epoch": math.ceil(chosen["global_step"] / an_epoch),
        "parameters": counts,
    }
    if trainer.is_global_zero:
        save_rater(rater, finished, report)
        shutil.rmtree(checkpoints)
    trainer.strategy.barrier()
    return report


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
