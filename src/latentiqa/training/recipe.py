"""How a rater is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from latentiqa.errors import ConfigError, check_integer, check_number
from latentiqa.losses import check_weights

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


@dataclass(frozen=True)
class Recipe:
    """How a rater is trained, by AdamW; each paper's own values are in a subclass.

    An epoch is as many steps as show each picture of the training part once, in one of its views.

    Args:
        epochs: at most this many; the best on validation is kept.
        batch_size: pictures a step, of all devices and passes together.
        passes: a step's pictures are shown in so many passes, for less memory. Losses of pairs and
            correlations see those of one pass and one device.
        lr: learning rate.
        milestones: epochs after which it falls; none for a constant rate.
        decay: to this part of itself.
        weight_decay: decoupled from the gradient; without it AdamW is Adam.
        clip: the gradient's norm is cut to this; None for no limit.
        losses: weights of `latentiqa.losses.LOSSES` by name.
        patience: epochs without a better validation SRCC before training ends.
        precision: 32-true, bf16-mixed or 16-mixed, for training, and for scoring with a backbone
            afterwards; scores, losses and metrics are float32 in all of them.
        checkpoint_every: steps after which the training could go on, beside each epoch's end.

    Raises:
        ConfigError: a value is outside its range.
    """

    epochs: int = 10
    batch_size: int = 16
    passes: int = 1
    lr: float = 1e-4
    milestones: Sequence[int] = ()
    decay: float = 0.2
    weight_decay: float = 0.0
    clip: float | None = None
    losses: Mapping[str, float] = field(default_factory=lambda: {"mse": 1.0})
    patience: int = 10
    precision: str = "32-true"
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "passes", "patience", "checkpoint_every"):
            check_integer(key, getattr(self, key), 1)
        for epoch in self.milestones:
            check_integer("milestones", epoch, 1)
        for key in ("lr", "decay", *(["clip"] if self.clip is not None else [])):
            check_number(key, getattr(self, key), positive=True)
        check_number("weight_decay", self.weight_decay, positive=False)
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"precision={self.precision!r}: expected one of {', '.join(PRECISIONS)}."
            )
        check_weights(self.losses)

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
