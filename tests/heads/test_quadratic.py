from __future__ import annotations

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from scipy import stats

from latentiqa.errors import ConfigError
from latentiqa.heads import QuadraticRidgeHead, RidgeHead
from latentiqa.heads.quadratic import LIMIT, dual_path, kernel, leading_eigenpairs

SHAPES = [(60, 6), (20, 30)]


def problem(n: int, f: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of unequal scales and offsets, and targets that hold a product of two of them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, f, generator=generator)
    y = torch.sigmoid(x[:, 0] * x[:, 1] + x[:, 2] + 0.3 * torch.randn(n, generator=generator))
    return x * torch.logspace(-2, 2, f) + torch.linspace(-5, 5, f), y


def brute_force(x: torch.Tensor, y: torch.Tensor, alpha: float, new: torch.Tensor) -> np.ndarray:
    """Ridge on the constant, the features and all their products, in float64 NumPy."""
    a, b, c = (t.double().numpy() for t in (x, y, new))
    mean, std = a.mean(0), a.std(0)

    def monomials(rows):
        z = (rows - mean) / std
        f = z.shape[1]
        products = (z[:, :, None] * z[:, None, :]).reshape(len(z), -1)
        return np.concatenate([np.ones((len(z), 1)), (2 / f) ** 0.5 * z, products / f], 1)

    phi = monomials(a)
    w = np.linalg.solve(phi.T @ phi + alpha * np.eye(phi.shape[1]), phi.T @ (b - b.mean()))
    return monomials(c) @ w + b.mean()


@pytest.mark.parametrize(("n", "f"), SHAPES)
@pytest.mark.parametrize("alpha", [0.05, 3.0])
@pytest.mark.parametrize("refit", [False, True])
def test_scores_equal_ridge_on_all_products(n, f, alpha, refit):
    x, y = problem(n + 10, f)
    head = QuadraticRidgeHead(alphas=[alpha], refit=refit, rank=f)
    report = head.fit(x[:n], y[:n], x[n:], y[n:])
    last = n + 10 if refit else n
    expected = brute_force(x[:last], y[:last], alpha, x)
    assert head.predict(x).numpy() == pytest.approx(expected, abs=1e-5)
    assert report["rank_error"] < 1e-6


def test_alpha_is_that_of_the_best_validation_srcc():
    x, y = problem(80, 8)
    head = QuadraticRidgeHead()
    report = head.fit(x[:50], y[:50], x[50:], y[50:])
    expected = [
        stats.spearmanr(brute_force(x[:50], y[:50], alpha, x[50:]), y[50:]).statistic
        for alpha in head.alphas
    ]
    assert [v for _, v in report["val_srcc_by_alpha"]] == pytest.approx(expected, abs=1e-9)
    assert report["val_srcc"] == pytest.approx(max(expected))
    linear = RidgeHead().fit(x[:50], y[:50], x[50:], y[50:])
    assert report["val_srcc"] > linear["val_srcc"] + 0.1  # a product is what a line cannot see


def test_a_low_rank_keeps_the_best_of_that_rank_and_says_what_it_leaves_out():
    x, y = problem(60, 12)
    full = QuadraticRidgeHead([0.1], refit=False, rank=12)
    full.fit(x[:50], y[:50], x[50:], y[50:])
    errors = []
    for rank in (1, 4, 8):
        head = QuadraticRidgeHead([0.1], refit=False, rank=rank)
        report = head.fit(x[:50], y[:50], x[50:], y[50:])
        difference = (head.predict(x[:50]) - full.predict(x[:50])).square().mean().sqrt()
        assert report["rank_error"] == pytest.approx(difference.item(), rel=1e-3)
        errors.append(report["rank_error"])
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] > 1e-6


def test_eigenpairs_are_those_of_the_whole_matrix():
    generator = torch.Generator().manual_seed(0)
    for n, f in ((12, 30), (30, 12)):
        x = torch.randn(n, f, generator=generator, dtype=torch.float64)
        weights = torch.randn(n, generator=generator, dtype=torch.float64)
        matrix = (x.T @ torch.diag(weights) @ x).numpy()
        values, vectors = leading_eigenpairs(x, weights, 5)
        expected = np.linalg.eigvalsh(matrix)
        expected = expected[np.argsort(-np.abs(expected))][:5]
        assert values.numpy() == pytest.approx(expected, abs=1e-9)
        assert matrix @ vectors.numpy() == pytest.approx((vectors * values).numpy(), abs=1e-9)


def test_one_eigendecomposition_gives_every_strength():
    x, y = (t.double() for t in problem(40, 6))
    k, alphas = kernel(x, x) / 1e6, [0.01, 1.0, 100.0]
    for column, alpha in zip(dual_path(k, y, alphas).T, alphas, strict=True):
        solved = torch.linalg.solve(k + alpha * torch.eye(40, dtype=k.dtype), y)
        assert torch.allclose(column, solved, rtol=1e-6, atol=1e-9)


def test_what_lies_far_outside_is_limited_and_has_no_gradient():
    x, y = problem(50, 6)
    head = QuadraticRidgeHead([0.1])
    head.fit(x[:40], y[:40], x[40:], y[40:])
    head.double()
    edge = (head.standardise.mean + LIMIT * head.standardise.scale)[None]
    far = (head.standardise.mean + 1e6 * head.standardise.scale)[None].requires_grad_()
    assert head.predict(far).item() == pytest.approx(head.predict(edge).item(), abs=1e-6)
    (gradient,) = torch.autograd.grad(head.predict(far).sum(), far)
    assert not gradient.any()


def test_the_gradient_reaches_the_features():
    x, y = problem(50, 6)
    head = QuadraticRidgeHead([0.1])
    head.fit(x[:40], y[:40], x[40:], y[40:])
    point = x[:1].double().requires_grad_()
    (gradient,) = torch.autograd.grad(head(point).sum(), point)
    step = 1e-5 * head.standardise.scale
    for i in range(6):
        shift = torch.zeros_like(point).index_fill(1, torch.tensor([i]), step[i].item())
        finite = (head(point + shift) - head(point - shift)) / (2 * step[i])
        assert gradient[0, i].item() == pytest.approx(finite.item(), rel=1e-4, abs=1e-9)


def test_a_rank_below_one_is_refused():
    with pytest.raises(ConfigError, match="rank=0: expected a number of eigenvectors >= 1"):
        QuadraticRidgeHead(rank=0)


def test_the_config_makes_the_default_head_with_the_lower_strengths(pytestconfig):
    head = instantiate(OmegaConf.load(pytestconfig.rootpath / "conf/head/quadratic.yaml"))
    assert isinstance(head, QuadraticRidgeHead)
    default = QuadraticRidgeHead()
    assert (head.rank, head.refit) == (default.rank, default.refit)
    assert head.alphas == [alpha for alpha in default.alphas if alpha <= 1000]
