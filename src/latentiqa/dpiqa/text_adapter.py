"""The residual adapter of the prompts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

GAMMA = 1e-4
"""Where the gain of the residual begins: training starts from CLIP's own features."""


class TextAdapter(nn.Module):
    """``c' = c + gamma * MLP(c)``, gamma a gain for each channel (Fu et al., section 3.2).

    Args:
        width: D, of the prompts' features and of the MLP's one hidden layer.

    Example:
        >>> c = torch.randn(1, 495, 64)
        >>> changed = TextAdapter(64)(c) - c
        >>> 0 < changed.abs().max().item() < 1e-3
        True
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.gamma = nn.Parameter(torch.full((width,), GAMMA))

    def forward(self, c: Tensor) -> Tensor:
        """Adapted features, ``(1, K, D)`` like those given."""
        return c + self.gamma * self.mlp(c)
