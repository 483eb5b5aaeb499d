from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from latentiqa.errors import ConfigError, DataError
from latentiqa.metrics.comparison import (
    bootstrap_correlation,
    bootstrap_difference,
    bootstrap_interval,
    corrected_t,
    steiger,
    wilcoxon,
    williams,
)


def drawn(rng, n: int, r1: float, r2: float, r12: float) -> np.ndarray:
    """Target, first and second of normal distribution with these correlations, (3, n)."""
    covariance = [[1, r1, r2], [r1, 1, r12], [r2, r12, 1]]
    return rng.multivariate_normal(np.zeros(3), covariance, n).T


def exactly(rng, n: int, r1: float, r2: float, r12: float) -> np.ndarray:
    """The same, where these are the correlations of the sample."""
    free = stats.zscore(rng.normal(size=(3, n)), axis=1)
    white = np.linalg.solve(np.linalg.cholesky(np.cov(free)), free)
    return np.linalg.cholesky([[1, r1, r2], [r1, 1, r12], [r2, r12, 1]]) @ white


@pytest.mark.parametrize("ranks", [False, True])
@pytest.mark.parametrize("test", [williams, steiger])
def test_a_difference_is_found_as_often_as_p_says_where_there_is_none(test, ranks):
    rng = np.random.default_rng(0)
    p = [test(*drawn(rng, 100, 0.6, 0.6, 0.7), ranks=ranks).p for _ in range(2000)]
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(p) < level) == pytest.approx(level, abs=0.035)


def test_williams_is_the_published_formula_and_knows_the_direction():
    rng = np.random.default_rng(1)
    y, a, b = drawn(rng, 60, 0.8, 0.6, 0.5)
    r1, r2, r12 = stats.pearsonr(y, a)[0], stats.pearsonr(y, b)[0], stats.pearsonr(a, b)[0]
    determinant = np.linalg.det([[1, r1, r2], [r1, 1, r12], [r2, r12, 1]])
    rbar = (r1 + r2) / 2
    t = (r1 - r2) * math.sqrt(
        59 * (1 + r12) / (2 * 59 / 57 * determinant + rbar**2 * (1 - r12) ** 3)
    )
    found = williams(y, a, b, ranks=False)
    assert found.statistic == pytest.approx(t)
    assert found.p == pytest.approx(2 * stats.t.sf(t, 57))
    turned = williams(y, b, a, ranks=False)
    assert turned.statistic == pytest.approx(-t)
    assert turned.p == pytest.approx(found.p)
    assert williams(y, a, a).p == 1


@pytest.mark.parametrize(
    ("n", "r1", "r2", "r12", "t", "z"),
    [
        # What the R package cocor (Diedenhofen and Musch, PLoS ONE 10(4), 2015) prints of three
        # published comparisons, whose correlations it rounds to four digits.
        (646, -0.1741, 0.2015, 0.3734, -9.0340, -8.6124),
        (553, 0.0228, 0.3522, 0.3718, None, -7.1345),
        (553, 0.2493, 0.3395, 0.4082, None, -2.0660),
    ],
)
def test_both_tests_are_those_of_cocor(n, r1, r2, r12, t, z):
    scores = exactly(np.random.default_rng(6), n, r1, r2, r12)
    found = steiger(*scores, ranks=False)
    assert found.statistic == pytest.approx(z, abs=2e-3)
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(z)), rel=0.02)
    if t is not None:
        assert williams(*scores, ranks=False).statistic == pytest.approx(t, abs=2e-3)


def test_steiger_is_the_published_formula_and_knows_the_direction():
    rng = np.random.default_rng(1)
    y, a, b = exactly(rng, 60, 0.8, 0.6, 0.5)
    rbar = 0.7
    psi = 0.5 * (1 - 2 * rbar**2) - rbar**2 * (1 - 2 * rbar**2 - 0.5**2) / 2
    s = psi / (1 - rbar**2) ** 2
    z = (math.atanh(0.8) - math.atanh(0.6)) * math.sqrt(57 / (2 - 2 * s))
    assert steiger(y, a, b, ranks=False) == pytest.approx((z, 2 * stats.norm.sf(z)))
    assert steiger(y, b, a, ranks=False).statistic == pytest.approx(-z)
    assert steiger(y, a, a) == (0, 1)
    assert steiger(y, y, b) == (math.inf, 0)


@pytest.mark.parametrize("ranks", [False, True])
def test_the_bootstrap_of_a_difference_is_that_of_every_resample(ranks):
    """With ties among the scores and, of the resamples, among the pictures."""
    y, a, b = drawn(np.random.default_rng(7), 30, 0.7, 0.5, 0.4).round(1)
    found = bootstrap_difference(y, a, b, ranks=ranks, seed=3, resamples=300)
    r = stats.spearmanr if ranks else stats.pearsonr
    rows = np.random.default_rng(3).integers(30, size=(300, 30))
    differences = [r(y[i], a[i])[0] - r(y[i], b[i])[0] for i in rows]
    assert found == pytest.approx(np.quantile(differences, [0.025, 0.975]))


def test_the_bootstrap_of_a_difference_of_means_is_that_of_every_resample():
    y, a, b = drawn(np.random.default_rng(7), 30, 0.7, 0.5, 0.4)
    c, d = np.random.default_rng(8).standard_normal((2, 30)) + y
    found = bootstrap_difference(y, [a, c], [b, d, c], seed=3, resamples=300)
    r = stats.spearmanr
    rows = np.random.default_rng(3).integers(30, size=(300, 30))
    means = [[np.mean([r(y[i], x[i])[0] for x in s]) for i in rows] for s in ([a, c], [b, d, c])]
    assert found == pytest.approx(np.quantile(np.subtract(*means), [0.025, 0.975]))


@pytest.mark.parametrize("ranks", [False, True])
def test_the_bootstrap_of_a_correlation_is_of_the_mean_over_a_methods_scores(ranks):
    y, a, b = drawn(np.random.default_rng(7), 30, 0.7, 0.5, 0.4).round(1)
    found = bootstrap_correlation(y, a, b, ranks=ranks, seed=3, resamples=300)
    r = stats.spearmanr if ranks else stats.pearsonr
    rows = np.random.default_rng(3).integers(30, size=(300, 30))
    means = [(r(y[i], a[i])[0] + r(y[i], b[i])[0]) / 2 for i in rows]
    assert found == pytest.approx(np.quantile(means, [0.025, 0.975]))


@pytest.mark.parametrize("ranks", [False, True])
def test_clusters_are_drawn_whole(ranks):
    """Of unequal sizes, so that resamples are, too."""
    y, a, b = drawn(np.random.default_rng(7), 30, 0.7, 0.5, 0.4).round(1)
    originals = ["x.png"] * 3 + ["y.png"] * 11 + ["z.png"] * 4 + ["w.png"] * 12
    r = stats.spearmanr if ranks else stats.pearsonr
    members = [np.flatnonzero(np.array(originals) == name) for name in sorted(set(originals))]
    rows = [
        np.concatenate([members[c] for c in row])
        for row in np.random.default_rng(3).integers(4, size=(300, 4))
    ]
    options = {"ranks": ranks, "seed": 3, "resamples": 300, "clusters": originals}
    found = bootstrap_difference(y, a, b, **options)
    differences = [r(y[i], a[i])[0] - r(y[i], b[i])[0] for i in rows]
    assert found == pytest.approx(np.quantile(differences, [0.025, 0.975]))
    found = bootstrap_correlation(y, a, **options)
    assert found == pytest.approx(np.quantile([r(y[i], a[i])[0] for i in rows], [0.025, 0.975]))
    for wrong in (["x.png"] * 30, originals[:-1]):
        with pytest.raises(DataError, match=r"clusters of \d+ pictures: expected two"):
            bootstrap_correlation(y, a, clusters=wrong)


def test_the_bootstrap_of_a_difference_leaves_constant_resamples_out():
    y, a, b = [1.0, 2.0, 3.0, 4.0], [0.1, 0.1, 0.1, 0.7], [4.0, 3.0, 2.0, 1.0]
    for ranks in (False, True):
        low, high = bootstrap_difference(y, a, b, ranks=ranks)
        assert 0 < low < high <= 2


def test_williams_agrees_with_a_permutation_of_the_methods():
    """Where both are equally good, exchanging their standardised scores changes nothing."""
    rng = np.random.default_rng(2)
    y, a, b = (stats.zscore(x) for x in drawn(rng, 80, 0.75, 0.6, 0.6))
    swap = rng.random((20000, 80)) < 0.5
    swap[0] = False
    first, second = np.where(swap, b, a), np.where(swap, a, b)
    moved = [(stats.zscore(x, axis=1) * y).mean(1) for x in (first, second)]
    differences = np.abs(moved[0] - moved[1])
    expected = np.mean(differences >= differences[0])
    assert williams(y, a, b, ranks=False).p == pytest.approx(expected, abs=0.02)


def test_the_corrected_t_is_the_plain_one_where_the_test_part_is_tiny():
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.8, 0.02, 10), rng.normal(0.79, 0.02, 10)
    plain = stats.ttest_rel(a, b)
    almost = corrected_t(a, b, test_share=1e-12)
    assert almost == pytest.approx((plain.statistic, plain.pvalue))
    corrected = corrected_t(a, b, test_share=0.2)
    assert corrected.statistic == pytest.approx(plain.statistic * math.sqrt(0.1 / (0.1 + 0.25)))
    assert corrected.p > almost.p
    assert corrected_t([0.8, 0.8], [0.8, 0.8]) == (0, 1)
    assert corrected_t([0.5, 0.75], [0.25, 0.5]) == (math.inf, 0)


def test_wilcoxon_is_scipys():
    rng = np.random.default_rng(4)
    a, b = rng.normal(0.8, 0.02, 12), rng.normal(0.79, 0.02, 12)
    assert wilcoxon(a, b).p == pytest.approx(stats.wilcoxon(a, b).pvalue)
    assert wilcoxon(a, b).statistic == -wilcoxon(b, a).statistic
    assert wilcoxon([0.5, 0.6], [0.5, 0.6]) == (0, 1)


def test_the_bootstrap_interval_is_scipys_and_repeats():
    values = np.random.default_rng(5).normal(0.8, 0.02, 40)
    ours = bootstrap_interval(values, np.mean)
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=5e-4)
    assert bootstrap_interval(values, np.mean) == ours


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: williams([1, 2, 3], [1, 2, 3], [1, 2, 3]), DataError),
        (lambda: williams([1, 2, 3, 4], [1, 2, 3], [1, 2, 3, 4]), DataError),
        (lambda: williams([1, 2, 3, 4], [1, 1, 1, 1], [1, 2, 3, 4]), DataError),
        (lambda: williams([1, 2, 3, 4], [1, 2, math.nan, 4], [1, 2, 3, 4]), DataError),
        (lambda: steiger([1, 2, 3], [1, 2, 3], [1, 2, 3]), DataError),
        (lambda: bootstrap_difference([1, 2, 3, 4], [1, 2, 3, 4], [2, 2, 2, 2]), DataError),
        (
            lambda: bootstrap_difference([1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 4, 3], level=95),
            ConfigError,
        ),
        (lambda: bootstrap_correlation([1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3]), DataError),
        (lambda: bootstrap_correlation([1, 2, 3, 4], [1, 2, 3, 4], level=95), ConfigError),
        (lambda: corrected_t([0.5], [0.5]), DataError),
        (lambda: corrected_t([0.5, math.nan], [0.5, 0.4]), DataError),
        (lambda: corrected_t([0.5, 0.4], [0.5, 0.4], test_share=1.0), ConfigError),
        (lambda: wilcoxon([0.5, 0.4], [0.5]), DataError),
        (lambda: bootstrap_interval([0.5]), DataError),
        (lambda: bootstrap_interval([0.5, 0.6], level=95), ConfigError),
    ],
)
def test_what_cannot_be_compared_is_refused(call, error):
    with pytest.raises(error, match=r"expected|no correlation|not finite"):
        call()
