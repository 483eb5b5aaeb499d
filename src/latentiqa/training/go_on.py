"""Checkpoints from which a killed training goes on to the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint


class GoOn(Checkpoint):
    """Writes where the training can go on: after so many steps, and after each validation.

    At a step with a validation it waits for it, so that a resumed run neither repeats nor skips
    one. As a `Checkpoint` it comes after the callbacks that watch validation, in the order given.

    Args:
        path: of the checkpoint.
        every: steps.
        steps_an_epoch: steps between validations.
    """

    def __init__(self, path: Path, every: int, steps_an_epoch: int) -> None:
        self.path = path
        self.every = every
        self.steps_an_epoch = steps_an_epoch
        self.written = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What is there already need not be written: it would be in the middle of a step."""
        self.written = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """After a step; not after each of the passes that make one."""
        step = trainer.global_step
        if step == self.written or step % self.every or step % self.steps_an_epoch == 0:
            return
        self._write(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After the validation's outcome has been taken in."""
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        """Under another name first: one that is half written must not take the last one's place."""
        self.written = trainer.global_step
        aside = self.path.with_name(f".{self.path.name}")
        trainer.save_checkpoint(aside)
        if trainer.is_global_zero:
            aside.replace(self.path)
