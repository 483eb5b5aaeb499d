"""Bradley and Terry's model: strengths of models from who was picked over whom.

    P(i is picked over j) = 1 / (1 + exp(s_j - s_i))

Bradley and Terry, "Rank analysis of incomplete block designs", Biometrika 39, 1952.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csgraph
from scipy.special import expit

from latentiqa.errors import DataError, check_number

Wins = NDArray[np.float64]
"""``(M, M)``: how often the row was picked over the column."""

MOST_STEPS, MOST_HALVES, PRECISE = 100, 40, 1e-10
"""Newton's steps, how often one is halved, and what the last one may gain at most, twice."""


def with_prior(wins: Wins, prior: float, names: Sequence[str]) -> Wins:
    """Add imaginary picks, ``prior`` each way between any two models that were compared.

    They keep strengths finite where a model was always picked, and pull all of them together a
    little: of two models with a and b picks the difference is log((a + prior) / (b + prior)).

    Args:
        wins: what was picked.
        prior: >= 0; 0 is plain maximum likelihood.
        names: of the models, for messages.

    Raises:
        ConfigError: the prior is below 0.
        DataError: no pick links some models with the others, so that nothing says how they stand.
    """
    check_number("rank.prior", prior, positive=False)
    compared = (wins + wins.T) > 0
    groups = _groups(compared, names, "weak")
    if len(groups) > 1:
        raise DataError(
            f"no pick compares {groups[0]} with {groups[1]}: they have no common ranking; collect "
            "picks between them, or rank them apart."
        )
    return wins + prior * compared


def strengths(wins: Wins, names: Sequence[str]) -> NDArray[np.float64]:
    """Strengths of maximum likelihood, by Newton's method; their mean is 0.

    Args:
        wins: picks, with those that `with_prior` added, or without; ``(M, M)``, or ``(R, M, M)`` of
            R samples of them.
        names: of the models, for messages.

    Returns:
        ``(M,)`` or ``(R, M)``.

    Raises:
        DataError: some models were always picked over all others: then there is no maximum (Ford,
            "Solution of a ranking problem from binary comparisons", 1957).

    Example:
        >>> s = strengths(np.array([[0.0, 3.0], [1.0, 0.0]]), ["a", "b"])
        >>> bool(abs(s[0] - s[1] - np.log(3 / 1)) < 1e-9)
        True
    """
    samples = wins.reshape(-1, *wins.shape[-2:])
    for linked in np.unique(samples > 0, axis=0):
        groups = _groups(linked, names, "strong")
        if len(groups) > 1:
            raise DataError(
                f"between {groups[0]} and {groups[1]} all picks go one way, so that their distance "
                "has no end; set rank.prior above 0, or collect more picks."
            )
    s = np.zeros(samples.shape[:2])
    loss = _loss(samples, s)
    for _ in range(MOST_STEPS):
        gradient, curvature = _derivatives(samples, s)
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        decrease = (gradient * step).sum(1)
        # Newton's step is too long far from the maximum, where the likelihood is almost straight.
        size = np.ones(len(s))
        for _ in range(MOST_HALVES):
            new = _loss(samples, s - size[:, None] * step)
            worse = new > loss - 0.1 * size * decrease + PRECISE
            if not worse.any():
                break
            size[worse] /= 2
        s = s - size[:, None] * step
        if decrease.max() < PRECISE:  # the next step would be of the order of its square
            break
        loss = _loss(samples, s)
    return (s - s.mean(1, keepdims=True)).reshape(wins.shape[:-1])


def covariance(wins: Wins, s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the errors of strengths, ``(M, M)``: the inverse of the likelihood's curvature at them.

    It is that of many picks, and meant for differences, as their mean is fixed.

    Args:
        wins: ``(M, M)`` that `strengths` were found of.
        s: those.

    Example:
        >>> wins = np.array([[0.0, 8.0], [8.0, 0.0]])
        >>> c = covariance(wins, strengths(wins, ["a", "b"]))
        >>> round(float(c[0, 0] + c[1, 1] - 2 * c[0, 1]), 6)  # 1 / (16 picks x 1/2 x 1/2)
        0.25
    """
    return np.linalg.inv(_derivatives(wins[None], s[None])[1][0])


def _loss(wins: Wins, s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Negative log-likelihood, (R,)."""
    return (wins * np.logaddexp(0, s[:, None, :] - s[:, :, None])).sum((1, 2))


def _derivatives(
    wins: Wins, s: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Its gradient (R, M) and second derivatives (R, M, M)."""
    picked = expit(s[:, :, None] - s[:, None, :])
    wrong = wins * (1 - picked)
    gradient = wrong.sum(1) - wrong.sum(2)
    weight = (wins + wins.swapaxes(1, 2)) * picked * (1 - picked)
    curvature = np.eye(s.shape[1]) * weight.sum(2)[:, :, None] - weight
    # The likelihood does not know a common shift; this keeps it at 0.
    return gradient, curvature + 1 / s.shape[1]


def _groups(linked: NDArray[np.bool_], names: Sequence[str], connection: str) -> list[str]:
    """The models by connected parts of a graph, in words."""
    count, labels = csgraph.connected_components(linked, directed=True, connection=connection)
    return [
        ", ".join(name for name, label in zip(names, labels, strict=True) if label == i)
        for i in range(count)
    ]
