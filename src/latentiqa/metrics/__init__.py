"""How well scores follow human opinion: SRCC, KRCC, PLCC (raw and after a logistic), RMSE.

`functional` holds the formulas and needs only NumPy and SciPy; the torchmetrics classes over them
are in `latentiqa.metrics.classes`, imported by those who train.
"""

from __future__ import annotations

from latentiqa.metrics.functional import (
    LogisticFit,
    correlations,
    krcc,
    logistic_fit,
    plcc,
    plcc_logistic,
    rmse,
    srcc,
)

__all__ = [
    "LogisticFit",
    "correlations",
    "krcc",
    "logistic_fit",
    "plcc",
    "plcc_logistic",
    "rmse",
    "srcc",
]
