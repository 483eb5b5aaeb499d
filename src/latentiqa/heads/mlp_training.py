"""Training of `MLPHead` by a Lightning Trainer that leaves no trace: no files, no output."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from latentiqa.errors import DataError
from latentiqa.heads.base import averaged
from latentiqa.losses import LOSSES
from latentiqa.metrics import srcc


class RegressionModule(L.LightningModule):
    """Weighted losses of training batches, SRCC on the validation set as one batch.

    Args:
        network: maps (B, F) to (B,).
        lr: learning rate of AdamW.
        weight_decay: of AdamW.
        losses: weights of `latentiqa.losses.LOSSES` by name.

    Example:
        >>> network = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))
        >>> module = RegressionModule(network, 1e-3, 0.0, {"mse": 1.0})
        >>> module.training_step((torch.zeros(2, 3), module.network(torch.zeros(2, 3))), 0).item()
        0.0
    """

    def __init__(
        self, network: nn.Module, lr: float, weight_decay: float, losses: Mapping[str, float]
    ) -> None:
        super().__init__()
        self.network = network
        self.lr = lr
        self.weight_decay = weight_decay
        self.losses = losses

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The weighted losses of a batch: (B, F) features, (B,) targets."""
        x, y = batch
        pred = self.network(x)
        values = [weight * LOSSES[name](pred, y) for name, weight in self.losses.items() if weight]
        loss = torch.stack(values).sum()
        if self._trainer is not None:
            self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(y))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """SRCC of the whole validation set, (M, F) or (M, K, F) features and (M,) targets."""
        x, y = batch
        pred = averaged(self.network, x)
        if not pred.isfinite().all():
            raise DataError(f"training diverged at epoch {self.current_epoch}: lower head.lr")
        self.log("val/srcc", srcc(pred, y), batch_size=len(y))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over all weights."""
        return torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)


def train(
    network: nn.Module,
    training: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    *,
    lr: float,
    weight_decay: float,
    epochs: int,
    batch_size: int,
    patience: int,
    losses: Mapping[str, float],
    logger: Logger | None,
    fast_dev_run: bool,
) -> dict[str, Any]:
    """Train `network` in place and leave it with the weights of its best epoch.

    Draws from the global random state: fork and seed it around this call.

    Args:
        network: maps (B, F) to (B,).
        training: (N, F) features and (N,) targets, on the device to train on.
        validation: (M, F) or (M, K, F) features and (M,) targets.
        lr: learning rate of AdamW.
        weight_decay: of AdamW.
        epochs: at most this many.
        batch_size: samples a step.
        patience: epochs without a better validation SRCC before training ends.
        losses: see `RegressionModule`.
        logger: receives ``train/loss`` and ``val/srcc`` each epoch.
        fast_dev_run: one training step and one validation, nothing logged.

    Returns:
        ``epochs`` run and ``best_epoch``, counted from 1.

    Raises:
        DataError: training diverged.
    """
    device = training[0].device
    module = RegressionModule(network, lr, weight_decay, losses)
    with TemporaryDirectory() as folder, _quiet():
        best = ModelCheckpoint(
            folder, filename="{epoch}", monitor="val/srcc", mode="max", save_weights_only=True
        )
        trainer = L.Trainer(
            accelerator=device.type,
            devices=1 if device.index is None else [device.index],
            max_epochs=epochs,
            # check_finite would end training at once where scores are still constant (SRCC nan).
            callbacks=[
                best,
                EarlyStopping("val/srcc", mode="max", patience=patience, check_finite=False),
            ],
            logger=logger or False,
            fast_dev_run=fast_dev_run,
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        trainer.fit(
            module,
            DataLoader(TensorDataset(*training), batch_size, shuffle=True),
            DataLoader(TensorDataset(*validation), len(validation[0])),
        )
        best_epoch = epochs_run = trainer.current_epoch
        if best.best_model_path:  # there is none under fast_dev_run
            checkpoint = torch.load(best.best_model_path, weights_only=True)
            module.load_state_dict(checkpoint["state_dict"])
            best_epoch = checkpoint["epoch"] + 1
    return {"epochs": epochs_run, "best_epoch": best_epoch}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what Lightning says about devices, workers and tips for every Trainer."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # The data is in memory: workers would only cost time.
            warnings.filterwarnings("ignore", ".*does not have many workers.*")
            # Lightning's own use of what PyTorch has deprecated.
            warnings.filterwarnings("ignore", category=FutureWarning, module="lightning.pytorch")
            yield
    finally:
        log.setLevel(level)
