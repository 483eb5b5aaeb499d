from __future__ import annotations

import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from scipy import stats

from latentiqa.errors import DataError
from latentiqa.metrics import (
    correlations,
    functional,
    krcc,
    logistic_fit,
    plcc,
    plcc_logistic,
    rmse,
    srcc,
)

CORRELATIONS = [srcc, krcc, plcc, plcc_logistic]


def tied_pairs(seed: int, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    pred = rng.normal(size=n)
    return pred.round(1), (pred + rng.normal(size=n)).round(1)


def logistic(p: np.ndarray, b1: float, b2: float, b3: float, b4: float) -> np.ndarray:
    return (b1 - b2) / (1 + np.exp(-(p - b3) / abs(b4))) + b2


def average_ranks(values: np.ndarray) -> np.ndarray:
    """By counting: a reference that shares nothing with SciPy's ranking."""
    below = (values[None] < values[:, None]).sum(1)
    equal = (values[None] == values[:, None]).sum(1)
    return below + (equal + 1) / 2


@pytest.mark.parametrize("seed", range(3))
def test_correlations_agree_with_scipy_and_with_counting(seed):
    pred, target = tied_pairs(seed)
    sign = np.sign(pred[None] - pred[:, None]) * np.sign(target[None] - target[:, None])
    untied = [(np.subtract.outer(v, v) != 0).sum() for v in (pred, target)]
    assert srcc(pred, target) == pytest.approx(stats.spearmanr(pred, target).statistic, abs=1e-12)
    assert srcc(pred, target) == pytest.approx(
        np.corrcoef(average_ranks(pred), average_ranks(target))[0, 1], abs=1e-12
    )
    assert krcc(pred, target) == pytest.approx(stats.kendalltau(pred, target).statistic, abs=1e-12)
    assert krcc(pred, target) == pytest.approx(sign.sum() / math.sqrt(math.prod(untied)), abs=1e-12)
    assert plcc(pred, target) == pytest.approx(np.corrcoef(pred, target)[0, 1], abs=1e-12)
    assert rmse(pred, target) == pytest.approx(
        np.linalg.norm(pred - target) / math.sqrt(len(pred)), abs=1e-12
    )


@pytest.mark.parametrize("metric", [srcc, krcc, plcc])
def test_the_sign_is_kept(metric):
    pred, target = tied_pairs(0)
    assert metric(pred, target) > 0.3
    assert metric(-pred, target) == pytest.approx(-metric(pred, target), abs=1e-12)


@pytest.mark.parametrize("metric", [*CORRELATIONS, rmse])
def test_tensors_arrays_and_lists_give_the_same_float(metric):
    pred, target = tied_pairs(1, n=30)
    expected = metric(pred, target)
    tensor = torch.tensor(pred, requires_grad=True)
    assert metric(tensor, torch.tensor(target)) == expected
    assert metric(pred.tolist(), target.tolist()) == expected
    assert type(expected) is float


def test_bfloat16_tensors_are_taken():
    values = torch.tensor([0.5, 0.25, 1.0], dtype=torch.bfloat16)
    assert srcc(values, [2.0, 1.0, 3.0]) == pytest.approx(1.0)


@pytest.mark.parametrize("metric", CORRELATIONS)
def test_constant_input_is_nan_without_a_warning(metric):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(metric([0.5] * 5, [1.0, 2.0, 3.0, 4.0, 5.0]))
        assert math.isnan(metric([1.0, 2.0, 3.0, 4.0, 5.0], [0.5] * 5))


@pytest.mark.parametrize("metric", [*CORRELATIONS, rmse, correlations])
@pytest.mark.parametrize(
    ("pred", "target", "message"),
    [
        ([1.0, math.nan, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0], "pred holds 1 of 4"),
        ([1.0, 2.0, 3.0, 4.0], [1.0, math.inf, -math.inf, 4.0], "target holds 2 of 4"),
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0], "3 predictions for 4 targets"),
        ([[1.0], [2.0], [3.0]], [1.0, 2.0, 3.0], r"pred has shape \(3, 1\)"),
        ([], [], "0 pairs"),
    ],
)
def test_bad_input_is_named(metric, pred, target, message):
    with pytest.raises(DataError, match=message):
        metric(pred, target)


@pytest.mark.parametrize("metric", [*CORRELATIONS, correlations])
def test_two_pairs_are_too_few_for_a_correlation(metric):
    with pytest.raises(DataError, match="2 pairs: expected at least 3"):
        metric([1.0, 2.0], [1.0, 2.0])


@pytest.mark.parametrize(
    "beta",
    # The third centres the predictions on zero up to rounding, where SciPy's numeric Jacobian
    # leaves beta3 at its start.
    [(80.0, 10.0, 0.3, 0.2), (1.0, 0.0, -2.0, 0.7), (5.0, 1.0, 0.1, 0.3), (4.0, 1.0, 40.0, 15.0)],
)
def test_logistic_fit_recovers_a_known_curve(beta):
    pred = np.linspace(-1, 1, 50) if beta[2] == 0.1 else beta[2] + 3 * beta[3] * np.linspace(-1, 1)
    fit = logistic_fit(pred, logistic(pred, *beta))
    assert fit.fit_ok
    assert fit.beta == pytest.approx(beta, rel=1e-5)
    assert fit.mapped == pytest.approx(logistic(pred, *beta), rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_logistic_fit_is_a_least_squares_optimum(seed):
    rng = np.random.default_rng(seed)
    pred = rng.normal(size=300)
    mos = logistic(pred, 90, 20, 0.2, 0.6) + rng.normal(scale=5, size=300)
    fit = logistic_fit(pred, mos)

    def error(beta):
        return ((logistic(pred, *beta) - mos) ** 2).sum()

    for i in range(4):
        for factor in (0.99, 1.01):
            moved = [b * factor if k == i else b for k, b in enumerate(fit.beta)]
            assert error(moved) > error(fit.beta)


def test_the_jacobian_is_the_derivative():
    p, beta, step = np.linspace(-2, 2, 9), np.array([5.0, 1.0, 0.3, -0.4]), 1e-6
    numeric = [
        (functional._logistic(p, *(beta + d)) - functional._logistic(p, *(beta - d))) / (2 * step)
        for d in step * np.eye(4)
    ]
    assert functional._logistic_jacobian(p, *beta) == pytest.approx(np.stack(numeric, 1), abs=1e-7)


def test_a_fit_that_does_not_converge_falls_back_to_the_line(monkeypatch):
    pred, mos = tied_pairs(2)
    assert logistic_fit(pred, mos).fit_ok
    monkeypatch.setattr(functional, "MAX_EVALUATIONS", 2)
    fit = logistic_fit(pred, mos)
    assert not fit.fit_ok
    assert all(math.isnan(b) for b in fit.beta)
    assert fit.mapped == pytest.approx(np.polyval(np.polyfit(pred, mos, 1), pred))
    assert plcc_logistic(pred, mos) == pytest.approx(plcc(pred, mos))
    assert correlations(pred, mos)["fit_ok"] is False


@pytest.mark.parametrize(
    ("pred", "mos"),
    [
        ([0.0, 0.3, 1.0], [1.0, 2.0, 2.5]),
        ([0.5] * 4, [1.0, 2.0, 3.0, 5.0]),
        ([1.0, 2.0, 3.0, 4.0], [2.0] * 4),
    ],
    ids=["three pairs", "constant pred", "constant mos"],
)
def test_what_a_logistic_cannot_fit_is_fitted_by_a_line(pred, mos):
    fit = logistic_fit(pred, mos)
    assert not fit.fit_ok
    slope, intercept = (0, np.mean(mos)) if len(set(pred)) == 1 else np.polyfit(pred, mos, 1)
    assert fit.mapped == pytest.approx(slope * np.array(pred) + intercept)


def test_steep_curves_do_not_overflow():
    pred = np.concatenate([np.linspace(0, 1, 20), np.linspace(1e4, 1e4 + 1, 20)])
    mos = np.repeat([0.0, 1.0], 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plcc_logistic(pred, mos) == pytest.approx(1.0, abs=1e-6)


def test_correlations_has_all_of_a_results_file():
    pred, target = tied_pairs(3)
    values = correlations(pred, target)
    assert values == {
        "srcc": srcc(pred, target),
        "krcc": krcc(pred, target),
        "plcc": plcc(pred, target),
        "plcc_logistic": plcc_logistic(pred, target),
        "rmse": rmse(pred, target),
        "n": 200,
        "fit_ok": True,
    }
    assert [type(v) for v in values.values()] == [float] * 5 + [int, bool]


def test_importing_the_formulas_does_not_import_torch():
    code = "import sys, latentiqa.metrics; print({'torch', 'torchmetrics'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
