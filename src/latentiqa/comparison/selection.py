"""Which inputs people are shown: those that models disagree about, and that differ from each other.

The selection is made by the results alone, before any person has seen them, so that nobody's
favourite pictures decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentiqa.enhance.nlpd import nlpd
from latentiqa.errors import DataError, check_integer, check_number


@torch.no_grad()
def discrepancy(results: Sequence[Tensor]) -> float:
    """How far models' results of one input are from each other.

    The mean over all pairs of models of the normalised Laplacian pyramid distance over all bands.

    Args:
        results: of two or more models, each ``(3, H, W)`` in [0, 1].

    Example:
        >>> discrepancy([torch.zeros(3, 32, 32), torch.zeros(3, 32, 32)])
        0.0
    """
    pairs = list(combinations(results, 2))
    return sum(nlpd(a[None], b[None], bands="all").item() for a, b in pairs) / len(pairs)


def apart(features: Tensor) -> NDArray[np.float64]:
    """Euclidean distances between inputs by features, each standardised over the inputs.

    Args:
        features: ``(N, F)``; one that is the same for all inputs counts nothing.

    Returns:
        ``(N, N)``.

    Raises:
        DataError: a feature is not finite.

    Example:
        >>> apart(torch.tensor([[0.0, 5.0], [2.0, 5.0]])).tolist()
        [[0.0, 2.0], [2.0, 0.0]]
    """
    x = features.double()
    if not x.isfinite().all():
        raise DataError("a feature of the inputs is not finite: their diversity is unknown.")
    spread = x.std(0, unbiased=False)
    x = (x - x.mean(0)) / torch.where(spread > 0, spread, 1)
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").numpy()


def select(
    discrepancies: Sequence[float],
    distances: NDArray[np.float64],
    count: int,
    diversity: float = 1.0,
) -> list[int]:
    """Choose inputs one after the other, as maximum discrepancy competition does.

    The k-th input is the one of the rest with the largest

        d(x) / mean d + diversity * min_{s in S} D(x, s) / mean D

    S being those chosen before and D the distance between two inputs; both means are over the whole
    pool, so that the weight has no unit. The first one is that of the largest d; of equal ones the
    earlier counts. (Our reading: the paper asks for both, Wang et al., "I am going MAD", ICLR 2020,
    from which it comes, adds them; their scales are not given.)

    Args:
        discrepancies: d of each input, (N,), >= 0.
        distances: D, (N, N).
        count: how many.
        diversity: its weight, >= 0.

    Returns:
        Indices in the order of their choice; all of them where there are no more than ``count``.

    Raises:
        ConfigError: see `check_selection`.

    Example:
        >>> line = np.abs(np.subtract.outer([0.0, 0.1, 3.0], [0.0, 0.1, 3.0]))
        >>> select([1.0, 0.9, 0.5], line, 2), select([1.0, 0.9, 0.5], line, 2, diversity=0)
        ([0, 2], [0, 1])
    """
    check_selection(count, diversity)
    gain = _scaled(np.asarray(discrepancies, dtype=np.float64))
    between = _scaled(np.asarray(distances, dtype=np.float64))
    chosen: list[int] = []
    while len(chosen) < min(count, len(gain)):
        nearest = between[:, chosen].min(axis=1) if chosen else np.zeros(len(gain))
        value = gain + diversity * nearest
        value[chosen] = -np.inf
        chosen.append(int(value.argmax()))
    return chosen


def check_selection(count: int | None, diversity: float) -> None:
    """Refuse what `select` does not know; None is for all inputs.

    Raises:
        ConfigError: a value is outside its range.
    """
    if count is not None:
        check_integer("selection.count", count, 1)
    check_number("selection.diversity", diversity, positive=False)


def _scaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divided by their mean; a matrix's diagonal, which is nothing, is not in it."""
    off = values[~np.eye(len(values), dtype=bool)] if values.ndim == 2 else values
    mean = off.mean() if off.size else 0.0
    return values / mean if mean > 0 else values
