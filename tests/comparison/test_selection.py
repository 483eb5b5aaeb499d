"""Selection against brute force, and discrepancies."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from latentiqa.comparison.selection import apart, discrepancy, select
from latentiqa.enhance.nlpd import nlpd
from latentiqa.errors import ConfigError, DataError


@pytest.mark.parametrize("diversity", [0.0, 0.5, 2.0])
def test_every_choice_is_the_best_of_the_rest(diversity):
    generator = np.random.default_rng(0)
    d = generator.random(7)
    points = generator.random((7, 3))
    between = np.linalg.norm(points[:, None] - points[None], axis=2)
    chosen = select(d.tolist(), between, 4, diversity)
    mean = between[~np.eye(7, dtype=bool)].mean()
    for k, i in enumerate(chosen):

        def value(j, before=chosen[:k]):
            near = min((between[j, s] for s in before), default=0.0)
            return d[j] / d.mean() + diversity * near / mean

        rest = set(range(7)) - set(chosen[:k])
        assert value(i) == max(map(value, rest))
    assert len(set(chosen)) == 4


def test_two_that_are_alike_are_not_both_chosen():
    """Of all pairs, greedy choice finds the one of the largest sum."""
    d = [1.0, 0.99, 0.6, 0.5]
    points = np.array([[0.0, 0.0], [0.01, 0.0], [3.0, 0.0], [0.0, 4.0]])
    between = np.linalg.norm(points[:, None] - points[None], axis=2)
    assert select(d, between, 2, 1.0) == [0, 3]
    mean = between[~np.eye(4, dtype=bool)].mean()

    def total(pair):
        return sum(d[i] for i in pair) / np.mean(d) + between[pair] / mean

    assert max(itertools.combinations(range(4), 2), key=total) == (0, 3)
    assert select(d, between, 2, 0.0) == [0, 1]


def test_all_are_chosen_where_there_are_few_and_equal_ones_in_order():
    same = np.zeros((3, 3))
    assert select([0.0, 0.0, 0.0], same, 9) == [0, 1, 2]
    assert select([1.0, 2.0, 3.0], same, 3) == [2, 1, 0]


def test_values_outside_their_range_are_refused():
    with pytest.raises(ConfigError, match=r"selection\.count=0: expected an integer >= 1"):
        select([1.0], np.zeros((1, 1)), 0)
    with pytest.raises(ConfigError, match=r"selection\.diversity=-1: expected a number >= 0"):
        select([1.0], np.zeros((1, 1)), 1, -1)


def test_discrepancy_is_the_mean_over_pairs(pictures):
    a, b, c = pictures[0][:3]
    pairs = [nlpd(x[None], y[None], bands="all").item() for x, y in ((a, b), (a, c), (b, c))]
    assert discrepancy([a, b, c]) == pytest.approx(sum(pairs) / 3)


def test_features_count_alike_and_constant_ones_nothing():
    features = torch.tensor([[0.0, 0.0, 7.0], [1.0, 1000.0, 7.0], [2.0, 0.0, 7.0]])
    between = apart(features)
    assert np.allclose(between, between.T)
    assert between[0, 1] == pytest.approx(between[1, 2])
    assert not between.diagonal().any()
    with pytest.raises(DataError, match="not finite"):
        apart(torch.tensor([[float("nan")], [1.0]]))
