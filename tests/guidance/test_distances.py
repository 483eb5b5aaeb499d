from __future__ import annotations

import pytest
import torch

from latentiqa.guidance.distances import DISTANCES, cosine, l2, squared


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 3, 4, 4), (2, 7)]
    return [
        [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
        for _ in range(2)
    ]


def test_they_are_those_of_one_long_vector(features):
    a, b = (torch.cat([part.flatten(1) for part in parts], 1) for parts in features)
    torch.testing.assert_close(squared(*features), ((a - b) ** 2).sum(1))
    torch.testing.assert_close(l2(*features), ((a - b) ** 2).sum(1).sqrt())
    expected = 1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    torch.testing.assert_close(cosine(*features), expected)


@pytest.mark.parametrize("name", DISTANCES)
def test_at_the_picture_itself_the_gradient_is_zero(features, name):
    a = [part.requires_grad_() for part in features[0]]
    value = DISTANCES[name](a, [part.detach().clone() for part in a])
    torch.testing.assert_close(value, torch.zeros_like(value))
    for gradient in torch.autograd.grad(value.sum(), a):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient))
