"""One ranking of models from the picks of many raters, and how sure it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentiqa.comparison.bradley_terry import Wins, strengths, with_prior
from latentiqa.comparison.picks import PAIR, Pick, count
from latentiqa.errors import ConfigError, DataError, check_integer

ENOUGH_RATERS = 5
"""From so many on raters are drawn, and not picks: fewer tell little of how people differ."""


@dataclass(frozen=True)
class Ranked:
    """A model's place.

    Attributes:
        name: of the model.
        rank: 1 is the best.
        ranks: the interval of it.
        strength: of Bradley and Terry, mean 0 over the models.
        interval: of the strength.
        picked: how often it was picked.
        shown: in so many trials.
    """

    name: str
    rank: int
    ranks: tuple[int, int]
    strength: float
    interval: tuple[float, float]
    picked: int
    shown: int


@dataclass(frozen=True)
class Ranking:
    """All models, the best first.

    Attributes:
        models: in their order.
        unit: what was drawn for the intervals: ``raters`` or ``picks``.
        raters: how many there are.
        picks: how many of pairs there are; repeated and catch trials are not among them.
    """

    models: list[Ranked]
    unit: str
    raters: int
    picks: int

    def share(self, first: str, second: str) -> float:
        """How often the first one is picked over the second, as the strengths say."""
        strength = {model.name: model.strength for model in self.models}
        return float(1 / (1 + np.exp(strength[second] - strength[first])))


def rank(
    raters: Mapping[str, Sequence[Pick]],
    *,
    level: float = 0.95,
    resamples: int = 1_000,
    prior: float = 0.1,
    seed: int = 0,
) -> Ranking:
    """Rank models by strengths of Bradley and Terry, with percentile bootstrap intervals.

    Raters are drawn with replacement, each with all own picks; where there are fewer than
    `ENOUGH_RATERS`, picks are, and the intervals do not hold how raters differ.

    Args:
        raters: picks of each rater; only first presentations of pairs count.
        level: confidence, 0 to 1.
        resamples: how many.
        prior: imaginary picks each way, see `latentiqa.comparison.bradley_terry.with_prior`.
        seed: of the resampling.

    Raises:
        ConfigError: a value is outside its range.
        DataError: there are no picks of pairs, or no common ranking of all models.
    """
    if not 0 < level < 1:
        raise ConfigError(f"rank.level={level}: expected a confidence, 0 < x < 1, such as 0.95.")
    check_integer("rank.resamples", resamples, 1)
    pairs = {name: [p for p in picks if p.kind == PAIR] for name, picks in raters.items()}
    pairs = {name: picks for name, picks in pairs.items() if picks}
    names = sorted({side for picks in pairs.values() for p in picks for side in (p.left, p.right)})
    if not names:
        raise DataError("no pick of two models' results: there is nothing to rank.")
    by_raters = len(pairs) >= ENOUGH_RATERS
    groups = list(pairs.values()) if by_raters else [[p] for ps in pairs.values() for p in ps]
    units = np.stack([wins_of(group, names) for group in groups])
    total = units.sum(0)
    imaginary = with_prior(total, prior, names) - total
    fitted = strengths(total + imaginary, names)

    generator = np.random.default_rng(seed)
    draws = generator.integers(len(units), size=(resamples, len(units)))
    times = np.stack([np.bincount(draw, minlength=len(units)) for draw in draws])
    try:
        drawn = strengths(np.tensordot(times, units, axes=1) + imaginary, names)
    except DataError as error:
        raise DataError(
            f"{error} (In a sample of the {'raters' if by_raters else 'picks'}: without imaginary "
            "picks, intervals need more of them.)"
        ) from error
    return Ranking(
        _placed(names, fitted, drawn, total, level),
        "raters" if by_raters else "picks",
        len(pairs),
        sum(map(len, pairs.values())),
    )


def wins_of(picks: Iterable[Pick], names: Sequence[str]) -> Wins:
    """How often each model was picked over each other one, first presentations of pairs."""
    wins = np.zeros((len(names), len(names)))
    index = {name: i for i, name in enumerate(names)}
    for (winner, loser), times in count(picks).items():
        wins[index[winner], index[loser]] += times
    return wins


def _placed(
    names: Sequence[str],
    fitted: NDArray[np.float64],
    drawn: NDArray[np.float64],
    total: Wins,
    level: float,
) -> list[Ranked]:
    ends = [(1 - level) / 2, (1 + level) / 2]
    order: list[int] = (-fitted).argsort(kind="stable").tolist()
    low, high = np.quantile(drawn, ends, axis=0)
    places = (-drawn).argsort(axis=1).argsort(axis=1) + 1
    # Whole ranks: of the bootstrap's own, not between two.
    first = np.quantile(places, ends[0], axis=0, method="lower")
    last = np.quantile(places, ends[1], axis=0, method="higher")
    return [
        Ranked(
            names[i],
            place,
            (int(first[i]), int(last[i])),
            float(fitted[i]),
            (float(low[i]), float(high[i])),
            int(total[i].sum()),
            int(total[i].sum() + total[:, i].sum()),
        )
        for place, i in enumerate(order, 1)
    ]
