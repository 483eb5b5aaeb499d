"""What both stages of pretraining share: optimiser, schedule, averaged weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.optimization import get_scheduler
from lightning import LightningModule
from torch import nn

from latentiqa.errors import ConfigError, check_integer
from latentiqa.pretraining.ema import averaged

Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def key_of(address: str) -> str:
    """A layer's address as the name of a submodule, which must not have dots."""
    return address.replace(".", "_")


@contextmanager
def weights_from(key: str, folder: str | Path, expected: str) -> Iterator[None]:
    """Say which key is meant where loading a folder of weights fails.

    Args:
        key: of the config.
        folder: its value.
        expected: what the folder should have been.

    Raises:
        ConfigError: whatever was loaded meanwhile is missing or of another kind.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key}={folder}: {error}; expected {expected}.") from error


class Pretraining(LightningModule, ABC):
    """A training whose every draw depends on (seed, step) alone, so that it resumes exactly.

    Args:
        trained: the model, or the models, that are trained and averaged.
        optimizer: makes the optimiser of the trained parameters.
        schedule: name of a learning rate schedule of diffusers, for example ``cosine``.
        warmup_steps: steps over which the learning rate rises from 0.
        ema_decay: of the averaged weights, in [0, 1).
        seed: of noise, timesteps and dropped captions.

    Raises:
        ConfigError: a value is outside its range.
    """

    def __init__(
        self,
        trained: nn.Module,
        optimizer: Optimizer,
        schedule: str,
        warmup_steps: int,
        ema_decay: float,
        seed: int,
    ) -> None:
        super().__init__()
        if not 0 <= ema_decay < 1:
            raise ConfigError(f"stage.ema_decay={ema_decay}: expected 0 <= x < 1.")
        check_integer("stage.warmup_steps", warmup_steps, 0)
        # Any: each stage knows what its own models offer.
        self.trained: Any = trained
        self.ema = averaged(trained, ema_decay)
        self.make_optimizer = optimizer
        self.schedule = schedule
        self.warmup_steps = warmup_steps
        self.seed = seed

    @property
    def average(self) -> Any:
        """The trained model with averaged weights."""
        return self.ema.module

    def configure_optimizers(self) -> Any:
        """The optimiser, and its learning rate over the steps."""
        optimizer = self.make_optimizer([p for p in self.parameters() if p.requires_grad])
        try:
            schedule = get_scheduler(
                self.schedule,
                optimizer,
                num_warmup_steps=self.warmup_steps,
                num_training_steps=int(self.trainer.estimated_stepping_batches),
            )
        except ValueError as error:
            raise ConfigError(f"stage.schedule={self.schedule!r}: {error}") from error
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """One step of the optimiser, and of the averaged weights after it."""
        super().optimizer_step(*args, **kwargs)
        self.ema.update_parameters(self.trained)

    def generator(self, batch_idx: int) -> torch.Generator:
        """Draws what is random in one batch; on the CPU, the same on every machine."""
        rank, ranks = self.trainer.global_rank, self.trainer.world_size
        accumulated = self.trainer.accumulate_grad_batches
        # Not batch_idx alone: a resumed run counts its batches anew.
        batch = self.trainer.global_step * accumulated + batch_idx % accumulated
        return torch.Generator().manual_seed(((self.seed << 40) + batch) * ranks + rank)

    def parameter_counts(self) -> dict[str, int]:
        """Number of trained parameters of each model."""
        return {
            name: sum(p.numel() for p in model.parameters())
            for name, model in self.models().items()
        }

    @abstractmethod
    def models(self) -> dict[str, nn.Module]:
        """The trained models by name."""

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write the averaged weights into the run's folder."""
