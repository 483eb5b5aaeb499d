"""From what a U-Net does under a good and a bad prompt to a score."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Seen(NamedTuple):
    """What was seen of B pictures under two prompts, the good one first.

    Attributes:
        attention: pooled logits ``(L, 2, B)`` of L layers, means over heads and tokens.
        noise: the noise in the latents, ``(B, C, h, w)``.
        predicted: the same as the denoiser predicts it, ``(2, B, C, h, w)``.
    """

    attention: Tensor
    noise: Tensor
    predicted: Tensor


def attention(seen: Seen, weights: Tensor) -> Tensor:
    """Pooled logits: ``sum_l w_l S_l``, S_l their mean over both prompts (the paper's first term).

    Args:
        seen: `Seen.attention` is read.
        weights: of the layers, ``(L,)``, that sum to 1.

    Returns:
        ``(B,)``, as all scores here.

    Example:
        >>> S = torch.tensor([[[60.0], [50.0]], [[20.0], [10.0]]])
        >>> attention(Seen(S, S, S), torch.tensor([0.5, 0.5]))
        tensor([35.])
    """
    return weights @ seen.attention.mean(dim=1)


def bias(seen: Seen, weights: Tensor) -> Tensor:
    """How much further the bad prompt's noise is off: ``||e - e_bad|| - ||e - e_good||``.

    It is the paper's b turned, so that higher is better.
    """
    off = (seen.predicted - seen.noise).flatten(2).norm(dim=2)
    return off[1] - off[0]


def loss(seen: Seen, weights: Tensor) -> Tensor:
    """How much larger the bad prompt's denoising loss is, the mean squared error.

    A diffusion classifier (Li et al., ICCV 2023) of good against bad.
    """
    off = (seen.predicted - seen.noise).flatten(2).square().mean(dim=2)
    return off[1] - off[0]


def paper(seen: Seen, weights: Tensor) -> Tensor:
    """The paper's score: ``Q_t = mean_l S_l + b``, ``b = ||e - e_good|| - ||e - e_bad||``.

    Its sign of b is kept: what trained weights make of it is theirs.
    """
    return attention(seen, weights) - bias(seen, weights)


def contrast(seen: Seen, weights: Tensor) -> Tensor:
    """Good against bad: ``100 sum_l w_l softmax(S_l)_good``, from 0 to 100. Ours.

    Example:
        >>> S = torch.tensor([[[60.0], [60.0]]])
        >>> contrast(Seen(S, S, S), torch.tensor([1.0]))
        tensor([50.])
    """
    return 100 * (weights @ torch.softmax(seen.attention, dim=1)[:, 0])


Score = Callable[[Seen, Tensor], Tensor]

SCORES: dict[str, Score] = {
    score.__name__: score for score in (paper, attention, contrast, bias, loss)
}
"""By the names that a config calls them with."""

OF_ATTENTION = frozenset({"paper", "attention", "contrast"})
"""Those for which attention is read."""

OF_NOISE = frozenset({"paper", "bias", "loss"})
"""Those for which the denoiser runs to its end."""
