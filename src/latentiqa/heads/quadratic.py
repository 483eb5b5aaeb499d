"""Ridge regression on features and their products, as a kernel; kept as a form of low rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from latentiqa.errors import ConfigError
from latentiqa.heads.ridge import ALPHAS, RidgeHead
from latentiqa.heads.standardise import Standardise

LIMIT = 6.0
"""Standard deviations. Beyond, where training showed nothing, a square would outvote the rest."""


class QuadraticRidgeHead(RidgeHead):
    """Kernel ridge regression, k(x, x') = (1 + x.x' / F)^2, over standardised features.

    With dual weights c = (K + alpha I)^-1 y the scores are a quadratic form of the features,

        f(x) = mean(y) + sum_i c_i k(x_i, x) = bias + w.x + x^T M x,   M = X^T diag(c) X / F^2,

    of whose F x F matrix the eigenvectors of largest absolute eigenvalue are kept; so the training
    pictures are not. alpha is chosen as in `RidgeHead`, by the whole kernel. float64, but for the
    eigenvectors, which are float32.

    Args:
        alphas: strengths to choose from, each > 0.
        refit: fit once more on training and validation data with the alpha chosen.
        rank: number of eigenvectors, >= 1.

    Raises:
        ConfigError: `alphas` is empty or holds a value <= 0, or the rank is < 1.

    Example:
        >>> x = torch.randn(90, 5, generator=torch.Generator().manual_seed(0))
        >>> head = QuadraticRidgeHead(alphas=(0.01, 0.1))
        >>> y = x[:, 0] * x[:, 1]
        >>> report = head.fit(x[:60], y[:60], x[60:], y[60:])
        >>> report["val_srcc"] > 0.95
        True
    """

    values: Tensor
    vectors: Tensor

    def __init__(
        self, alphas: Sequence[float] = ALPHAS, refit: bool = True, rank: int = 32
    ) -> None:
        super().__init__(alphas, refit)
        if rank < 1:
            raise ConfigError(f"rank={rank}: expected a number of eigenvectors >= 1, such as 32")
        self.rank = int(rank)
        self.arguments["rank"] = self.rank

    def _build(self, in_features: int) -> None:
        super()._build(in_features)
        self.standardise = Standardise(in_features, LIMIT)
        self.register_buffer("values", torch.zeros(self.rank, dtype=torch.float64))
        self.register_buffer("vectors", torch.zeros(in_features, self.rank))

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N,) float64 of features (N, F)."""
        z = self.standardise(x)
        return z @ self.weight + (z @ self.vectors.double()).square() @ self.values + self.bias

    def _path(self, x: Tensor, y: Tensor, x_val: Tensor) -> Tensor:
        return kernel(x_val, x) @ dual_path(kernel(x, x), y, self.alphas)

    def _solve(self, x: Tensor, y: Tensor, alpha: float) -> dict[str, Any]:
        n, f = x.shape
        products = kernel(x, x)
        dual = torch.linalg.solve(products + alpha * torch.eye(n).to(x), y)
        self.bias = self.bias + dual.sum()
        self.weight = 2 / f * (x.T @ dual)
        values, vectors = leading_eigenpairs(x, dual / f**2, self.rank)
        self.values[: len(values)] = values
        self.vectors[:, : len(values)] = vectors.float()
        left = products @ dual - dual.sum() - x @ self.weight
        left = left - (x @ self.vectors.double()).square() @ self.values
        return {"rank_error": left.square().mean().sqrt().item()}


def kernel(a: Tensor, b: Tensor) -> Tensor:
    """(1 + a_i.b_j / F)^2 of (N, F) and (M, F), as (N, M).

    Example:
        >>> kernel(torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 2.0]]))
        tensor([[25.]])
    """
    return (1 + a @ b.T / a.shape[1]).square()


def dual_path(k: Tensor, y: Tensor, alphas: Sequence[float]) -> Tensor:
    """(K + alpha I)^-1 y for many strengths from one eigendecomposition.

    Args:
        k: (N, N) kernel, symmetric and positive semidefinite.
        y: (N,) targets.
        alphas: A strengths > 0.

    Returns:
        (N, A) dual weights, one column a strength.

    Example:
        >>> dual_path(torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.tensor([1.0, 1.0]), [1.0])
        tensor([[0.5000],
                [0.2500]])
    """
    values, vectors = torch.linalg.eigh(k)
    shrunk = (vectors.T @ y)[:, None] / (values.clamp_min(0)[:, None] + values.new_tensor(alphas))
    return vectors @ shrunk


def leading_eigenpairs(x: Tensor, weights: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Those of X^T diag(weights) X of largest absolute eigenvalue.

    Args:
        x: (N, F).
        weights: (N,), of any sign.
        rank: how many; there are no more than min(N, F).

    Returns:
        Eigenvalues (R,), and eigenvectors (F, R).

    Example:
        >>> x = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> leading_eigenpairs(x, torch.tensor([-1.0, 1.0]), 1)[0]
        tensor([-4.])
    """
    n, f = x.shape
    if n < f:
        # With X^T = Q R it is Q (R diag(weights) R^T) Q^T: the problem of the square R^T.
        q, r = torch.linalg.qr(x.T)
        values, vectors = leading_eigenpairs(r.T, weights, rank)
        return values, q @ vectors
    values, vectors = torch.linalg.eigh(x.T @ (weights[:, None] * x))
    order = values.abs().argsort(descending=True)[:rank]
    return values[order], vectors[:, order]
