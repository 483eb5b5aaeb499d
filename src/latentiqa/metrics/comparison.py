"""Whether a difference between two methods is more than chance, and how sure a figure is.

On one split two methods are compared by their correlations with the same human scores, which are
dependent (`williams`, `steiger`, `bootstrap_difference`); over random splits by the differences of
a figure (`corrected_t`, `wilcoxon`). All p-values are two-sided.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from latentiqa.errors import ConfigError, DataError

SAME = 1 - 1e-12
"""A correlation above it is 1, but for rounding."""


class Significance(NamedTuple):
    """What a test of significance found.

    Attributes:
        statistic: positive where the first method is the better one.
        p: probability of as large a statistic, of either sign, if there were no difference.
    """

    statistic: float
    p: float


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


def williams(target: Any, first: Any, second: Any, *, ranks: bool = True) -> Significance:
    """Williams' test of two correlations with the same target.

    Williams, "Regression analysis", 1959; in the form T2 that Steiger ("Tests for comparing
    elements of a correlation matrix", Psychological Bulletin 87(2), 1980, eq. 7) recommends:

        t = (r_1 - r_2) sqrt((n - 1)(1 + r_12) / (2 (n - 1)/(n - 3) |R| + rbar^2 (1 - r_12)^3))

    with n - 3 degrees of freedom; r_1, r_2 are the methods' correlations with the target, r_12
    that of the methods, rbar the mean of r_1 and r_2 and |R| = 1 - r_1^2 - r_2^2 - r_12^2 +
    2 r_1 r_2 r_12.

    Args:
        target: human scores, (N,).
        first: scores of a method, (N,).
        second: scores of the other one, (N,).
        ranks: of ranks, so of SRCC (to which the test applies approximately), or of the scores
            themselves, so of PLCC.

    Raises:
        DataError: lengths differ, N < 4, or scores are constant or not finite.

    Example:
        >>> y = [1, 2, 3, 4, 5, 6, 7, 8]
        >>> williams(y, [1, 2, 3, 4, 5, 6, 8, 7], [2, 1, 4, 3, 8, 7, 5, 6]).p < 0.05
        True
    """
    return _compared(_williams, target, first, second, ranks)


def _williams(n: int, r1: float, r2: float, r12: float) -> Significance:
    determinant = 1 - r1**2 - r2**2 - r12**2 + 2 * r1 * r2 * r12
    mean = (r1 + r2) / 2
    spread = 2 * (n - 1) / (n - 3) * max(determinant, 0.0) + mean**2 * (1 - r12) ** 3
    t = float((r1 - r2) * math.sqrt((n - 1) * (1 + r12) / spread))
    return Significance(t, float(2 * stats.t.sf(abs(t), n - 3)))


def steiger(target: Any, first: Any, second: Any, *, ranks: bool = True) -> Significance:
    """Steiger's test of two correlations with the same target, by Fisher's z.

    Steiger (1980, as in `williams`), eq. 14: Dunn and Clark's statistic with the mean of the two
    correlations, which are equal if there is no difference, in the place of either:

        Z = (atanh r_1 - atanh r_2) sqrt((n - 3) / (2 - 2 s))
        s = (r_12 (1 - 2 rbar^2) - rbar^2 (1 - 2 rbar^2 - r_12^2) / 2) / (1 - rbar^2)^2

    Args:
        target: human scores, (N,).
        first: scores of a method, (N,).
        second: scores of the other one, (N,).
        ranks: of ranks, so of SRCC (to which the test applies approximately), or of the scores
            themselves, so of PLCC.

    Raises:
        DataError: lengths differ, N < 4, or scores are constant or not finite.

    Example:
        >>> y = [1, 2, 3, 4, 5, 6, 7, 8]
        >>> steiger(y, [1, 2, 3, 4, 5, 6, 8, 7], [2, 1, 4, 3, 8, 7, 5, 6]).p < 0.05
        True
    """
    return _compared(_steiger, target, first, second, ranks)


def _steiger(n: int, r1: float, r2: float, r12: float) -> Significance:
    if max(abs(r1), abs(r2)) > SAME:  # Fisher's z has no end
        return Significance(math.copysign(math.inf, r1 - r2), 0.0)
    square = ((r1 + r2) / 2) ** 2
    # The same 1 - s, without the difference of nearly equal numbers that its terms are.
    apart, rest = 1 - r12, 1 - square
    spread = 2 * apart * (rest - square * apart / 2) / rest**2
    z = (math.atanh(r1) - math.atanh(r2)) * math.sqrt((n - 3) / spread)
    return Significance(z, float(2 * stats.norm.sf(abs(z))))


def bootstrap_difference(
    target: Any,
    first: Any,
    second: Any,
    *,
    ranks: bool = True,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 2_000,
    clusters: Sequence[Any] | None = None,
) -> Interval:
    """Percentile bootstrap interval of the difference of two correlations with the same target.

    Pictures are drawn with replacement, each with its target and both methods' scores.

    Args:
        target: human scores, (N,).
        first: scores of a method, (N,); of several, such as those with other noise, (S, N), the
            mean of their correlations is compared.
        second: scores of the other one, likewise.
        ranks: SRCC, or PLCC.
        level: confidence, 0 to 1.
        seed: of the resampling.
        resamples: how many; those in which some scores are constant are left out.
        clusters: labels (N,) of what is drawn whole, such as the original of distorted pictures,
            which are no independent ones; None draws pictures.

    Raises:
        ConfigError: the level is not between 0 and 1.
        DataError: lengths differ, N < 4, scores are constant or not finite, or there is one
            cluster alone.

    Example:
        >>> y = [1, 2, 3, 4, 5, 6, 7, 8]
        >>> bootstrap_difference(y, [1, 2, 3, 4, 5, 6, 8, 7], [8, 7, 6, 5, 4, 3, 2, 1]).low > 1
        True
    """
    _check_level(level)
    own, other = np.atleast_2d(first), np.atleast_2d(second)
    found = _resampled([target, *own, *other], ranks, seed, resamples, clusters)
    return _interval(found[: len(own)].mean(0) - found[len(own) :].mean(0), level)


def bootstrap_correlation(
    target: Any,
    *scores: Any,
    ranks: bool = True,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 2_000,
    clusters: Sequence[Any] | None = None,
) -> Interval:
    """Percentile bootstrap interval of a correlation with human scores, over pictures.

    Args:
        target: human scores, (N,).
        *scores: of a method, (N,); of several, such as those of one method with other noise, it is
            the interval of the mean of their correlations.
        ranks: SRCC, or PLCC.
        level: confidence, 0 to 1.
        seed: of the resampling.
        resamples: how many; those in which some scores are constant are left out.
        clusters: see `bootstrap_difference`.

    Raises:
        ConfigError: see `bootstrap_difference`.
        DataError: see `bootstrap_difference`.

    Example:
        >>> low, high = bootstrap_correlation([1, 2, 3, 4, 5, 6, 7, 8], [2, 1, 4, 3, 8, 7, 5, 6])
        >>> low < 0.9 < round(high, 3) <= 1
        True
    """
    _check_level(level)
    found = _resampled([target, *scores], ranks, seed, resamples, clusters)
    return _interval(found.mean(0), level)


def corrected_t(
    first: Sequence[float], second: Sequence[float], test_share: float = 0.2
) -> Significance:
    """Paired t-test over random splits, corrected for the pictures that they share.

    Training parts of random splits overlap, so that their figures are not independent and the
    plain test finds differences that are not there. Nadeau and Bengio ("Inference for the
    generalization error", Machine Learning 52, 2003) put the variance up to

        (1 / k + test share / (1 - test share)) s^2

    for k splits, s^2 the variance of the differences; k - 1 degrees of freedom.

    Args:
        first: a method's figure (SRCC, say) on each split.
        second: the other method's on the same splits.
        test_share: share of the pictures in the test part.

    Raises:
        ConfigError: the share is not between 0 and 1.
        DataError: numbers of splits differ, or there are fewer than two.

    Example:
        >>> round(corrected_t([0.82, 0.84, 0.83, 0.85], [0.80, 0.81, 0.81, 0.82]).p, 3)
        0.009
    """
    if not 0 < test_share < 1:
        raise ConfigError(f"test_share={test_share}: expected a share of the pictures, 0 < x < 1")
    differences = _differences(first, second)
    k = len(differences)
    spread = differences.std(ddof=1) * math.sqrt(1 / k + test_share / (1 - test_share))
    if spread == 0:
        if not differences.any():
            return Significance(0.0, 1.0)
        return Significance(math.copysign(math.inf, differences[0]), 0.0)
    t = float(differences.mean() / spread)
    return Significance(t, float(2 * stats.t.sf(abs(t), k - 1)))


def wilcoxon(first: Sequence[float], second: Sequence[float]) -> Significance:
    """Wilcoxon's signed-rank test over splits, which the field reports.

    Args:
        first: a method's figure on each split.
        second: the other method's on the same splits.

    Returns:
        The sum of the ranks where the first is better less the sum of the others, and p.

    Raises:
        DataError: numbers of splits differ, or there are fewer than two.

    Example:
        >>> wilcoxon([0.82, 0.84, 0.83, 0.85, 0.86], [0.80, 0.81, 0.79, 0.80, 0.80])
        Significance(statistic=15.0, p=0.0625)
    """
    differences = _differences(first, second)
    moved = differences[differences != 0]
    if not len(moved):
        return Significance(0.0, 1.0)
    signed = float((np.sign(moved) * stats.rankdata(np.abs(moved))).sum())
    return Significance(signed, float(stats.wilcoxon(moved).pvalue))  # pyright: ignore[reportAttributeAccessIssue]


def bootstrap_interval(
    values: Sequence[float],
    statistic: Callable[..., Any] = np.median,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 10_000,
) -> Interval:
    """Percentile bootstrap interval of a statistic of independent values.

    Args:
        values: one a split, say.
        statistic: of an array along ``axis``.
        level: confidence, 0 to 1.
        seed: of the resampling.
        resamples: how many.

    Raises:
        ConfigError: the level is not between 0 and 1.
        DataError: fewer than two values, or some are not finite.

    Example:
        >>> bootstrap_interval([0.80, 0.81, 0.82, 0.83, 0.84])
        Interval(low=0.8, high=0.84)
    """
    _check_level(level)
    array = np.asarray(values, dtype=np.float64).ravel()
    if len(array) < 2 or not np.isfinite(array).all():
        raise DataError(f"{list(values)}: expected two or more finite values")
    generator = np.random.default_rng(seed)
    drawn = array[generator.integers(len(array), size=(resamples, len(array)))]
    return _interval(statistic(drawn, axis=1), level)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ConfigError(f"level={level}: expected a confidence, 0 < x < 1, such as 0.95")


def _resampled(
    scores: Sequence[Any],
    ranks: bool,
    seed: int,
    resamples: int,
    clusters: Sequence[Any] | None,
) -> NDArray[Any]:
    """Correlations with the first of the scores on pictures drawn with replacement.

    Returns:
        ``(len(scores) - 1, resamples)``; ``nan`` where one side is constant.
    """
    columns: list[Any] = _columns(*scores)
    if not ranks:
        columns = [stats.zscore(values) for values in columns]
    n = len(columns[0])
    labels, members = np.unique(
        np.arange(n) if clusters is None else np.asarray(clusters), return_inverse=True
    )
    if len(members) != n or len(labels) < 2:
        raise DataError(
            f"{len(labels)} clusters of {len(members)} pictures: expected two or more, and a label "
            f"for each of {n}"
        )
    k = len(labels)
    generator = np.random.default_rng(seed)
    most = max(1, 2**20 // n)  # in memory at once
    found = []
    for done in range(0, resamples, most):
        drawn = generator.integers(k, size=(min(most, resamples - done), k))
        # How often each picture was drawn, so that ranks need no further sorting.
        cells = drawn + k * np.arange(len(drawn))[:, None]
        counts = np.bincount(cells.ravel(), minlength=drawn.size).reshape(drawn.shape)[:, members]
        y, *others = (_ranks(values, counts) if ranks else values for values in columns)
        found.append([_weighted_r(y, x, counts) for x in others])
    return np.concatenate(found, axis=1)


def _interval(values: NDArray[Any], level: float) -> Interval:
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _columns(*scores: Any) -> list[NDArray[np.float64]]:
    """All of them as arrays (N,), the target first, or an error that says what is wrong."""
    columns = [np.asarray(values, dtype=np.float64).ravel() for values in scores]
    n = len(columns[0])
    if any(len(values) != n for values in columns) or n < 4:
        raise DataError(
            f"scores of {', '.join(str(len(c)) for c in columns)} pictures: expected as many of "
            "each method as of the target, 4 or more"
        )
    if any(not np.isfinite(values).all() or np.ptp(values) == 0 for values in columns):
        raise DataError("scores are constant or not finite: they have no correlation")
    return columns


def _compared(
    test: Callable[[int, float, float, float], Significance],
    target: Any,
    first: Any,
    second: Any,
    ranks: bool,
) -> Significance:
    """A test of two correlations with one target, of N, r_1, r_2 and r_12."""
    columns: Any = _columns(target, first, second)
    if ranks:
        columns = [stats.rankdata(values) for values in columns]
    matrix: Any = np.corrcoef(columns)
    r1, r2, r12 = float(matrix[0, 1]), float(matrix[0, 2]), float(matrix[1, 2])
    if r12 > SAME:  # one method, or two that cannot be told apart
        return Significance(0.0, 1.0)
    return test(len(columns[0]), r1, r2, r12)


def _ranks(values: NDArray[np.float64], counts: NDArray[np.intp]) -> NDArray[np.float64]:
    """Mean ranks of values (N,) that are there ``counts`` (R, N) times, (R, N)."""
    _, inverse = np.unique(values, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    starts = np.flatnonzero(np.diff(inverse[order], prepend=-1))
    equal = np.add.reduceat(counts[:, order], starts, axis=1)
    return (np.cumsum(equal, axis=1) - (equal - 1) / 2)[:, inverse]


def _weighted_r(
    x: NDArray[np.float64], y: NDArray[np.float64], counts: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Correlation of each row's pictures, (R,); ``nan`` where one side is constant.

    Args:
        x: ranks or standardised values, (N,) or (R, N).
        y: likewise.
        counts: how often each picture was drawn, (R, N).
    """
    n = counts.sum(1, keepdims=True)
    x = x - (counts * x).sum(1, keepdims=True) / n
    y = y - (counts * y).sum(1, keepdims=True) / n
    covariance, x_spread, y_spread = ((counts * a * b).sum(1) for a, b in ((x, y), (x, x), (y, y)))
    varies = np.minimum(x_spread, y_spread) > 1e-9  # less is rounding
    return covariance / np.sqrt(np.where(varies, x_spread * y_spread, np.nan))


def _differences(first: Sequence[float], second: Sequence[float]) -> NDArray[np.float64]:
    if len(first) != len(second) or len(first) < 2:
        raise DataError(
            f"figures of {len(first)} and {len(second)} splits: expected the same two or more"
        )
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    if not np.isfinite(differences).all():
        raise DataError("a figure is not finite: it cannot be compared")
    return differences
