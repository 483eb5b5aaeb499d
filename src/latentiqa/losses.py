"""What a score is trained by, as pure functions of a batch, each with a gradient in ``pred``.

All take ``pred`` (B,) and ``target`` (B,), higher is better in both, and give a scalar in float32
even under autocast, where differences of neighbours would be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from latentiqa.errors import ConfigError, is_number

MARGIN = 0.25
"""Of `margin_ranking`, in standard deviations of the targets."""

TEMPERATURE = 0.05
"""Of `spearman`'s soft ranks, in units of the scores, which lie in [0, 1]."""

RANGE = 4.0
"""Of `fidelity`: from the worst to the best score in LIQE's units, from 1 to 5."""


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
    dp, dy = _differences(pred), _differences(target)
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


def fidelity(pred: Tensor, target: Tensor) -> Tensor:
    """The probability of which of two is better against what it should be, over all pairs.

    The mean of `pair_fidelity`, 0 where there is no pair; g is 1 or 0 by the targets' order, 1/2
    where they are equal (Zhang et al., Blind Image Quality Assessment via Vision-Language
    Correspondence, LIQE, CVPR 2023). There scores lie in [1, 5]; those in [0, 1] are brought to
    such units, which is ours. A difference is all that counts: without another loss beside it
    scores have no scale of their own.

    Example:
        >>> target = torch.tensor([0.0, 0.5, 1.0])
        >>> round(fidelity(target, target).item(), 4), round(fidelity(1 - target, target).item(), 4)
        (0.0076, 0.8976)
        >>> round(fidelity(0 * target, target).item(), 4)  # 1 - sqrt(1/2)
        0.2929
    """
    d, order = RANGE * _differences(pred), _differences(target).sign()
    return pair_fidelity(d, (1 + order) / 2).sum() / max(1, len(d))


def pair_fidelity(d: Tensor, g: Tensor) -> Tensor:
    """``1 - sqrt(p g) - sqrt((1 - p) (1 - g))`` with ``p = (1 + erf(d / sqrt 2)) / 2``; in [0, 1].

    The loss of Tsai et al., FRank: A ranking method with fidelity loss, SIGIR 2007, with
    Thurstone's p. The roots are taken of p's logarithm, so that their gradients are finite and
    exact where p rounds to 0 or 1, or g is either; nothing need be added to what is under them. The
    gradient of a pair that is far in the wrong order vanishes, as the loss itself is flat there.

    Args:
        d: differences of two scores, in standard deviations of their difference.
        g: probabilities in [0, 1] that the first is the better one, of the same shape.

    Returns:
        As ``d``, in its dtype.

    Example:
        >>> d, g = torch.tensor([0.0, 3.0, -40.0]), torch.tensor([0.5, 1.0, 1.0])
        >>> [round(value, 4) for value in pair_fidelity(d, g).tolist()]
        [0.0, 0.0007, 1.0]
    """
    p, q = (torch.exp(torch.special.log_ndtr(x) / 2) for x in (d, -d))
    return 1 - p * g.sqrt() - q * (1 - g).sqrt()


def _differences(x: Tensor) -> Tensor:
    """Of each two of (B,), the first less the second, (B (B - 1) / 2,)."""
    first, second = torch.triu_indices(len(x), len(x), 1, device=x.device)
    return (x[first] - x[second]).float()


def _soft_ranks(x: Tensor, temperature: float) -> Tensor:
    x = x.float()
    return torch.sigmoid((x[:, None] - x) / temperature).sum(dim=1)


def _ranks(x: Tensor) -> Tensor:
    """Ranks from 0.5 up; ties share their mean, as the soft ones do."""
    above = (x[:, None] > x).float()
    return (above + 0.5 * (x[:, None] == x)).sum(dim=1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    loss.__name__: loss for loss in (mse, margin_ranking, pearson, spearman, fidelity)
}
"""By the names that a config weighs them with."""


def check_weights(losses: Mapping[str, Any]) -> None:
    """Check what a config weighs the losses with.

    Args:
        losses: weights of `LOSSES` by name.

    Raises:
        ConfigError: a name is unknown, a weight is below 0, or none is above.
    """
    if not losses.keys() <= LOSSES.keys() or not all(
        is_number(weight) and weight >= 0 for weight in losses.values()
    ):
        raise ConfigError(f"losses={dict(losses)}: expected weights >= 0 of {', '.join(LOSSES)}.")
    if not any(losses.values()):
        raise ConfigError(f"losses={dict(losses)}: expected one with a weight above 0.")
