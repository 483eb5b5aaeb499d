from __future__ import annotations

import pytest
import torch
from torch import nn

from latentiqa.pretraining.ema import averaged


def test_the_average_is_the_recurrence():
    layer = nn.Linear(1, 1, bias=False).double()
    average = averaged(layer, decay=0.5)
    expected = None
    for n in range(30):
        with torch.no_grad():
            layer.weight.fill_(float(n * n))
        average.update_parameters(layer)
        # torch counts updates, and its first one is the copy.
        d = min(0.5, (1 + n) / (10 + n))
        expected = float(n * n) if expected is None else d * expected + (1 - d) * n * n
    assert average.module.weight.item() == pytest.approx(expected)


def test_it_has_no_gradient_and_does_not_touch_the_model():
    layer = nn.Linear(3, 2)
    before = layer.weight.clone()
    average = averaged(layer, decay=0.9)
    average.update_parameters(layer)
    assert torch.equal(layer.weight, before)
    assert layer.weight.requires_grad
    assert not any(p.requires_grad for p in average.parameters())
