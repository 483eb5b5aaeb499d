"""Features to zero mean and unit variance, with the statistics of the training set."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Standardise(nn.Module):
    """x -> (x - mean) / scale, column by column, in float64.

    A column that varies by no more than the rounding of its float32 values carries nothing: it is
    centred and its scale stays 1.

    Args:
        in_features: number of columns F.
        limit: values are limited to this many standard deviations either way.

    Example:
        >>> x = torch.tensor([[1.0, 7.0], [3.0, 7.0]])
        >>> Standardise(2).fit(x)(x).tolist()
        [[-1.0, 0.0], [1.0, 0.0]]
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, in_features: int, limit: float = float("inf")) -> None:
        super().__init__()
        self.limit = limit
        self.register_buffer("mean", torch.zeros(in_features, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(in_features, dtype=torch.float64))

    def fit(self, x: Tensor) -> Standardise:
        """Take mean and population standard deviation of the rows of `x`, (N, F)."""
        x = x.detach().double()
        std, self.mean = torch.std_mean(x, dim=0, correction=0)
        rounding = torch.finfo(torch.float32).eps * x.abs().amax(dim=0)
        self.scale = torch.where(std > rounding, std, 1.0)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Standardise (N, F) features of any floating dtype to float64."""
        return ((x.double() - self.mean) / self.scale).clamp(-self.limit, self.limit)
