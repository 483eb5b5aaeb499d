"""The head of a method that gives scores itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from latentiqa.errors import DataError
from latentiqa.heads.base import Head, averaged
from latentiqa.metrics import srcc

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger


class IdentityHead(Head):
    """Its one feature is the score; nothing is fitted, nothing chosen.

    Example:
        >>> import torch
        >>> head, x = IdentityHead(), torch.tensor([[0.1], [0.7], [0.4]])
        >>> head.fit(x, x[:, 0], x, x[:, 0])["val_srcc"]
        1.0
        >>> head.predict(x).tolist() == x[:, 0].tolist()
        True
    """

    def _build(self, in_features: int) -> None:
        if in_features != 1:
            raise DataError(f"{in_features} features: expected one, the score itself.")

    def forward(self, x: Tensor) -> Tensor:
        """The scores (N,) of (N, 1)."""
        return x.squeeze(1)

    def _fit(
        self,
        x: Tensor,
        y: Tensor,
        x_val: Tensor,
        y_val: Tensor,
        logger: Logger | None,
        fast_dev_run: bool,
    ) -> dict[str, Any]:
        self.build(x.shape[1])
        val_srcc = srcc(averaged(self, x_val), y_val)
        if val_srcc != val_srcc:
            raise DataError("validation SRCC is undefined, as scores or targets are constant.")
        return {"val_srcc": val_srcc}
