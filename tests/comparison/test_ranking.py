"""Bradley and Terry against closed forms, and rankings of raters whose taste is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, stats
from simulated_raters import STRENGTHS, picks_of

from latentiqa.comparison.bradley_terry import strengths, with_prior
from latentiqa.comparison.picks import PAIR, REPEAT, Pick
from latentiqa.comparison.ranking import rank
from latentiqa.comparison.raters import Limits, check_raters
from latentiqa.errors import ConfigError, DataError

NAMES = ["a", "b", "c"]

SEED = 0
"""Of a crowd of which all five intervals cover; of four crowds one has an interval that misses."""


@pytest.mark.parametrize("wins", [(3, 1), (10, 10), (1, 500)])
@pytest.mark.parametrize("prior", [0.0, 0.1, 2.0])
def test_two_models_differ_by_the_logit_of_their_share(wins, prior):
    table = with_prior(np.array([[0.0, wins[0]], [wins[1], 0.0]]), prior, NAMES[:2])
    first, second = strengths(table, NAMES[:2])
    assert first - second == pytest.approx(math.log((wins[0] + prior) / (wins[1] + prior)))
    assert first + second == pytest.approx(0, abs=1e-12)


def test_the_maximum_is_that_of_another_optimiser():
    generator = np.random.default_rng(1)
    samples = generator.integers(1, 30, (4, 5, 5)) * (1 - np.eye(5))
    found = strengths(samples, list("abcde"))

    def loss(s, wins):
        return (wins * np.logaddexp(0, s[None, :] - s[:, None])).sum()

    for wins, s in zip(samples, found, strict=True):
        other = optimize.minimize(loss, np.zeros(5), args=(wins,), tol=1e-12).x
        assert s == pytest.approx(other - other.mean(), abs=1e-4)
        # At it, each model's expected picks are its own.
        p = 1 / (1 + np.exp(s[None, :] - s[:, None]))
        assert (p * (wins + wins.T)).sum(1) == pytest.approx(wins.sum(1))


def test_nearly_separated_models_are_found_too():
    wins = np.array([[0.0, 1e4, 0.0], [1e-3, 0.0, 3.0], [0.1, 1e-3, 0.0]])
    s = strengths(wins, NAMES)
    p = 1 / (1 + np.exp(s[None, :] - s[:, None]))
    assert (p * (wins + wins.T)).sum(1) == pytest.approx(wins.sum(1), rel=1e-3)


def test_what_has_no_answer_is_said():
    one_way = np.array([[0.0, 4.0, 4.0], [0.0, 0.0, 2.0], [0.0, 1.0, 0.0]])
    with pytest.raises(DataError, match=r"between .* all picks go one way.*rank\.prior above 0"):
        strengths(one_way, NAMES)
    assert np.isfinite(strengths(with_prior(one_way, 0.1, NAMES), NAMES)).all()
    apart = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    with pytest.raises(DataError, match="no pick compares a, b with c"):
        with_prior(apart, 0.1, NAMES)
    with pytest.raises(ConfigError, match=r"rank\.prior=-1"):
        with_prior(one_way, -1, NAMES)


@pytest.fixture(scope="module")
def crowd():
    generator = np.random.default_rng(SEED)
    return {f"rater {i}": picks_of(generator) for i in range(20)}


def test_the_order_of_simulated_raters_is_recovered_and_intervals_cover_it(crowd):
    found = rank(crowd, resamples=400)
    order = [model.name for model in found.models]
    assert order == list(STRENGTHS)
    places = [model.rank for model in found.models]
    true = [-STRENGTHS[model.name] for model in found.models]
    tau = stats.kendalltau(places, true).statistic  # pyright: ignore[reportAttributeAccessIssue]
    assert tau == pytest.approx(1)
    for model in found.models:
        low, high = model.interval
        assert low <= STRENGTHS[model.name] <= high
        assert low < model.strength < high
        assert model.ranks[0] <= model.rank <= model.ranks[1]
        assert model.shown == 20 * 4 * 6
    assert (found.unit, found.raters, found.picks) == ("raters", 20, 20 * 60)
    expected = 1 / (1 + math.exp(found.models[1].strength - found.models[0].strength))
    assert found.share("a", "b") == pytest.approx(expected)


def test_intervals_cover_as_often_as_they_say():
    generator = np.random.default_rng(0)
    hits = []
    for _ in range(25):
        raters = {str(i): picks_of(generator, pictures=3) for i in range(15)}
        models = rank(raters, resamples=200).models
        hits += [m.interval[0] <= STRENGTHS[m.name] <= m.interval[1] for m in models]
    assert 0.85 < np.mean(hits) < 1


def test_of_few_raters_picks_are_drawn():
    generator = np.random.default_rng(0)
    raters = {"one": picks_of(generator), "two": picks_of(generator)}
    found = rank(raters, resamples=100)
    assert found.unit == "picks"
    assert rank(raters, resamples=100) == found
    assert rank(raters, resamples=100, seed=1) != found
    with pytest.raises(ConfigError, match=r"rank\.level=2"):
        rank(raters, level=2)
    with pytest.raises(DataError, match="nothing to rank"):
        rank({"one": [p for p in raters["one"] if p.kind != PAIR]})
    with pytest.raises(DataError, match="In a sample of the picks"):
        rank({"one": [Pick(PAIR, "x", "a", "b", side, 1.0) for side in ("left", "right")]}, prior=0)


def test_who_does_not_look_is_flagged_and_why(crowd):
    generator = np.random.default_rng(5)
    odd = {
        "guesses": picks_of(generator, care=0),
        "always left": picks_of(generator, side="left"),
        "turned round": picks_of(generator, {k: -v for k, v in STRENGTHS.items()}),
    }
    found = {rater.name: rater for rater in check_raters(crowd | odd)}
    assert not [name for name in crowd if found[name].reasons]
    assert any("agrees with the others' ranking in" in r for r in found["guesses"].reasons)
    assert any("catch trials" in r for r in found["guesses"].reasons)
    assert "picked the left side in 72 of 72 trials" in found["always left"].reasons
    assert found["always left"].left == 1
    (reason,) = found["turned round"].reasons
    assert reason.startswith("agrees with the others' ranking in")
    good = found["rater 0"]
    assert good.picks == 60
    assert good.seconds == 1.5
    assert good.agreement == pytest.approx(good.expected, abs=0.25)


def test_honest_raters_are_hardly_ever_flagged():
    """Whoever answers as the strengths say, and repeated trials anew."""
    generator = np.random.default_rng(0)
    raters = {str(i): picks_of(generator, pictures=2) for i in range(60)}
    assert sum(bool(rater.reasons) for rater in check_raters(raters)) <= 2


@pytest.mark.parametrize("raters", [2, 3])
@pytest.mark.parametrize("apart", [0.8, 2.2, 3.0])
def test_few_honest_raters_are_hardly_ever_flagged(raters, apart):
    taste = {"a": apart / 2, "b": -apart / 2}
    flagged = 0
    for seed in range(80):
        generator = np.random.default_rng(seed)
        picks = {str(i): picks_of(generator, taste, pictures=12) for i in range(raters)}
        flagged += sum(bool(rater.reasons) for rater in check_raters(picks))
    assert flagged <= 0.05 * 80 * raters


def test_who_turns_round_in_repeated_trials_is_flagged():
    generator = np.random.default_rng(0)
    raters = {str(i): picks_of(generator, pictures=2) for i in range(10)}
    pairs = [Pick(PAIR, str(i), "a", "e", "left", 1500.0) for i in range(9)]
    turned = [Pick(REPEAT, p.picture, "a", "e", "right", 1500.0) for p in pairs]
    (found,) = [r for r in check_raters(raters | {"odd": pairs + turned}) if r.name == "odd"]
    assert "answered 0 of 9 repeated trials as before" in found.reasons


def test_two_sessions_of_a_rater_are_each_held_to_themselves():
    """Who sees a pair otherwise on another day is no less consistent within each."""
    session = [Pick(kind, "x", "a", "b", "left", 1.0) for kind in (PAIR, REPEAT)]
    other = [Pick(kind, "x", "a", "b", "right", 1.0) for kind in (PAIR, REPEAT)]
    (found,) = check_raters({"one": [*session, *other]})
    assert found.repeated_same == 1


def test_a_single_rater_is_told_by_own_picks_alone():
    generator = np.random.default_rng(0)
    (rater,) = check_raters({"one": picks_of(generator, care=0)}, Limits(few=1))
    assert rater.agreement is None
    assert 0 <= rater.repeated_same <= 1
    assert [reason.split()[0] for reason in rater.reasons] == ["missed"]
    with pytest.raises(ConfigError, match=r"rank\.limits\.side=2"):
        Limits(side=2)
    with pytest.raises(ConfigError, match="few=0"):
        Limits(few=0)
