"""Training of what rates, step by step, so that it can be killed and goes on the same."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from latentiqa.dpiqa.teacher import Teacher
from latentiqa.errors import ConfigError, DataError, check_integer
from latentiqa.losses import LOSSES
from latentiqa.metrics import srcc

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


@dataclass(frozen=True)
class Recipe:
    """How a teacher or a student is trained; by default the paper's teacher on KonIQ-10k.

    An epoch is as many steps as show the training part once.

    Args:
        epochs: at most this many; the best on validation is kept.
        batch_size: pictures a step, of all devices and passes together.
        passes: a step's pictures are shown in so many passes, for less memory. Losses of pairs and
            correlations see those of one pass and one device.
        lr: learning rate of Adam.
        milestones: epochs after which it falls.
        decay: to this part of itself.
        losses: weights of `latentiqa.losses.LOSSES` by name.
        patience: epochs without a better validation SRCC before training ends.
        precision: 32-true, bf16-mixed or 16-mixed; the decoder's MLP, losses and metrics are
            float32 in all of them.
        checkpoint_every: steps after which the training could go on, beside each epoch's end.

    Raises:
        ConfigError: a value is outside its range.
    """

    epochs: int = 30
    batch_size: int = 16
    passes: int = 1
    lr: float = 1e-5
    milestones: Sequence[int] = (5,)
    decay: float = 0.2
    losses: Mapping[str, float] = field(default_factory=lambda: {"mse": 1.0})
    patience: int = 30
    precision: str = "32-true"
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "passes", "patience", "checkpoint_every"):
            check_integer(key, getattr(self, key), 1)
        for epoch in self.milestones:
            check_integer("milestones", epoch, 1)
        for key in ("lr", "decay"):
            if not (isinstance(value := getattr(self, key), float) and value > 0):
                raise ConfigError(f"{key}={value}: expected a positive number, such as 1e-5.")
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"precision={self.precision!r}: expected one of {', '.join(PRECISIONS)}."
            )
        weights = self.losses.values()
        if not self.losses.keys() <= LOSSES.keys() or not all(w >= 0 for w in weights):
            raise ConfigError(
                f"losses={dict(self.losses)}: expected weights >= 0 of {', '.join(LOSSES)}."
            )
        if not any(weights):
            raise ConfigError(f"losses={dict(self.losses)}: expected one with a weight above 0.")

    def pictures_a_pass(self, devices: int) -> int:
        """Pictures of one pass on one device.

        Raises:
            ConfigError: the batch cannot be dealt out evenly.
        """
        if self.batch_size % (self.passes * devices):
            raise ConfigError(
                f"batch_size={self.batch_size}: expected a multiple of passes={self.passes} x "
                f"{devices} devices."
            )
        return self.batch_size // (self.passes * devices)

    def steps_an_epoch(self, pictures: int) -> int:
        """Steps that show about so many pictures."""
        return max(1, round(pictures / self.batch_size))


class RaterTraining(LightningModule, ABC):
    """Adam on losses of scores; SRCC of the whole validation part.

    A subclass gives `forward`, the scores of a batch, and ``training_step``.

    Args:
        recipe: how.
        steps_an_epoch: unit of the milestones.
        key: where a config has the recipe, for errors.
    """

    def __init__(self, recipe: Recipe, steps_an_epoch: int, key: str) -> None:
        super().__init__()
        self.recipe = recipe
        self.steps_an_epoch = steps_an_epoch
        self.key = key
        self.seen: list[Tensor] = []

    @abstractmethod
    def forward(self, batch: dict[str, Any]) -> Tensor:
        """Scores ``(B,)`` of a batch's pictures, which come stacked by their shapes."""

    def losses_of(self, pred: Tensor, target: Tensor, name: str = "train") -> Tensor:
        """The recipe's weighted losses, each logged as ``<name>/<loss>``.

        Args:
            pred: ``(B,)``.
            target: ``(B,)``, what the scores should be.
            name: of the losses in the log.
        """
        total = torch.zeros((), device=pred.device)
        for loss, weight in self.recipe.losses.items():
            if weight:
                value = LOSSES[loss](pred, target)
                self.log(f"{name}/{loss}", value, batch_size=len(pred))
                total = total + weight * value
        return total

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Keep index, target and score of each view."""
        rows = [batch["index"].double(), batch["target"].double(), self(batch).double()]
        self.seen.append(torch.stack(rows, dim=1))

    def on_validation_epoch_end(self) -> None:
        """SRCC of all pictures once, whatever device had them; a score is the mean over views.

        Raises:
            DataError: training diverged.
        """
        gathered = self.all_gather(torch.cat(self.seen))
        assert isinstance(gathered, Tensor)
        self.seen.clear()
        index, target, pred = gathered.reshape(-1, 3).unbind(dim=1)
        if not pred.isfinite().all():
            raise DataError(
                f"training diverged before step {self.global_step}: lower {self.key}.lr, or set "
                f"{self.key}.precision=32-true."
            )
        _, picture = index.unique(return_inverse=True)
        count = torch.bincount(picture)
        means = [torch.bincount(picture, values) / count for values in (pred, target)]
        self.log("val/srcc", srcc(*(values.cpu() for values in means)))

    def configure_optimizers(self) -> Any:
        """Adam, whose learning rate falls at the milestones."""
        trained = [p for p in self.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=self.recipe.lr)
        steps = [epoch * self.steps_an_epoch for epoch in self.recipe.milestones]
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, steps, self.recipe.decay)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


class TeacherTraining(RaterTraining):
    """Training of a teacher.

    Args:
        teacher: what is trained, in place.
        recipe: how.
        steps_an_epoch: unit of the milestones.
    """

    def __init__(self, teacher: Teacher, recipe: Recipe, steps_an_epoch: int) -> None:
        super().__init__(recipe, steps_an_epoch, key="method.training")
        self.teacher = teacher
        # Checkpoints hold what is trained; the rest is the backbone's.
        self.strict_loading = False

    def forward(self, batch: dict[str, Any]) -> Tensor:
        """Scores ``(B,)``; names of pictures seed samples of latents."""
        names = iter(batch["name"])
        parts = [self.teacher(image, list(islice(names, len(image)))) for image in batch["image"]]
        return torch.cat(parts)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The weighted losses of one pass."""
        return self.losses_of(self(batch), batch["target"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out what the backbone's own files hold."""
        state = self.teacher.trained_state()
        checkpoint["state_dict"] = {f"teacher.{name}": value for name, value in state.items()}


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
        self.written = step
        trainer.save_checkpoint(self.path)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After the validation's outcome has been taken in."""
        self.written = trainer.global_step
        trainer.save_checkpoint(self.path)
