from __future__ import annotations

from functools import partial

import pytest
import torch

from latentiqa.errors import ConfigError
from latentiqa.pretraining.alignment import (
    LinearAlignment,
    URepa,
    relative_similarity,
    tokenwise,
)


def encoder(image, blocks):
    pooled = torch.nn.functional.avg_pool2d(image, 8)
    # Scales that differ by orders of magnitude, as those of pretrained maps do.
    known = {"low": torch.cat([pooled, 1000 * pooled], dim=1), "high": pooled[:, :2]}
    return {block: known[block] for block in blocks}


PAIRS = {"mid.resnet.0": ["low"], "up.1.resnet.0": ["high"]}


def connected(kind=URepa, **changes):
    torch.manual_seed(0)
    alignment = kind(encoder, PAIRS, **changes)
    alignment.connect({"mid.resnet.0": 4, "up.1.resnet.0": 6})
    return alignment


def test_tokenwise_is_one_minus_the_mean_cosine():
    a, b = torch.randn(2, 3, 5, 4, 4, dtype=torch.float64)
    total = 0.0
    for i in range(3):
        for y in range(4):
            for x in range(4):
                u, v = a[i, :, y, x], b[i, :, y, x]
                total += (u @ v / (u.norm() * v.norm())).item()
    assert tokenwise(a, b).item() == pytest.approx(1 - total / 48)


def test_relative_similarity_compares_all_pairs_of_tokens_of_all_pictures():
    a, b = torch.randn(2, 2, 5, 2, 2, dtype=torch.float64)

    def tokens(maps):
        return [maps[i, :, y, x] for i in range(2) for y in range(2) for x in range(2)]

    total = 0.0
    for p, q in zip(tokens(a), tokens(b), strict=True):
        for r, s in zip(tokens(a), tokens(b), strict=True):
            here = p @ r / (p.norm() * r.norm())
            there = q @ s / (q.norm() * s.norm())
            total += (here - there).item() ** 2
    assert relative_similarity(a, b, tokens=4).item() == pytest.approx(total / 64)


def test_relative_similarity_does_not_see_a_rotation_that_tokenwise_sees():
    a = torch.randn(2, 5, 4, 4, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))[0]
    b = torch.einsum("de,behw->bdhw", rotation, a)
    assert relative_similarity(a, b).item() == pytest.approx(0, abs=1e-12)
    assert tokenwise(a, b).item() > 0.1


def test_targets_are_standardised_so_that_no_channel_is_the_whole_loss(monkeypatch):
    seen = []
    alignment = connected()
    monkeypatch.setattr(alignment, "compare", lambda _p, t: seen.append(t) or t.sum())
    maps = {"mid.resnet.0": torch.randn(8, 4, 4, 4), "up.1.resnet.0": torch.randn(8, 6, 8, 8)}
    alignment(maps, alignment.encode(torch.rand(8, 3, 64, 64)))
    std = seen[0].std(dim=(0, 2, 3))
    torch.testing.assert_close(std, torch.ones(6), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("kind", [partial(URepa, relative=0.0), LinearAlignment])
def test_repeated_pictures_meet_their_own_targets(kind):
    alignment = connected(kind)
    maps = {"mid.resnet.0": torch.randn(2, 4, 4, 4), "up.1.resnet.0": torch.randn(2, 6, 8, 8)}
    targets = {"low": torch.randn(2, 6, 8, 8), "high": torch.randn(2, 2, 8, 8)}
    once = alignment(maps, targets)
    thrice = alignment({k: v.repeat(3, 1, 1, 1) for k, v in maps.items()}, targets)
    torch.testing.assert_close(once, thrice)
    swapped = alignment({k: v.flip(0) for k, v in maps.items()}, targets)
    assert abs((once - swapped).item()) > 1e-4


@pytest.mark.parametrize("kind", [partial(URepa, hidden=16), LinearAlignment])
def test_the_projection_can_learn_the_targets(kind):
    alignment = connected(kind)
    image = torch.rand(4, 3, 64, 64)
    pooled = torch.nn.functional.avg_pool2d(image, 8)
    pooled = ((pooled - pooled.mean()) / pooled.std()).repeat(1, 2, 1, 1)
    maps = {"mid.resnet.0": pooled[:, :4], "up.1.resnet.0": pooled}
    optimizer = torch.optim.Adam(alignment.projections.parameters(), lr=1e-2)
    values = []
    for _ in range(30):
        loss = alignment(maps, alignment.encode(image))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.7 * values[0]


def test_linear_alignment_leaves_the_variance_that_least_squares_leaves():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(3, 4, 8, 8, generator=generator)
    # Twice as fine: compared at the coarser resolution.
    fine = maps[:, :2].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    target = fine + torch.randn(3, 2, 16, 16, generator=generator)
    alignment = LinearAlignment(lambda _image, _blocks: {"a": target}, {"mid.resnet.0": ["a"]})
    alignment.connect({"mid.resnet.0": 4})
    optimizer = torch.optim.LBFGS(alignment.parameters(), max_iter=100)

    def closure():
        optimizer.zero_grad()
        loss = alignment({"mid.resnet.0": maps}, {"a": target})
        loss.backward()
        return loss

    optimizer.step(closure)

    def rows(x):
        return x.movedim(1, -1).flatten(0, 2).double()

    y = rows((target - target.mean((0, 2, 3), keepdim=True)) / target.std((0, 2, 3), keepdim=True))
    coarse = torch.nn.functional.avg_pool2d(
        (target - target.mean((0, 2, 3), keepdim=True)) / target.std((0, 2, 3), keepdim=True), 2
    )
    x, y = torch.cat([rows(maps), torch.ones(192, 1)], dim=1), rows(coarse)
    expected = (y - x @ torch.linalg.lstsq(x, y).solution).square().mean() / y.square().mean()
    assert 0.1 < expected < 0.9
    assert closure().item() == pytest.approx(expected.item(), rel=1e-3)


def test_what_linear_alignment_finds_in_a_map_it_finds_in_the_mean():
    alignment = connected(LinearAlignment).eval()
    x = torch.randn(2, 4, 6, 6)
    [projection] = [p for key, p in alignment.projections.items() if key.startswith("mid")]
    torch.testing.assert_close(
        projection(x).mean((2, 3)), projection(x.mean((2, 3), keepdim=True)).flatten(1)
    )


def test_a_layer_may_learn_several_blocks():
    alignment = LinearAlignment(encoder, {"mid.resnet.0": ["low", "high"]})
    alignment.connect({"mid.resnet.0": 4})
    maps = {"mid.resnet.0": torch.randn(2, 4, 4, 4)}
    targets = alignment.encode(torch.rand(2, 3, 64, 64))
    both = alignment(maps, targets)
    parts = []
    for block in ("low", "high"):
        alone = LinearAlignment(encoder, {"mid.resnet.0": [block]})
        alone.connect({"mid.resnet.0": 4})
        own = alone.projections.state_dict().keys()
        alone.projections.load_state_dict(
            {k: v for k, v in alignment.projections.state_dict().items() if k in own}
        )
        parts.append(alone(maps, targets))
    torch.testing.assert_close(both, torch.stack(parts).mean())


def test_bad_values_are_refused():
    with pytest.raises(ConfigError, match="at least one layer"):
        URepa(encoder, {})
    with pytest.raises(ConfigError, match=r"relative=-1"):
        URepa(encoder, PAIRS, relative=-1)
    with pytest.raises(ConfigError, match=r"weight=-0.5"):
        LinearAlignment(encoder, PAIRS, weight=-0.5)
