from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from scipy import stats

from latentiqa.errors import ConfigError, DataError
from latentiqa.heads import RidgeHead
from latentiqa.heads.ridge import ALPHAS, ridge_path, ridge_solution
from latentiqa.heads.standardise import Standardise

SHAPES = [(60, 12), (20, 50), (30, 30)]


def problem(n: int, f: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of unequal scales and offsets, one of them constant, and noisy targets."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, f, generator=generator)
    y = torch.sigmoid(x[:, 0] - x[:, 1] + 0.3 * torch.randn(n, generator=generator))
    x = x * torch.logspace(-2, 2, f) + torch.linspace(-5, 5, f)
    x[:, 2] = 0.1
    return x, y


def brute_force(x: torch.Tensor, y: torch.Tensor, alpha: float, new: torch.Tensor) -> np.ndarray:
    """Scores by the normal equations with an unpenalised intercept, in float64 NumPy."""
    a, b, c = (t.double().numpy() for t in (x, y, new))
    mean, std = a.mean(0), a.std(0)
    std[2] = 1.0
    a, c = (a - mean) / std, (c - mean) / std
    w = np.linalg.solve(a.T @ a + alpha * np.eye(a.shape[1]), a.T @ (b - b.mean()))
    return c @ w + b.mean()


@pytest.mark.parametrize(("n", "f"), SHAPES)
@pytest.mark.parametrize("alpha", [0.05, 3.0, 1e4])
@pytest.mark.parametrize("refit", [False, True])
def test_scores_equal_the_normal_equations(n, f, alpha, refit):
    x, y = problem(n + 10, f)
    head = RidgeHead(alphas=[alpha], refit=refit)
    head.fit(x[:n], y[:n], x[n:], y[n:])
    last = n + 10 if refit else n
    expected = brute_force(x[:last], y[:last], alpha, x)
    assert head.predict(x).numpy() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("n", "f"), SHAPES)
def test_one_svd_gives_every_alpha(n, f):
    x, y = (t.double() for t in problem(n, f))
    path = ridge_path(x, y, ALPHAS)
    for column, alpha in zip(path.T, ALPHAS, strict=True):
        assert torch.allclose(column, ridge_solution(x, y, alpha), rtol=1e-6, atol=1e-9)


def test_alpha_is_that_of_the_best_validation_srcc():
    x, y = problem(50, 40)
    report = RidgeHead().fit(x[:30], y[:30], x[30:], y[30:])
    expected = [
        stats.spearmanr(brute_force(x[:30], y[:30], alpha, x[30:]), y[30:]).statistic
        for alpha in ALPHAS
    ]
    alphas, values = zip(*report["val_srcc_by_alpha"], strict=True)
    assert alphas == ALPHAS
    assert values == pytest.approx(expected, abs=1e-9)
    assert report["val_srcc"] == max(values)
    assert values[alphas.index(report["alpha"])] == max(values)
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_of_equals_the_larger_alpha_is_taken():
    x = torch.linspace(0, 1, 20)[:, None].repeat(1, 3)
    report = RidgeHead(alphas=[10, 0.1, 1]).fit(x[::2], x[::2, 0], x[1::2], x[1::2, 0])
    assert report["alpha"] == 10
    assert report["warning"].startswith("the best alpha, 10, is at the edge of the grid [0.1, 10]")


def test_there_is_no_warning_inside_the_grid_nor_for_a_single_alpha():
    x, y = problem(200, 40)
    y = y[torch.randperm(200, generator=torch.Generator().manual_seed(3))] * 0.5 + y * 0.5
    report = RidgeHead().fit(x[:100], y[:100], x[100:], y[100:])
    assert ALPHAS[0] < report["alpha"] < ALPHAS[-1]
    assert "warning" not in report
    assert "warning" not in RidgeHead([1.0]).fit(x[:100], y[:100], x[100:], y[100:])


def test_validation_only_chooses_without_refit():
    x, y = problem(40, 10)
    fits = []
    for y_val in (y[30:], y[30:].pow(3)):  # the same order, so the same alpha
        head = RidgeHead(refit=False)
        head.fit(x[:30], y[:30], x[30:], y_val)
        fits.append(head.predict(x))
    assert torch.equal(*fits)


def test_constant_columns_do_not_count():
    x, y = problem(40, 10)
    kept = [i for i in range(10) if i != 2]
    head, without = RidgeHead(), RidgeHead()
    head.fit(x[:30], y[:30], x[30:], y[30:])
    without.fit(x[:30][:, kept], y[:30], x[30:][:, kept], y[30:])
    assert torch.allclose(head.predict(x), without.predict(x[:, kept]), atol=1e-6)


def test_a_column_of_rounding_noise_is_constant():
    x = torch.full((30, 1), 1000.0) + torch.tensor([0.0, 6.1e-5]).repeat(15)[:, None]
    standardise = Standardise(1).fit(x)
    assert x.unique().numel() == 2
    assert standardise.scale.item() == 1.0
    assert standardise(x).abs().max() < 1e-4


def test_the_gradient_reaches_the_features():
    x, y = problem(40, 10)
    head = RidgeHead()
    head.fit(x[:30], y[:30], x[30:], y[30:])
    x = x.double().requires_grad_()
    (gradient,) = torch.autograd.grad(head.predict(x).sum(), x)
    expected = (head.weight / head.standardise.scale).expand(40, 10)
    assert torch.allclose(gradient, expected, rtol=1e-6)
    assert not head.predict(x.detach()).requires_grad


def test_autocast_does_not_change_scores():
    x, y = problem(40, 10)
    plain, under = RidgeHead(), RidgeHead()
    plain.fit(x[:30], y[:30], x[30:], y[30:])
    with torch.autocast("cpu", torch.bfloat16):
        under.fit(x[:30], y[:30], x[30:], y[30:])
        scores = under.predict(x)
    assert torch.equal(scores, plain.predict(x))
    assert scores.dtype == torch.float32


def test_the_logger_gets_the_curve():
    x, y = problem(40, 10)
    rows = []
    logger = SimpleNamespace(log_metrics=lambda metrics, step: rows.append((step, metrics)))
    report = RidgeHead(alphas=[1, 10]).fit(x[:30], y[:30], x[30:], y[30:], logger=logger)
    assert [[row["ridge/alpha"], row["val/srcc"]] for _, row in rows] == report["val_srcc_by_alpha"]
    assert [step for step, _ in rows] == [0, 1]


@pytest.mark.parametrize("alphas", [[], [0.0, 1.0], [-1.0], [float("inf")], [1.0, float("nan")]])
def test_bad_alphas_are_refused(alphas):
    with pytest.raises(ConfigError, match="alphas="):
        RidgeHead(alphas=alphas)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d | {"x": d["x"][:, :5]}, "5 features an image, validation 10"),
        (lambda d: d | {"y": d["y"][:-1]}, r"training .* targets \(29,\)"),
        (lambda d: d | {"x_val": d["x_val"][:2], "y_val": d["y_val"][:2]}, "2 validation images"),
        (lambda d: d | {"y_val": d["y_val"] / 0}, "validation targets of 10 of 10"),
        (lambda d: d | {"x": d["x"].index_fill(0, torch.tensor([4]), torch.nan)}, "of 1 of 30"),
        (lambda d: d | {"y_val": torch.ones(10)}, "validation SRCC is undefined"),
        (lambda d: d | {"x": torch.ones(30, 10)}, "validation SRCC is undefined"),
    ],
)
def test_bad_data_is_named(change, message):
    x, y = problem(40, 10)
    data = change({"x": x[:30], "y": y[:30], "x_val": x[30:], "y_val": y[30:]})
    with pytest.raises(DataError, match=message):
        RidgeHead().fit(**data)


def test_predict_says_what_it_expects():
    x, y = problem(40, 10)
    head = RidgeHead()
    with pytest.raises(DataError, match="not fitted"):
        head.predict(x)
    head.fit(x[:30], y[:30], x[30:], y[30:])
    with pytest.raises(DataError, match=r"shape \(40, 9\): expected \(N, 10\)"):
        head.predict(x[:, 1:])


def test_the_config_makes_the_default_head(pytestconfig):
    head = instantiate(OmegaConf.load(pytestconfig.rootpath / "conf/head/ridge.yaml"))
    assert isinstance(head, RidgeHead)
    assert head.arguments == RidgeHead().arguments
