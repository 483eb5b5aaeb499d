"""Exponential moving average of weights: what is evaluated, sampled from and shipped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of ``model`` that follows it: ``average = d average + (1 - d) weights``.

    ``d = min(decay, (1 + n) / (10 + n))`` after ``n`` updates, so that the random start is
    forgotten quickly.

    Args:
        model: the model that is trained.
        decay: in [0, 1).

    Returns:
        Its ``module`` has the averaged weights; call ``update_parameters(model)`` after each
        optimiser step.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> average = averaged(layer, decay=0.9)
        >>> average.update_parameters(layer)
        >>> bool(average.module.weight == layer.weight)
        True
    """

    def average(old: list[Tensor], new: list[Tensor], n: Tensor | int) -> None:
        d = min(decay, (1 + int(n)) / (10 + int(n)))
        torch._foreach_lerp_(old, new, 1 - d)

    # Any: the type stubs of AveragedModel name no tuple of lists.
    multi_avg_fn: Callable[..., Any] = torch.no_grad()(average)
    copy = AveragedModel(model, multi_avg_fn=multi_avg_fn)
    copy.requires_grad_(False)
    return copy
