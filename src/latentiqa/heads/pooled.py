"""A head that sees a picture's views as one: pooling before the head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from latentiqa.errors import ConfigError, DataError
from latentiqa.heads.base import Head, examples

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger


class PooledHead(Head):
    """Any head on the mean features of a picture's views.

    By itself a head scores each view, and the scores are averaged: that is pooling after the head.
    With this around it the features are averaged before it, in training as in scoring, so that a
    picture is one example. Of a linear head that has been fitted both say the same.

    MS-LIQE pools logits between two parts of its network, see `latentiqa.enhance.liqe.LIQE`; that
    other heads may pool before or after them is ours.

    Args:
        head: any other, not fitted.

    Raises:
        ConfigError: it is a `PooledHead` itself.

    Example:
        >>> import torch
        >>> from latentiqa.heads import RidgeHead
        >>> x = torch.randn(40, 3, 5, generator=torch.Generator().manual_seed(0))
        >>> head, y = PooledHead(RidgeHead()), x.mean(dim=1)[:, 0]
        >>> report = head.fit(x[:30], y[:30], x[30:], y[30:])
        >>> head.predict(x).shape, round(report["val_srcc"], 6)
        (torch.Size([40]), 1.0)
    """

    def __init__(self, head: Head) -> None:
        if isinstance(head, PooledHead):
            raise ConfigError("head.head=PooledHead: expected a head that is not pooled itself.")
        super().__init__(head={"class": type(head).__name__, "arguments": head.arguments})
        self.head = head

    def predict(self, x: Tensor) -> Tensor:
        """See `Head.predict`: the score of the views' mean features."""
        return super().predict(_pooled(x))

    def _examples(self, x: Tensor, y: Tensor, x_val: Tensor) -> tuple[Tensor, Tensor]:
        """The mean over a training picture's views, and over those of each mirrored copy.

        Args:
            x: (N, F), or (N, m K, F): the K views of a picture, then those of m - 1 copies of it.
            y: (N,).
            x_val: (M, F) or (M, K, F).

        Raises:
            DataError: training has other views than validation.
        """
        if x.ndim == x_val.ndim == 3:
            views, seen = x_val.shape[1], x.shape[1]
            if seen % views:
                raise DataError(
                    f"training pictures have {seen} views, validation {views}: expected the same, "
                    "or those of copies too."
                )
            x = x.unflatten(1, (-1, views)).mean(dim=2)
        return examples(x, y)

    def _build(self, in_features: int) -> None:
        self.head.build(in_features)

    def _fit(
        self,
        x: Tensor,
        y: Tensor,
        x_val: Tensor,
        y_val: Tensor,
        logger: Logger | None,
        fast_dev_run: bool,
    ) -> dict[str, Any]:
        report = self.head._fit(x, y, _pooled(x_val), y_val, logger, fast_dev_run)
        self.in_features = self.head.in_features
        return report

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N,) of features (N, F) that have been pooled."""
        return self.head(x)


def _pooled(x: Tensor) -> Tensor:
    """Features (N, F) of pictures, or (N, K, F) of their views, as (N, F)."""
    return x.mean(dim=1) if x.ndim == 3 else x
