"""Ridge regression with its strength chosen on validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from latentiqa.errors import ConfigError, DataError
from latentiqa.heads.base import Head, averaged, examples
from latentiqa.heads.standardise import Standardise
from latentiqa.metrics import srcc

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

ALPHAS = tuple(float(f"{10 ** (k / 3):.3g}") for k in range(-6, 19))
"""0.01 to 1e6, three values a decade."""


class RidgeHead(Head):
    """min_w ||X w - y||^2 + alpha ||w||^2 over standardised features X and the centred target y.

    alpha is the one of highest SRCC on validation, the larger of equals. float64 throughout.

    Args:
        alphas: strengths to choose from, each > 0.
        refit: fit once more on training and validation data with the alpha chosen.

    Raises:
        ConfigError: `alphas` is empty or holds a value <= 0.

    Example:
        >>> x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
        >>> head = RidgeHead(alphas=(0.1, 1.0))
        >>> report = head.fit(x[:30], x[:30, 0], x[30:], x[30:, 0])
        >>> head.predict(x).shape, round(report["val_srcc"], 6)
        (torch.Size([40]), 1.0)
    """

    standardise: Standardise
    weight: Tensor
    bias: Tensor

    def __init__(self, alphas: Sequence[float] = ALPHAS, refit: bool = True) -> None:
        values = sorted({float(alpha) for alpha in alphas})
        if not values or not 0 < values[0] <= values[-1] < float("inf"):
            raise ConfigError(
                f"alphas={list(alphas)}: expected finite values > 0, for example [0.1, 1, 10]"
            )
        super().__init__(alphas=values, refit=bool(refit))
        self.alphas = values
        self.refit = bool(refit)

    def _build(self, in_features: int) -> None:
        self.standardise = Standardise(in_features)
        self.register_buffer("weight", torch.zeros(in_features, dtype=torch.float64))
        self.register_buffer("bias", torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N,) float64 of features (N, F)."""
        return self.standardise(x) @ self.weight + self.bias

    def _fit(
        self,
        x: Tensor,
        y: Tensor,
        x_val: Tensor,
        y_val: Tensor,
        logger: Logger | None,
        fast_dev_run: bool,  # a closed form has no shorter way
    ) -> dict[str, Any]:
        features, centred = self._prepare(x, y)
        scores = averaged(lambda z: self._path(features, centred, z), self.standardise(x_val))
        val_srcc = [srcc(column, y_val) for column in scores.T]
        defined = [i for i, value in enumerate(val_srcc) if value == value]
        if not defined:
            raise DataError(
                "validation SRCC is undefined for every alpha, as scores or targets are constant: "
                "check that features and targets vary"
            )
        best = max(defined, key=lambda i: (val_srcc[i], self.alphas[i]))
        if logger is not None:
            for step, (alpha, value) in enumerate(zip(self.alphas, val_srcc, strict=True)):
                logger.log_metrics({"ridge/alpha": alpha, "val/srcc": value}, step=step)
        if self.refit:
            more, more_y = examples(x_val, y_val)
            features, centred = self._prepare(torch.cat([x, more]), torch.cat([y, more_y]))
        solved = self._solve(features, centred, self.alphas[best])
        return self._report(best, val_srcc) | solved

    def _prepare(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised features and centred targets, float64; both statistics are kept."""
        self.build(x.shape[1])
        self.to(x.device)
        self.bias = y.double().mean()
        return self.standardise.fit(x)(x), y.double() - self.bias

    def _path(self, x: Tensor, y: Tensor, x_val: Tensor) -> Tensor:
        """Centred validation scores (M, A) of fits of all strengths."""
        return x_val @ ridge_path(x, y, self.alphas)

    def _solve(self, x: Tensor, y: Tensor, alpha: float) -> dict[str, Any]:
        """Keep the fit of one strength; what the report shall say of it."""
        self.weight = ridge_solution(x, y, alpha)
        return {}

    def _report(self, best: int, val_srcc: list[float]) -> dict[str, Any]:
        curve = zip(self.alphas, val_srcc, strict=True)
        report: dict[str, Any] = {
            "alpha": self.alphas[best],
            "val_srcc": val_srcc[best],
            # Undefined is null: JSON knows no nan.
            "val_srcc_by_alpha": [[a, value if value == value else None] for a, value in curve],
        }
        if len(self.alphas) > 1 and best in (0, len(self.alphas) - 1):
            report["warning"] = (
                f"the best alpha, {self.alphas[best]:g}, is at the edge of the grid "
                f"[{self.alphas[0]:g}, {self.alphas[-1]:g}]: widen head.alphas"
            )
        return report


def ridge_path(x: Tensor, y: Tensor, alphas: Sequence[float]) -> Tensor:
    """Ridge solutions for many strengths from one economy SVD, X = U diag(s) V^T.

    w(alpha) = V diag(s / (s^2 + alpha)) U^T y

    Args:
        x: (N, F) features.
        y: (N,) targets.
        alphas: A strengths > 0.

    Returns:
        (F, A) weights, one column a strength.

    Example:
        >>> ridge_path(torch.tensor([[1.0], [1.0]]), torch.tensor([1.0, 1.0]), [2.0])
        tensor([[0.5000]])
    """
    n, f = x.shape
    if n < f:
        # w lies in the row space of X: with X^T = Q R the problem is that of the square R^T.
        # LAPACK's SVD of the wide X itself takes six times as long at 1,750 x 25,000.
        q, r = torch.linalg.qr(x.T)
        return q @ ridge_path(r.T, y, alphas)
    u, s, vt = torch.linalg.svd(x, full_matrices=False)
    shrink = s[:, None] / (s[:, None] ** 2 + s.new_tensor(alphas))  # (min(N, F), A)
    return vt.T @ (shrink * (u.T @ y)[:, None])


def ridge_solution(x: Tensor, y: Tensor, alpha: float) -> Tensor:
    """Ridge solution (F,) for one strength, by the smaller of the two normal equations.

    w = (X^T X + alpha I)^-1 X^T y = X^T (X X^T + alpha I)^-1 y

    For one strength this takes a small part of an SVD's time.

    Example:
        >>> ridge_solution(torch.tensor([[1.0], [1.0]]), torch.tensor([1.0, 1.0]), 2.0)
        tensor([0.5000])
    """
    n, f = x.shape
    if n < f:
        return x.T @ torch.linalg.solve(x @ x.T + alpha * torch.eye(n).to(x), y)
    return torch.linalg.solve(x.T @ x + alpha * torch.eye(f).to(x), x.T @ y)
