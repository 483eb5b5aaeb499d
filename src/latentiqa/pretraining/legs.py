"""Long trainings in legs: stop after some minutes, go on with the next call."""

from __future__ import annotations

import time
from typing import Any

from lightning import Callback, LightningModule, Trainer

from latentiqa.errors import ConfigError


class Legs(Callback):
    """Counts the seconds of training over all legs, and ends a leg when its time is up.

    Args:
        minutes: length of this leg; None trains to the end.

    Attributes:
        seconds: spent in training so far, all legs together.

    Raises:
        ConfigError: not a positive number.
    """

    def __init__(self, minutes: float | None = None) -> None:
        if minutes is not None and not minutes > 0:
            raise ConfigError(f"minutes={minutes}: expected a positive number, or null.")
        self.minutes = minutes
        self.seconds = 0.0
        self._before = 0.0
        self._start = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._before, self._start = self.seconds, time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Look at the clock."""
        leg = time.monotonic() - self._start
        self.seconds = self._before + leg
        if self.minutes is not None and leg > 60 * self.minutes:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.seconds = state_dict["seconds"]
