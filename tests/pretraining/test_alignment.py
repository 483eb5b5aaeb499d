from __future__ import annotations

import pytest
import torch

from latentiqa.errors import ConfigError
from latentiqa.pretraining.alignment import Alignment, Readout, relative_similarity, tokenwise


def encoder(image, blocks):
    pooled = torch.nn.functional.avg_pool2d(image, 8)
    # Scales that differ by orders of magnitude, as those of pretrained maps do.
    known = {"low": torch.cat([pooled, 1000 * pooled], dim=1), "high": pooled[:, :2]}
    return {block: known[block] for block in blocks}


def connected(**changes):
    torch.manual_seed(0)
    pairs = {"mid.resnet.0": "low", "up.1.resnet.0": "high"}
    alignment = Alignment(encoder, pairs, hidden=16, **changes)
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


def test_targets_are_standardised_so_that_no_channel_is_the_whole_cosine():
    alignment = connected()
    targets = alignment.targets(torch.rand(8, 3, 64, 64))
    std = targets["low"].std(dim=(0, 2, 3))
    torch.testing.assert_close(std, torch.ones(6), rtol=0.01, atol=0.01)


def test_repeated_pictures_meet_their_own_targets():
    alignment = connected(relative=0.0)
    maps = {"mid.resnet.0": torch.randn(2, 4, 4, 4), "up.1.resnet.0": torch.randn(2, 6, 8, 8)}
    targets = {"low": torch.randn(2, 6, 8, 8), "high": torch.randn(2, 2, 8, 8)}
    once = alignment(maps, targets)
    thrice = alignment({k: v.repeat(3, 1, 1, 1) for k, v in maps.items()}, targets)
    torch.testing.assert_close(once, thrice)
    swapped = alignment({k: v.flip(0) for k, v in maps.items()}, targets)
    assert abs((once - swapped).item()) > 1e-4


def test_the_projection_can_learn_the_targets():
    alignment = connected()
    image = torch.rand(4, 3, 64, 64)
    pooled = torch.nn.functional.avg_pool2d(image, 8)
    pooled = ((pooled - pooled.mean()) / pooled.std()).repeat(1, 2, 1, 1)
    maps = {"mid.resnet.0": pooled[:, :4], "up.1.resnet.0": pooled}
    optimizer = torch.optim.Adam(alignment.projections.parameters(), lr=1e-2)
    values = []
    for _ in range(30):
        loss = alignment(maps, alignment.targets(image))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.7 * values[0]


def test_a_readout_leaves_the_variance_that_least_squares_leaves():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(40, 2, 3, 3, generator=generator)
    target = maps[:, :1] + 0.5 * torch.randn(40, 1, 3, 3, generator=generator)
    readout = Readout(2, 1)
    optimizer = torch.optim.LBFGS(readout.parameters(), max_iter=100)

    def closure():
        optimizer.zero_grad()
        loss = readout(maps, target)
        loss.backward()
        return loss

    optimizer.step(closure)

    def moments(x):
        pooled = torch.cat([x.mean((2, 3)), x.std((2, 3), correction=0)], dim=1)
        return (pooled - pooled.mean(0)) / pooled.std(0, correction=0)

    x = torch.cat([moments(maps), torch.ones(40, 1)], dim=1)
    y = moments(target)
    expected = (y - x @ torch.linalg.lstsq(x, y).solution).square().mean()
    assert 0.1 < expected < 0.9
    assert readout(maps, target).item() == pytest.approx(expected.item(), rel=1e-3)


def test_without_the_pooled_term_there_is_no_readout():
    maps = {"mid.resnet.0": torch.randn(2, 4, 4, 4), "up.1.resnet.0": torch.randn(2, 6, 8, 8)}
    targets = {"low": torch.randn(2, 6, 8, 8), "high": torch.randn(2, 2, 8, 8)}
    with_it, without = connected(), connected(pooled=0.0)
    assert not without.readouts
    without.projections.load_state_dict(with_it.projections.state_dict())
    unexplained = [
        with_it.readouts[layer.replace(".", "_")](maps[layer], targets[block])
        for layer, block in with_it.pairs.items()
    ]
    expected = without(maps, targets) + torch.stack(unexplained).mean()
    torch.testing.assert_close(with_it(maps, targets), expected)


def test_bad_values_are_refused():
    with pytest.raises(ConfigError, match="at least one layer"):
        Alignment(encoder, {})
    with pytest.raises(ConfigError, match=r"relative=-1"):
        Alignment(encoder, {"mid.resnet.0": "low"}, relative=-1)
    with pytest.raises(ConfigError, match=r"pooled=-0.5"):
        Alignment(encoder, {"mid.resnet.0": "low"}, pooled=-0.5)
