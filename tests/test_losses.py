from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from latentiqa.losses import (
    LOSSES,
    fidelity,
    margin_ranking,
    pair_fidelity,
    pearson,
    spearman,
)


@pytest.fixture
def pairs():
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(24, generator=generator, dtype=torch.float64)
    return target + 0.3 * torch.randn(24, generator=generator, dtype=torch.float64), target


def test_margin_ranking_is_the_mean_over_pairs(pairs):
    pred, target = pairs
    margin = 0.25 * target.std().item()
    terms = [
        max(0.0, -float(torch.sign(target[i] - target[j]) * (pred[i] - pred[j])) + margin)
        for i in range(24)
        for j in range(i)
    ]
    assert margin_ranking(pred, target).item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_pairs_of_equal_targets_ask_for_nothing():
    pred = torch.tensor([0.0, 5.0, 1.0])
    target = torch.tensor([0.2, 0.2, 0.6])
    margin = 0.25 * target.std().item()
    wrong = 4 + margin  # of the second and the third; the first and the third are far enough apart
    assert margin_ranking(pred, target).item() == pytest.approx(wrong / 2)


def test_correlations_are_those_of_scipy(pairs):
    pred, target = pairs
    r = stats.pearsonr(pred, target).statistic
    assert pearson(pred, target).item() == pytest.approx(1 - r, abs=1e-6)
    # Predictions far apart, where soft ranks are hard.
    rho = stats.spearmanr(pred, target).statistic
    assert spearman(1000 * pred, target).item() == pytest.approx(1 - rho, abs=1e-3)


def test_tied_targets_share_their_mean_rank():
    pred, target = torch.tensor([3.0, 1.0, 2.0, 4.0]), torch.tensor([0.5, 0.1, 0.5, 0.9])
    rho = stats.spearmanr(pred, target).statistic
    assert spearman(1000 * pred, target).item() == pytest.approx(1 - rho, abs=1e-5)


def test_fidelity_is_the_mean_over_pairs(pairs):
    pred, target = pairs
    target = (4 * target).round() / 4  # with ties
    terms = []
    for i in range(24):
        for j in range(i + 1, 24):
            p = (1 + math.erf(4 * float(pred[i] - pred[j]) / math.sqrt(2))) / 2
            g = {-1: 0.0, 0: 0.5, 1: 1.0}[int(torch.sign(target[i] - target[j]))]
            terms.append(1 - math.sqrt(p * g) - math.sqrt((1 - p) * (1 - g)))
    assert fidelity(pred, target).item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_the_gradient_of_fidelity_is_its_derivative():
    d = torch.linspace(-4, 4, 9, dtype=torch.float64).repeat(4).requires_grad_()
    g = torch.tensor([0.0, 0.3, 0.5, 1.0], dtype=torch.float64).repeat_interleave(9)
    assert torch.autograd.gradcheck(pair_fidelity, (d, g))


@pytest.mark.parametrize("g", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("far", [0.0, 5.0, 9.0, 60.0, 1e4])
def test_pairs_that_are_certain_have_finite_gradients(g, far):
    """Where p rounds to 0 or 1 in float32, the roots of the formula as it stands have none."""
    d = torch.tensor([-far, far], requires_grad=True)
    loss = pair_fidelity(d, torch.full((2,), g))
    loss.sum().backward()
    assert d.grad is not None
    assert d.grad.isfinite().all()
    exact = [1 - math.sqrt(math.erfc(-x / math.sqrt(2)) / 2 * g) for x in (-far, far)]
    other = [math.sqrt(math.erfc(x / math.sqrt(2)) / 2 * (1 - g)) for x in (-far, far)]
    expected = [one - two for one, two in zip(exact, other, strict=True)]
    assert loss.tolist() == pytest.approx(expected, abs=1e-6)


def test_scores_of_equal_targets_are_drawn_together():
    pred = torch.tensor([0.3, 0.6], requires_grad=True)
    fidelity(pred, torch.tensor([0.5, 0.5])).backward()
    assert pred.grad is not None
    assert pred.grad[0] < 0 < pred.grad[1]


@pytest.mark.parametrize("name", LOSSES)
def test_each_orders_scores_by_gradient_descent(name, pairs):
    _, target = pairs
    start = torch.randn(24, generator=torch.Generator().manual_seed(1))
    pred = (0.5 + 0.2 * start).requires_grad_()
    before = stats.spearmanr(pred.detach(), target).statistic
    optimizer = torch.optim.Adam([pred], lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        LOSSES[name](pred, target).backward()
        optimizer.step()
    assert before < 0.5
    assert stats.spearmanr(pred.detach(), target).statistic > 0.95


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("pred", [[0.3], [0.3, 0.3, 0.3]], ids=["one", "constant"])
def test_degenerate_batches_have_finite_gradients(name, pred):
    x = torch.tensor(pred, requires_grad=True)
    LOSSES[name](x, torch.linspace(0, 1, len(pred))).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_low_precision_does_not_reach_the_loss():
    pred, target = torch.tensor([0.25, 0.5, 1.0]), torch.tensor([0.1001, 0.1, 0.7])
    for loss in LOSSES.values():
        with torch.autocast("cpu", torch.bfloat16):
            found = loss(pred.bfloat16(), target)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, loss(pred, target))
