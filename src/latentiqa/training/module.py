"""Training of a rater, step by step, so that it can be killed and goes on the same."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

from latentiqa.errors import DataError
from latentiqa.losses import LOSSES
from latentiqa.metrics import srcc
from latentiqa.training.latents import KeptLatents
from latentiqa.training.rater import BackboneRater, Rater
from latentiqa.training.recipe import Recipe


class RaterTraining(LightningModule):
    """AdamW on weighted losses of the scores; SRCC of the whole validation part.

    Args:
        rater: what is trained, in place.
        recipe: how.
        steps_an_epoch: unit of the milestones.
        key: where a config has the recipe, for errors.
    """

    def __init__(
        self, rater: Rater, recipe: Recipe, steps_an_epoch: int, key: str = "method.training"
    ) -> None:
        super().__init__()
        self.rater = rater
        self.recipe = recipe
        self.steps_an_epoch = steps_an_epoch
        self.key = key
        self.seen: list[Tensor] = []
        # Checkpoints hold what is trained; the rest is the backbone's.
        self.strict_loading = False

    def on_fit_start(self) -> None:
        """From here on a picture is encoded once."""
        if isinstance(self.rater, BackboneRater):
            self.rater.kept = KeptLatents()

    def on_fit_end(self) -> None:
        """What was kept is let go."""
        if isinstance(self.rater, BackboneRater):
            self.rater.kept = None

    def forward(self, batch: dict[str, Any]) -> Tensor:
        """Scores ``(B,)`` of a batch's pictures, which come stacked by their shapes."""
        return torch.cat([self.rater(image, names) for image, names in stacks(batch)])

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The weighted losses of one pass."""
        step = self.global_step
        parts = [self.rater.training_scores(*stack, step) for stack in stacks(batch)]
        return self.losses_of(torch.cat(parts), batch["target"])

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
        """AdamW, whose learning rate falls at the milestones."""
        recipe, trained = self.recipe, [p for p in self.rater.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=recipe.lr, weight_decay=recipe.weight_decay)
        steps = [epoch * self.steps_an_epoch for epoch in recipe.milestones]
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, steps, recipe.decay)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out what the backbone's own files hold."""
        state = self.rater.trained_state()
        checkpoint["state_dict"] = {f"rater.{name}": value for name, value in state.items()}


def stacks(batch: dict[str, Any]) -> Iterator[tuple[Tensor, list[str]]]:
    """Pictures of one shape, and their names."""
    names = iter(batch["name"])
    for image in batch["image"]:
        yield image, list(islice(names, len(image)))
