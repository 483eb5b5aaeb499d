"""Pictures of several views: each view is an example, and scores are means over views."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from latentiqa.errors import DataError
from latentiqa.heads import Head, MLPHead, QuadraticRidgeHead, RidgeHead

HEADS = {
    "ridge": lambda **options: RidgeHead(**{"alphas": [0.1, 30.0, 1000.0]} | options),
    "quadratic": lambda **options: QuadraticRidgeHead(**{"alphas": [0.1, 30.0, 1000.0]} | options),
    "mlp": lambda **_options: MLPHead(hidden=(8,), epochs=4, batch_size=16),
}


def problem(pictures: int, views: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (N, K, 5) of views that say different things of a picture, and targets (N,)."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.rand(pictures, generator=generator)
    x = y[:, None, None] + torch.randn(pictures, views, 5, generator=generator)
    return x, y


TRAIN, VAL = problem(24, 4, 0), problem(12, 2, 1)


def fitted(kind: str, **options) -> tuple[Head, dict]:
    head = HEADS[kind](**options)
    return head, head.fit(*TRAIN, *VAL)


@pytest.mark.parametrize("kind", HEADS)
def test_a_score_is_the_mean_over_the_views(kind):
    head, _ = fitted(kind)
    x, _ = problem(6, 3, 2)
    found = head.predict(x)
    by_hand = torch.stack([head.predict(x[:, k]) for k in range(3)])
    assert not torch.allclose(by_hand[0], by_hand[1], rtol=1e-3)
    torch.testing.assert_close(found, by_hand.mean(dim=0))
    assert found.dtype == torch.float32
    torch.testing.assert_close(head.predict(x[:, :1]), head.predict(x[:, 0]), rtol=0, atol=0)


@pytest.mark.parametrize("kind", HEADS)
def test_validation_is_averaged(kind):
    head, report = fitted(kind, refit=False)
    x, y = VAL
    expected = stats.spearmanr(head.predict(x), y).statistic
    assert report["val_srcc"] == pytest.approx(expected, abs=1e-9)
    apart = stats.spearmanr(head.predict(x.flatten(0, 1)), y.repeat_interleave(2)).statistic
    assert report["val_srcc"] != pytest.approx(apart, abs=1e-3)


@pytest.mark.parametrize("kind", ["ridge", "quadratic"])
def test_each_strength_is_judged_by_averaged_scores(kind):
    _, report = fitted(kind, refit=False)
    for alpha, srcc in report["val_srcc_by_alpha"]:
        alone, _ = fitted(kind, refit=False, alphas=[alpha])
        expected = stats.spearmanr(alone.predict(VAL[0]), VAL[1]).statistic
        assert srcc == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("kind", HEADS)
def test_every_view_of_a_training_picture_is_an_example(kind):
    """As if each were a picture of its own with that target, after the refit too."""
    x, y = TRAIN
    x_val, y_val = VAL
    options = {"alphas": [1.0]}  # nothing to choose, where the two would differ
    head, other = HEADS[kind](**options), HEADS[kind](**options)
    head.fit(x, y, x_val, y_val)
    if kind == "mlp":  # which keeps the epoch that is best on validation
        other.fit(x.reshape(96, 5), y.repeat_interleave(4), x_val, y_val)
    else:
        rows = x_val.reshape(24, 5), y_val.repeat_interleave(2)
        other.fit(x.reshape(96, 5), y.repeat_interleave(4), *rows)
    new, _ = problem(5, 3, 3)
    torch.testing.assert_close(head.predict(new), other.predict(new))


def test_training_and_validation_may_have_different_numbers_of_views():
    head = RidgeHead()
    head.fit(*TRAIN, VAL[0][:, 0], VAL[1])
    assert head.predict(VAL[0]).shape == (12,)


def test_wrong_shapes_are_told():
    x, y = TRAIN
    with pytest.raises(DataError, match=r"\(24, 4, 5\) and targets \(96,\): expected \(N, F\), or"):
        RidgeHead().fit(x, y.repeat_interleave(4), *VAL)
    with pytest.raises(DataError, match=r"training features have shape \(24, 0, 5\)"):
        RidgeHead().fit(x[:, :0], y, *VAL)
    head, _ = fitted("ridge")
    with pytest.raises(DataError, match=r"shape \(24, 4, 4\): expected \(N, 5\), or \(N, K, 5\)"):
        head.predict(x[..., :4])
    spoilt = x.clone()
    spoilt[3, 2, 1] = torch.nan
    with pytest.raises(DataError, match="training features of 1 of 24 images are not finite"):
        RidgeHead().fit(spoilt, y, *VAL)
