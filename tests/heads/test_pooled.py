"""Views pooled before a head, where by itself it pools its scores."""

from __future__ import annotations

import pytest
import torch

from latentiqa.errors import ConfigError, DataError
from latentiqa.heads import (
    Head,
    MLPHead,
    PooledHead,
    QuadraticRidgeHead,
    RidgeHead,
    load_head,
    save_head,
)

HEADS = {
    "ridge": lambda: RidgeHead([0.1, 30.0]),
    "quadratic": lambda: QuadraticRidgeHead([0.1, 30.0]),
    "mlp": lambda: MLPHead(hidden=(8,), epochs=4, batch_size=16),
}


def problem(pictures: int, views: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (N, K, 5) of views that say different things of a picture, and targets (N,)."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.rand(pictures, generator=generator)
    return y[:, None, None] + torch.randn(pictures, views, 5, generator=generator), y


TRAIN, VAL, NEW = problem(24, 3, 0), problem(12, 3, 1), problem(6, 3, 2)[0]


def around(head: Head) -> PooledHead:
    """A head that is fitted already."""
    pooled = PooledHead(head)
    pooled.in_features = head.in_features
    return pooled


@pytest.mark.parametrize("kind", HEADS)
def test_it_is_the_head_on_mean_features(kind):
    pooled, alone = PooledHead(HEADS[kind]()), HEADS[kind]()
    report = pooled.fit(*TRAIN, *VAL)
    expected = alone.fit(TRAIN[0].mean(1), TRAIN[1], VAL[0].mean(1), VAL[1])
    assert report["val_srcc"] == expected["val_srcc"]
    assert torch.equal(pooled.predict(NEW), alone.predict(NEW.mean(1)))
    assert torch.equal(pooled.predict(NEW.mean(1)), pooled.predict(NEW))


@pytest.mark.parametrize("kind", HEADS)
def test_before_and_after_are_the_same_for_a_linear_head_alone(kind):
    head = HEADS[kind]()
    head.fit(*TRAIN, *VAL)
    before, after = around(head).predict(NEW), head.predict(NEW)
    assert torch.allclose(before, after, atol=1e-6) == (kind == "ridge")


def test_mirrored_copies_are_pooled_by_themselves():
    x, y = TRAIN
    twice = torch.cat([x, 2 * x], dim=1)
    pooled, alone = PooledHead(RidgeHead()), RidgeHead()
    pooled.fit(twice, y, *VAL)
    both = torch.stack([x.mean(1), 2 * x.mean(1)], dim=1)
    alone.fit(both, y, VAL[0].mean(1), VAL[1])
    torch.testing.assert_close(pooled.predict(NEW), alone.predict(NEW.mean(1)))
    with pytest.raises(DataError, match="training pictures have 4 views, validation 3"):
        PooledHead(RidgeHead()).fit(twice[:, :4], y, *VAL)


@pytest.mark.parametrize("kind", HEADS)
def test_a_loaded_one_scores_to_the_bit_with_a_gradient(kind, tmp_path):
    head = PooledHead(HEADS[kind]())
    head.fit(*TRAIN, *VAL)
    save_head(head, tmp_path)
    loaded, _ = load_head(tmp_path)
    assert isinstance(loaded, PooledHead)
    assert type(loaded.head) is type(head.head)
    assert loaded.arguments == head.arguments
    assert torch.equal(loaded.predict(NEW), head.predict(NEW))
    x = NEW.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loaded.predict(x).sum(), x)
    assert (gradient.abs().amax(dim=(0, 2)) > 0).all()


def test_mistakes_are_told(tmp_path):
    with pytest.raises(ConfigError, match="expected a head that is not pooled itself"):
        PooledHead(PooledHead(RidgeHead()))
    with pytest.raises(DataError, match="PooledHead is not fitted"):
        PooledHead(RidgeHead()).predict(NEW)
    head = PooledHead(RidgeHead())
    head.fit(*TRAIN, *VAL)
    with pytest.raises(DataError, match=r"features have shape \(6, 4\)"):
        head.predict(NEW[..., :4])
    save_head(head, tmp_path)
    path = tmp_path / "head.json"
    path.write_text(path.read_text().replace('"RidgeHead"', '"os.system"'))
    with pytest.raises(DataError, match=r"unknown head 'os\.system'"):
        load_head(tmp_path)
