"""Checkpoints from which a killed training goes on to the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint


class Best(ModelCheckpoint):
    """Lightning's, which also knows its best one again where the run's folder was moved to."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """All files are taken to lie where this one's do."""

        def here(path: str) -> str:
            return str(Path(str(self.dirpath), Path(path).name)) if path else path

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        moved = {key: here(state_dict[key]) for key in paths}
        known = {here(path): score for path, score in state_dict["best_k_models"].items()}
        moved |= {"best_k_models": known, "dirpath": self.dirpath}
        super().load_state_dict(state_dict | moved)


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
        """What is there already need not be written: it would be in the middle of a step.

        Nor does a training go on that had ended by itself before it was interrupted.
        """
        self.written = trainer.global_step
        if any(found.wait_count >= found.patience for found in trainer.early_stopping_callbacks):
            trainer.should_stop = True

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
