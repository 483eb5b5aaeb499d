"""Agreement of predicted scores with human scores, as pure functions in float64.

Every function takes two 1-D tensors, arrays or sequences of equal length and returns a plain float.
A correlation keeps its sign: predictions that run the wrong way score below zero. If either input
is constant the correlations are undefined and come back as ``nan``, as in SciPy.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from latentiqa.errors import DataError

MAX_EVALUATIONS = 100_000
"""Function evaluations after which the logistic fit is given up."""


def srcc(pred: Any, target: Any) -> float:
    """Spearman's rank-order correlation coefficient; ties share their mean rank.

    Args:
        pred: (N,) predicted scores, N >= 3.
        target: (N,) human scores on any scale, higher is better.

    Returns:
        A value in [-1, 1], ``nan`` if either input is constant.

    Raises:
        DataError: the lengths differ, N < 3, or a value is not finite.

    Example:
        >>> round(srcc([0.1, 0.2, 0.9, 0.8], [1.0, 2.0, 3.0, 4.0]), 4)
        0.8
    """
    pred, target = _checked(pred, target, minimum=3)
    if _is_constant(pred) or _is_constant(target):
        return math.nan
    return float(stats.spearmanr(pred, target).statistic)  # pyright: ignore[reportAttributeAccessIssue]


def krcc(pred: Any, target: Any) -> float:
    """Kendall's rank correlation coefficient, the tau-b that corrects for ties.

    Args:
        pred: (N,) predicted scores, N >= 3.
        target: (N,) human scores on any scale, higher is better.

    Returns:
        A value in [-1, 1], ``nan`` if either input is constant.

    Raises:
        DataError: the lengths differ, N < 3, or a value is not finite.

    Example:
        >>> round(krcc([0.1, 0.2, 0.9, 0.8], [1.0, 2.0, 3.0, 4.0]), 4)
        0.6667
    """
    pred, target = _checked(pred, target, minimum=3)
    if _is_constant(pred) or _is_constant(target):
        return math.nan
    return float(stats.kendalltau(pred, target).statistic)  # pyright: ignore[reportAttributeAccessIssue]


def plcc(pred: Any, target: Any) -> float:
    """Pearson's linear correlation coefficient of the raw predictions.

    Args:
        pred: (N,) predicted scores, N >= 3.
        target: (N,) human scores on any scale, higher is better.

    Returns:
        A value in [-1, 1], ``nan`` if either input is constant.

    Raises:
        DataError: the lengths differ, N < 3, or a value is not finite.

    Example:
        >>> round(plcc([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]), 6)
        -1.0
    """
    pred, target = _checked(pred, target, minimum=3)
    if _is_constant(pred) or _is_constant(target):
        return math.nan
    return float(stats.pearsonr(pred, target).statistic)  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True, eq=False)
class LogisticFit:
    """Predictions mapped to the scale of the human scores.

    Attributes:
        beta: the four parameters of the logistic, all ``nan`` where the fit failed.
        fit_ok: whether `mapped` is the logistic; if not, it is the least-squares line.
        mapped: (N,) float64 mapped predictions.

    Example:
        >>> logistic_fit([0.0, 0.5, 1.0], [1.0, 2.0, 3.0]).mapped.round(6).tolist()
        [1.0, 2.0, 3.0]
    """

    beta: tuple[float, float, float, float]
    fit_ok: bool
    mapped: np.ndarray


def logistic_fit(pred: Any, mos: Any) -> LogisticFit:
    """Map predictions to human scores by the 4-parameter logistic of the VQEG reports.

    f(p) = (b1 - b2) / (1 + exp(-(p - b3) / |b4|)) + b2, by least squares from
    p0 = [max(mos), min(mos), mean(pred), std(pred)]. Where it cannot be fitted (no convergence,
    fewer than four pairs, constant input, a flat curve) a line is fitted instead and `fit_ok` is
    False.

    Args:
        pred: (N,) predicted scores, N >= 3.
        mos: (N,) human scores on any scale, higher is better.

    Raises:
        DataError: the lengths differ, N < 3, or a value is not finite.

    Example:
        >>> pred = np.linspace(-1, 1, 50)
        >>> mos = 4.0 / (1 + np.exp(-(pred - 0.1) / 0.3)) + 1.0
        >>> [round(b, 3) for b in logistic_fit(pred, mos).beta]
        [5.0, 1.0, 0.1, 0.3]
    """
    pred, mos = _checked(pred, mos, minimum=3)
    if len(pred) < 4 or _is_constant(pred) or _is_constant(mos):
        return _linear_fit(pred, mos)
    start = [mos.max(), mos.min(), pred.mean(), pred.std()]
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            # The covariance of beta, which SciPy may be unable to estimate, is not used.
            warnings.simplefilter("ignore", optimize.OptimizeWarning)
            beta, _ = optimize.curve_fit(
                _logistic, pred, mos, p0=start, jac=_logistic_jacobian, maxfev=MAX_EVALUATIONS
            )
            mapped = _logistic(pred, *beta)
    except RuntimeError:  # SciPy's word for "did not converge"
        return _linear_fit(pred, mos)
    if not np.isfinite(mapped).all() or _is_constant(mapped):
        return _linear_fit(pred, mos)
    b1, b2, b3, b4 = (float(b) for b in beta)
    return LogisticFit(beta=(b1, b2, b3, abs(b4)), fit_ok=True, mapped=mapped)


def plcc_logistic(pred: Any, mos: Any) -> float:
    """Pearson's correlation after `logistic_fit`, as most IQA papers report it.

    A least-squares map may decrease, so this number does not show predictions that run the wrong
    way; `srcc`, `krcc` and `plcc` do.

    Args:
        pred: (N,) predicted scores, N >= 3.
        mos: (N,) human scores on any scale, higher is better.

    Returns:
        A value in [-1, 1], ``nan`` if either input is constant.

    Raises:
        DataError: the lengths differ, N < 3, or a value is not finite.

    Example:
        >>> pred = np.linspace(-1, 1, 50)
        >>> round(plcc_logistic(pred, np.tanh(5 * pred)), 6)
        1.0
    """
    return plcc(logistic_fit(pred, mos).mapped, mos)


def rmse(pred: Any, target: Any) -> float:
    """Root mean squared error, without any fit.

    Args:
        pred: (N,) predicted scores on the target's scale, N >= 1.
        target: (N,) human scores mapped to [0, 1].

    Raises:
        DataError: the lengths differ, N < 1, or a value is not finite.

    Example:
        >>> rmse([0.0, 1.0, 0.5, 0.5], [0.5, 0.5, 0.0, 1.0])
        0.5
    """
    pred, target = _checked(pred, target, minimum=1)
    return float(np.sqrt(np.mean((pred - target) ** 2)))


def correlations(pred: Any, target: Any) -> dict[str, float | int | bool]:
    """All numbers that a results file holds for one test set.

    Args:
        pred: (N,) predicted scores, N >= 3.
        target: (N,) human scores mapped to [0, 1], higher is better.

    Returns:
        ``srcc``, ``krcc``, ``plcc``, ``plcc_logistic``, ``rmse``, the number of pairs ``n``, and
        ``fit_ok``: whether ``plcc_logistic`` is that of a logistic and not of a line.

    Raises:
        DataError: the lengths differ, N < 3, or a value is not finite.

    Example:
        >>> values = correlations([0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.4, 0.3])
        >>> round(values["srcc"], 4), values["n"]
        (0.8, 4)
    """
    fit = logistic_fit(pred, target)
    return {
        "srcc": srcc(pred, target),
        "krcc": krcc(pred, target),
        "plcc": plcc(pred, target),
        "plcc_logistic": plcc(fit.mapped, target),
        "rmse": rmse(pred, target),
        "n": len(fit.mapped),
        "fit_ok": fit.fit_ok,
    }


def _logistic(p: np.ndarray, b1: float, b2: float, b3: float, b4: float) -> np.ndarray:
    """Equation of `logistic_fit`; `expit` because ``exp`` overflows where the curve is steep."""
    return (b1 - b2) * special.expit((p - b3) / abs(b4)) + b2


def _logistic_jacobian(p: np.ndarray, b1: float, b2: float, b3: float, b4: float) -> np.ndarray:
    """Derivatives of `_logistic`, (N, 4).

    SciPy's own differences step in proportion to a parameter: b3 starts at the mean prediction and
    would never move where that is next to zero, as it is for standardised predictions.
    """
    rise = special.expit((p - b3) / abs(b4))
    slope = (b1 - b2) * rise * (1 - rise) / abs(b4)
    return np.stack([rise, 1 - rise, -slope, -slope * (p - b3) / b4], axis=1)


def _linear_fit(pred: np.ndarray, mos: np.ndarray) -> LogisticFit:
    """Least-squares line; through the mean of `mos` where `pred` does not vary."""
    centred = pred - pred.mean()
    slope = 0.0 if _is_constant(pred) else centred @ (mos - mos.mean()) / (centred @ centred)
    beta = (math.nan, math.nan, math.nan, math.nan)
    return LogisticFit(beta, fit_ok=False, mapped=slope * centred + mos.mean())


def _is_constant(values: np.ndarray) -> bool:
    return bool((values == values[0]).all())


def _checked(pred: Any, target: Any, *, minimum: int) -> tuple[np.ndarray, np.ndarray]:
    """Both inputs as float64 arrays (N,), or a `DataError` that says what is wrong with them."""
    pred, target = _float64(pred), _float64(target)
    for name, values in (("pred", pred), ("target", target)):
        if values.ndim != 1:
            raise DataError(f"{name} has shape {values.shape}: expected (N,), one score an image")
        if bad := int((~np.isfinite(values)).sum()):
            raise DataError(
                f"{name} holds {bad} of {len(values)} values that are not finite: "
                "drop these images or find out why their score is missing"
            )
    if len(pred) != len(target):
        raise DataError(f"{len(pred)} predictions for {len(target)} targets: expected one each")
    if len(pred) < minimum:
        raise DataError(f"{len(pred)} pairs: expected at least {minimum}, rate more images")
    return pred, target


def _float64(values: Any) -> np.ndarray:
    # Tensors are known by their methods, so that tables can be made without importing torch.
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)
