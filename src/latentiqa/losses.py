"""What a score is trained by, as pure functions of a batch, each with a gradient in ``pred``.

All take ``pred`` (B,) and ``target`` (B,), higher is better in both, and give a scalar in float32
even under autocast, where differences of neighbours would be lost.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

MARGIN = 0.25
"""Of `margin_ranking`, in standard deviations of the targets."""

TEMPERATURE = 0.05
"""Of `spearman`'s soft ranks, in units of the scores, which lie in [0, 1]."""


def mse(pred: Tensor, target: Tensor) -> Tensor:
    """Mean squared error.

    Example:
        >>> mse(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 1.0])).item()
        0.125
    """
    return F.mse_loss(pred.float(), target.float())


def margin_ranking(pred: Tensor, target: Tensor) -> Tensor:
    """Pairs in the right order, and a margin apart: ``max(0, -sign(dy) dp + 0.25 std(y))``.

    The mean over the pairs whose targets differ, 0 where there are none (Fu et al., arXiv
    2405.19996, whose code has it switched off).

    Example:
        >>> target = torch.tensor([0.0, 0.5, 1.0])  # std 0.5: a margin of 0.125
        >>> margin_ranking(target, target).item()
        0.0
        >>> round(margin_ranking(1 - target, target).item(), 4)  # (0.5 + 0.5 + 1) / 3 + 0.125
        0.7917
    """
    first, second = torch.triu_indices(len(pred), len(pred), 1, device=pred.device)
    dp = (pred[first] - pred[second]).float()
    dy = (target[first] - target[second]).float()
    if not dy.any():
        return 0 * pred.float().sum()
    violation = (MARGIN * target.float().std() - dy.sign() * dp).clamp(min=0)
    return violation[dy != 0].mean()


def pearson(pred: Tensor, target: Tensor) -> Tensor:
    """``1 - r``, r Pearson's correlation within the batch; in [0, 2].

    Where one of both is constant there is no correlation: the loss is 1, and so is that of a batch
    of one picture.

    Example:
        >>> target = torch.tensor([0.0, 0.5, 1.0])
        >>> pearson(2 * target + 1, target).item(), pearson(-target, target).item()
        (0.0, 2.0)
    """
    p, y = (x.float() - x.float().mean() for x in (pred, target))
    # A floor inside the root, whose gradient is infinite at 0.
    norms = (p.square().sum() * y.square().sum()).clamp(min=1e-12).sqrt()
    return 1 - (p * y).sum() / norms


def spearman(pred: Tensor, target: Tensor) -> Tensor:
    """``1 - rho``, rho Spearman's correlation with soft ranks of ``pred``; in [0, 2].

    A soft rank counts those below, each by a sigmoid of the difference (Qin, Liu and Li, A general
    approximation framework for direct optimization of information retrieval measures, 2010).

    Example:
        >>> target = torch.tensor([0.0, 0.5, 1.0])
        >>> round(spearman(target**3, target).item(), 2), round(spearman(-target, target).item(), 2)
        (0.0, 2.0)
    """
    return pearson(_soft_ranks(pred, TEMPERATURE), _ranks(target))


def _soft_ranks(x: Tensor, temperature: float) -> Tensor:
    x = x.float()
    return torch.sigmoid((x[:, None] - x) / temperature).sum(dim=1)


def _ranks(x: Tensor) -> Tensor:
    """Ranks from 0.5 up; ties share their mean, as the soft ones do."""
    above = (x[:, None] > x).float()
    return (above + 0.5 * (x[:, None] == x)).sum(dim=1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    loss.__name__: loss for loss in (mse, margin_ranking, pearson, spearman)
}
"""By the names that a config weighs them with."""
