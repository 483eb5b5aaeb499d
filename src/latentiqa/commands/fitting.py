"""Training of what rates, the first part of `latentiqa train method=dpiqa` and of `distill`."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

if TYPE_CHECKING:
    from lightning import Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.loggers import Logger
    from torch import Tensor

    from latentiqa.data.datamodule import RatedModule
    from latentiqa.dpiqa.training import RaterTraining, Recipe

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fitting:
    """A trainer, ready to train.

    Attributes:
        trainer: stops early, and keeps the best and the last checkpoint.
        best: the former.
        last: file of the latter.
        an_epoch: steps of an epoch.
        epochs: at most so many.
    """

    trainer: Trainer
    best: ModelCheckpoint
    last: Path
    an_epoch: int
    epochs: int

    def fit(
        self, training: RaterTraining, pictures: RatedModule
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Train; one that was interrupted goes on from its last checkpoint.

        Returns:
            The state of the training at its best validation, and how far it went.

        Raises:
            DataError: training diverged.
        """
        import torch

        resume = str(self.last) if self.last.exists() else None
        if resume:
            log.info("going on from %s", resume)
        self.trainer.fit(training, pictures, ckpt_path=resume)
        chosen = torch.load(self.best.best_model_path, map_location="cpu", weights_only=True)
        step, best = self.trainer.global_step, chosen["global_step"]
        return chosen["state_dict"], {
            "steps": step,
            "best_step": best,
            "epochs": math.ceil(step / self.an_epoch),
            "best_epoch": math.ceil(best / self.an_epoch),
        }

    def finish(self, save: Callable[[], None]) -> None:
        """Let one process save what was trained and remove the checkpoints, the others wait."""
        if self.trainer.is_global_zero:
            save()
            shutil.rmtree(self.last.parent)
        self.trainer.strategy.barrier()


def fitting_of(
    config: DictConfig,
    recipe: Recipe,
    pictures: int,
    checkpoints: Path,
    make_trainer: Callable[..., Trainer],
    logger: Logger | None,
) -> Fitting:
    """The trainer of a recipe.

    Args:
        config: of the run.
        recipe: how it is trained.
        pictures: that are trained on.
        checkpoints: the folder for them.
        make_trainer: from `latentiqa.commands.parts.trainer_factory`.
        logger: receives losses and validation SRCC.
    """
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

    from latentiqa.dpiqa.training import GoOn

    an_epoch = 1 if config.fast_dev_run else recipe.steps_an_epoch(pictures)
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
        accumulate_grad_batches=recipe.passes,
        val_check_interval=an_epoch * recipe.passes,
        check_val_every_n_epoch=None,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        # The data module deals the pictures out itself.
        use_distributed_sampler=False,
    )
    return Fitting(trainer, best, last, an_epoch, epochs)
