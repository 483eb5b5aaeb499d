"""A small perceptron on pooled features, or with no hidden layer a linear regressor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from latentiqa.errors import ConfigError, DataError, check_integer
from latentiqa.heads.base import Head
from latentiqa.heads.standardise import Standardise
from latentiqa.losses import check_weights
from latentiqa.metrics import srcc

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger


class MLPHead(Head):
    """Linear layers with ReLU and dropout between, trained by AdamW.

    Features are standardised and the target is centred. Training ends when validation SRCC has not
    risen for `patience` epochs; the weights of the best epoch are kept. The same seed, data and
    device give the same weights, and the global random state is left as it was. ``hidden=()`` is
    the linear head.

    Args:
        hidden: width of each hidden layer.
        dropout: in [0, 1), after each hidden layer.
        lr: learning rate of AdamW, > 0.
        weight_decay: of AdamW, >= 0.
        epochs: at most this many, >= 1.
        batch_size: >= 1.
        patience: epochs without a better validation SRCC before training ends, >= 1.
        seed: of weights, dropout and order of the samples, >= 0.
        losses: weights of `latentiqa.losses.LOSSES` by name; None for the squared error. Those of
            pairs and correlations see a batch, in which each view of a picture is a sample.

    Raises:
        ConfigError: an argument is outside its range.

    Example:
        >>> head = MLPHead(hidden=(64, 16), dropout=0.2)
        >>> MLPHead(dropout=1.0)
        Traceback (most recent call last):
        ...
        latentiqa.errors.ConfigError: dropout=1.0: expected 0 <= dropout < 1
    """

    standardise: Standardise
    network: nn.Sequential
    bias: Tensor

    def __init__(
        self,
        hidden: Sequence[int] = (256,),
        dropout: float = 0.1,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        epochs: int = 100,
        batch_size: int = 64,
        patience: int = 15,
        seed: int = 0,
        losses: Mapping[str, float] | None = None,
    ) -> None:
        widths = list(hidden)
        counts = (("epochs", epochs, 1), ("batch_size", batch_size, 1), ("patience", patience, 1))
        for name, value, least in (*counts, ("seed", seed, 0), *(("hidden", w, 1) for w in widths)):
            check_integer(name, value, least)
        for name, value, valid, expected in (
            ("dropout", dropout, 0 <= dropout < 1, "0 <= dropout < 1"),
            ("lr", lr, lr > 0, "lr > 0, for example 1e-3"),
            ("weight_decay", weight_decay, weight_decay >= 0, "weight_decay >= 0"),
        ):
            if not valid:
                raise ConfigError(f"{name}={value}: expected {expected}")
        losses = {"mse": 1.0} if losses is None else dict(losses)
        check_weights(losses)
        super().__init__(
            hidden=widths,
            dropout=dropout,
            lr=lr,
            weight_decay=weight_decay,
            epochs=epochs,
            batch_size=batch_size,
            patience=patience,
            seed=seed,
            losses=losses,
        )

    def _build(self, in_features: int) -> None:
        self.standardise = Standardise(in_features)
        layers: list[nn.Module] = []
        width_in = in_features
        for width in self.arguments["hidden"]:
            layers += [nn.Linear(width_in, width), nn.ReLU(), nn.Dropout(self.arguments["dropout"])]
            width_in = width
        output = nn.Linear(width_in, 1)
        # From zero: where F > N a random start would stay in the directions that no sample has.
        nn.init.zeros_(output.weight)
        nn.init.zeros_(output.bias)
        self.network = nn.Sequential(*layers, output, nn.Flatten(0))
        self.register_buffer("bias", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N,) float32 of features (N, F)."""
        return self.network(self.standardise(x).float()) + self.bias

    def _fit(
        self,
        x: Tensor,
        y: Tensor,
        x_val: Tensor,
        y_val: Tensor,
        logger: Logger | None,
        fast_dev_run: bool,
    ) -> dict[str, Any]:
        # Lightning takes seconds to import and only training needs it.
        from latentiqa.heads.mlp_training import train

        options = {
            k: v for k, v in self.arguments.items() if k not in ("hidden", "dropout", "seed")
        }
        with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
            torch.manual_seed(self.arguments["seed"])
            self.build(x.shape[1])
            self.standardise.to(x.device).fit(x)
            self.bias = y.float().mean()
            report = train(
                self.network,
                (self.standardise(x).float(), y.float() - self.bias),
                (self.standardise(x_val).float(), y_val.float() - self.bias),
                **options,
                logger=logger,
                fast_dev_run=fast_dev_run,
            )
        self.to(x.device)
        val_srcc = srcc(self.predict(x_val), y_val)
        if val_srcc != val_srcc:
            raise DataError(
                "validation SRCC is undefined, as scores or targets are constant: "
                "check that features and targets vary"
            )
        return {"val_srcc": val_srcc, **report}
