from __future__ import annotations

import pytest

from latentiqa.backbones.process import Rates
from latentiqa.errors import ConfigError
from latentiqa.guidance import StepSize


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.2, 0.2, 0.2]),
        ("linear", [0.2, 0.1, 0.0]),
        ("cosine", [0.2, 0.1, 0.0]),
        ("noise", [0.2 * 0.8**0.5, 0.2 * 0.5**0.5, 0.2 * 0.2**0.5]),
    ],
)
def test_schedules_by_their_formulas(schedule, expected):
    size = StepSize(0.2, schedule=schedule, window=[90, 10])
    abars = {90: 0.2, 50: 0.5, 10: 0.8}
    rates = {t: Rates(abar**0.5, (1 - abar) ** 0.5) for t, abar in abars.items()}
    assert [size.at(t, rates[t]) for t in rates] == pytest.approx(expected)


def test_a_cosine_is_flat_at_both_ends():
    cosine, linear = (StepSize(1.0, schedule=s, window=[100, 0]) for s in ("cosine", "linear"))
    rates = Rates(0.8, 0.6)
    assert cosine.at(99, rates) > linear.at(99, rates)
    assert cosine.at(1, rates) < linear.at(1, rates)


def test_outside_its_window_a_term_is_off():
    size = StepSize(0.2, window=[90, 10])
    assert [size.at(t, 0.5) for t in (91, 90, 10, 9)] == [0, 0.2, 0.2, 0]
    assert StepSize(0.2, schedule="linear", window=[50, 50]).at(50, Rates(0.8, 0.6)) == 0.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"schedule": "up"}, "schedule='up': expected one of constant, linear, cosine, noise"),
        ({"window": [10, 90]}, r"window=\[10, 90\]: expected two timesteps"),
        ({"window": [90]}, "expected two timesteps"),
        ({"window": [1000, 0]}, "expected two timesteps"),
        ({"window": "all"}, "expected two timesteps"),
    ],
)
def test_bad_values_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        StepSize(**arguments)
