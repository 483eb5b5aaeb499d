"""Trainers of raters: what `latentiqa train` and `distill` train them with before they score."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from latentiqa.commands.parts import device_of, is_other_rank

if TYPE_CHECKING:
    from lightning import Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.loggers import Logger

    from latentiqa.commands.parts import RaterPlan
    from latentiqa.data.datamodule import RatedModule
    from latentiqa.training.module import RaterTraining

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
"""Their folder in that of a run, while it is trained."""


@dataclass(frozen=True)
class Fitting:
    """A trainer, ready to train.

    Attributes:
        trainer: stops early, and keeps the best and the last checkpoint.
        best: the former.
        last: file of the latter.
        an_epoch: steps of an epoch.
        epochs: at most so many.
        finished: the folder for what was trained.
    """

    trainer: Trainer
    best: ModelCheckpoint
    last: Path
    an_epoch: int
    epochs: int
    finished: Path

    def fit(
        self,
        training: RaterTraining,
        pictures: RatedModule,
        told: dict[str, Any] | None = None,
        begins_with: float | None = None,
    ) -> dict[str, Any]:
        """Train, and leave the rater as it was at its best validation in its folder.

        A training that was interrupted goes on from its last checkpoint. One process saves and
        removes the checkpoints, the others wait.

        Args:
            training: of the rater.
            pictures: of both parts.
            told: what else the report says.
            begins_with: validation SRCC of a rater that scores already. If nothing is better, it
                stays what it is; of one that goes on, it is known from before.

        Returns:
            How it was trained.

        Raises:
            DataError: training diverged.
        """
        import torch

        from latentiqa.training.saving import save_rater

        counts = training.rater.parameter_counts()
        log.info(
            "%s: %s M parameters are trained; at most %d epochs of %d steps",
            self.finished.name,
            " + ".join(f"{part} {count / 1e6:.3g}" for part, count in counts.items()),
            self.epochs,
            self.an_epoch,
        )
        start = self.last.with_name("start.ckpt")
        resume = str(self.last) if self.last.exists() else None
        if resume:
            log.info("going on from %s", resume)
        elif begins_with is not None and self.trainer.is_global_zero:
            state = training.rater.trained_state()
            start.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"state_dict": state, "global_step": 0, "srcc": begins_with}, start)
        self.trainer.fit(training, pictures, ckpt_path=resume)
        chosen = torch.load(self.best.best_model_path, map_location="cpu", weights_only=True)
        if start.exists():
            begun = torch.load(start, map_location="cpu", weights_only=True)
            if begun["srcc"] >= _score(self.best):
                log.info("training has made nothing better than the beginning, which is kept")
                chosen = begun
        state = {k.removeprefix("rater."): v for k, v in chosen["state_dict"].items()}
        training.rater.load_trained(state)
        step, best = self.trainer.global_step, chosen["global_step"]
        report = {
            "steps": step,
            "best_step": best,
            "epochs": math.ceil(step / self.an_epoch),
            "best_epoch": math.ceil(best / self.an_epoch),
            "parameters": counts,
            **(told or {}),
        }
        self.trainer.strategy.barrier()  # all have read what one of them removes
        if self.trainer.is_global_zero:
            save_rater(training.rater, self.finished, report)
            shutil.rmtree(self.last.parent)
        self.trainer.strategy.barrier()
        return report


def _score(best: ModelCheckpoint) -> float:
    assert best.best_model_score is not None
    return best.best_model_score.item()


def finished_before(config: DictConfig, plan: RaterPlan, run: Path) -> dict[str, Any] | None:
    """How the rater in a run's folder was trained, if it is finished; ``force=true`` removes it.

    Args:
        config: of the run.
        plan: of the rater.
        run: the folder.

    Raises:
        DataError: what is there is damaged.
    """
    from latentiqa.training.saving import read_report

    finished = plan.folder(run)
    if config.force and not is_other_rank():
        for old in (finished, run / CHECKPOINTS):
            shutil.rmtree(old, ignore_errors=True)
    return read_report(finished)


def fitting_of(
    config: DictConfig,
    plan: RaterPlan,
    pictures: int,
    run: Path,
    make_trainer: Callable[..., Trainer],
    logger: Logger | None,
) -> Fitting:
    """The trainer of a rater.

    Args:
        config: of the run.
        plan: of the rater.
        pictures: number of those that are trained on.
        run: the run's folder.
        make_trainer: from `latentiqa.commands.parts.trainer_factory`.
        logger: receives losses and validation SRCC.
    """
    from lightning.pytorch.callbacks import EarlyStopping

    from latentiqa.precision import MIXED, warn_if_slow
    from latentiqa.training.go_on import Best, GoOn

    recipe, checkpoints = plan.training, run / CHECKPOINTS
    warn_if_slow(MIXED.get(recipe.precision), device_of(config).type)
    an_epoch = 1 if config.fast_dev_run else recipe.steps_an_epoch(pictures)
    epochs = 1 if config.fast_dev_run else recipe.epochs
    watched: dict[str, Any] = {"monitor": "val/srcc", "mode": "max"}
    best = Best(
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
    return Fitting(trainer, best, last, an_epoch, epochs, plan.folder(run))
