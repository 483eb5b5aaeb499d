from __future__ import annotations

import pytest
import torch
from torch import nn

from latentiqa.cost import cost_of
from latentiqa.errors import ConfigError

CPU = torch.device("cpu")


def test_all_that_is_computed_is_counted_attention_and_backward_too():
    """By hand: a product of n x m by m x k has 2 n m k operations, its two gradients twice that."""
    used, unused = nn.Linear(16, 8, bias=False), nn.Linear(16, 8)
    x = torch.rand(4, 16)
    q = torch.rand(1, 2, 6, 8)  # batch, heads, tokens, width
    calls = []

    def work() -> None:
        calls.append(1)
        z = x.clone().requires_grad_()
        torch.autograd.grad((used(z) ** 2).sum(), z)
        nn.functional.scaled_dot_product_attention(q, q, q)

    used.requires_grad_(False)
    assert unused.weight.numel()
    cost = cost_of(work, CPU, rounds=3, warm_up=2)
    linear, attention = 2 * 4 * 16 * 8, 2 * (2 * 6 * 8 * 6)
    assert cost["gflop"] == pytest.approx((2 * linear + 2 * attention) / 1e9)
    assert cost["parameters"] == 16 * 8
    assert len(calls) == 2 + 3 + 1
    low, high = cost["ms_range"]
    assert 0 < low <= cost["ms"] <= high
    assert cost["peak_memory_mb"] > 50


def test_a_module_that_is_passed_twice_has_its_parameters_once():
    layer = nn.Conv2d(1, 2, 3)
    image = torch.rand(1, 1, 8, 8)
    assert cost_of(lambda: (layer(image), layer(image)), CPU, 1, 1)["parameters"] == 20


@pytest.mark.parametrize("calls", [{"rounds": 0}, {"warm_up": 0}])
def test_numbers_of_calls_are_checked(calls):
    with pytest.raises(ConfigError, match="expected an integer >= 1"):
        cost_of(lambda: None, CPU, **calls)
