"""Raters who did not look, or looked for something else: measured, flagged, and said why."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit

from latentiqa.comparison.bradley_terry import covariance, strengths, with_prior
from latentiqa.comparison.picks import CATCH, GOOD, PAIR, REPEAT, Pick
from latentiqa.comparison.ranking import wins_of
from latentiqa.errors import ConfigError, DataError

PRIOR = 1.0
"""Imaginary picks each way for the others' strengths: 12 picks of 12 are no certainty."""


@dataclass(frozen=True)
class Limits:
    """When a rater is flagged.

    Args:
        catch: largest share of catch trials missed.
        few: catch trials, below which their share says nothing.
        side: a rater is flagged whose lean to a side is less likely than this by chance, as sides
            are drawn.
        agreement: standard deviations below what the others' ranking expects, of agreements with
            it and of repeated trials that are answered as before.

    Raises:
        ConfigError: a value is outside its range.
    """

    catch: float = 0.25
    few: int = 4
    side: float = 0.001
    agreement: float = 3.0

    def __post_init__(self) -> None:
        for key in ("catch", "side"):
            if not 0 <= (value := getattr(self, key)) <= 1:
                raise ConfigError(f"rank.limits.{key}={value}: expected a share, 0 to 1.")
        if not (self.few >= 1 and self.agreement > 0):
            raise ConfigError(
                f"rank.limits: few={self.few}, agreement={self.agreement}: expected few >= 1 and "
                "agreement > 0."
            )


@dataclass(frozen=True)
class Rater:
    """What is known of a rater's care; ``None`` where there is nothing to tell it by.

    Attributes:
        name: as typed.
        picks: of pairs, first presentations.
        catch_missed: share of catch trials in which the degraded input was picked.
        repeated_same: share of repeated trials answered as before.
        left: share of picks of the left side.
        agreement: share of picks of the model that the others rank higher.
        expected: of the agreement, by the others' strengths.
        seconds: median of a pick.
        reasons: why the rater is flagged; empty if not.
    """

    name: str
    picks: int
    catch_missed: float | None
    repeated_same: float | None
    left: float
    agreement: float | None
    expected: float | None
    seconds: float
    reasons: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Others:
    """What all raters but one say.

    Attributes:
        names: of the models they have compared.
        strengths: of these, ``(M,)``.
        covariance: of the strengths' errors, ``(M, M)``: few others say little for certain.
    """

    names: list[str] = field(default_factory=list)
    strengths: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    covariance: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))

    def apart(self, a: str, b: str) -> float | None:
        """By how much a is stronger than b; None where they are not both known."""
        if not {a, b} <= set(self.names):
            return None
        return float(self.strengths[self.names.index(a)] - self.strengths[self.names.index(b)])

    def slope(self, a: str, b: str) -> NDArray[np.float64]:
        """Of their difference, with respect to all strengths."""
        found = np.zeros(len(self.names))
        found[self.names.index(a)], found[self.names.index(b)] = 1, -1
        return found


def check_raters(raters: Mapping[str, Sequence[Pick]], limits: Limits | None = None) -> list[Rater]:
    """Measure each rater, and flag who is inconsistent.

    Four things are told: catch trials missed; a lean to one side that chance does not explain
    (exact binomial test against a half); fewer picks for the models that the *other* raters rank
    higher than their strengths make likely; and fewer repeated trials answered as before. If they
    pick the higher one of trial t with probability p_t, then agreements - sum p has about the
    variance sum p (1 - p) for one who sees what they see, and that of sum p itself, which is
    estimated, on top; who guesses is far below. A repeated trial is answered as before with
    probability p_t^2 + (1 - p_t)^2, or more by one who remembers. Where models are alike, all of
    these are about a half, and nobody is flagged for it.

    Args:
        raters: picks of each one.
        limits: see there.
    """
    limits = limits or Limits()
    return [
        _measured(name, picks, _others(raters, name), limits)
        for name, picks in raters.items()
        if picks
    ]


def _others(raters: Mapping[str, Sequence[Pick]], name: str) -> Others:
    """What all raters but one say; nothing where they have no ranking."""
    picks = [p for other, found in raters.items() if other != name for p in found]
    names = sorted({m for p in picks if p.kind == PAIR for m in (p.left, p.right)})
    if not names:
        return Others()
    try:
        wins = with_prior(wins_of(picks, names), PRIOR, names)
        found = strengths(wins, names)
    except DataError:  # what the ranking of all says, where it matters
        return Others()
    return Others(names, found, covariance(wins, found))


def _measured(name: str, picks: Sequence[Pick], others: Others, limits: Limits) -> Rater:
    reasons = []
    missed = [p.winner != GOOD for p in picks if p.kind == CATCH]
    catch_missed = _share(missed)
    if len(missed) >= limits.few and sum(missed) > limits.catch * len(missed):
        reasons.append(f"missed {sum(missed)} of {len(missed)} catch trials")

    repeated = list(_repeated(picks))
    repeated_same = _share([same for _, same in repeated])
    known = [
        (p, same, x) for p, same in repeated if (x := others.apart(p.winner, p.loser)) is not None
    ]
    alike = [same for _, same, _ in known]
    firm = [float(expit(x)) for *_, x in known]
    slopes = [
        2 * (2 * p - 1) * p * (1 - p) * others.slope(pick.winner, pick.loser)
        for (pick, *_), p in zip(known, firm, strict=True)
    ]
    likely = [p**2 + (1 - p) ** 2 for p in firm]
    if _too_few(alike, likely, slopes, others, limits.agreement):
        reasons.append(f"answered {sum(alike)} of {len(alike)} repeated trials as before")

    lefts = sum(p.side == "left" for p in picks)
    if stats.binomtest(lefts, len(picks)).pvalue < limits.side:
        side, times = ("left", lefts) if 2 * lefts > len(picks) else ("right", len(picks) - lefts)
        reasons.append(f"picked the {side} side in {times} of {len(picks)} trials")

    agreement = expected = None
    pairs = [p for p in picks if p.kind == PAIR]
    if known := [(p, x) for p in pairs if (x := others.apart(p.winner, p.loser))]:
        agrees = [x > 0 for _, x in known]
        likely = [float(expit(abs(x))) for _, x in known]
        slopes = [
            p * (1 - p) * np.sign(x) * others.slope(pick.winner, pick.loser)
            for (pick, x), p in zip(known, likely, strict=True)
        ]
        agreement, expected = sum(agrees) / len(known), sum(likely) / len(known)
        if _too_few(agrees, likely, slopes, others, limits.agreement):
            reasons.append(
                f"agrees with the others' ranking in {sum(agrees)} of {len(known)} trials, "
                f"{sum(likely):.0f} were expected"
            )
    times = sorted(p.milliseconds for p in picks)
    return Rater(
        name,
        sum(p.kind == PAIR for p in picks),
        catch_missed,
        repeated_same,
        lefts / len(picks),
        agreement,
        expected,
        times[len(times) // 2] / 1000,
        reasons,
    )


def _repeated(picks: Sequence[Pick]) -> Iterator[tuple[Pick, bool]]:
    """Repeated trials, and whether they were answered as before in the same session."""
    first: dict[tuple[str, frozenset[str]], str] = {}
    for p in picks:  # session after session
        if p.kind == PAIR:
            first[p.trial] = p.winner
        elif p.kind == REPEAT and p.trial in first:
            yield p, p.winner == first[p.trial]


def _too_few(
    found: Sequence[bool],
    likely: Sequence[float],
    slopes: Sequence[NDArray[np.float64]],
    others: Others,
    deviations: float,
) -> bool:
    """Whether fewer came true than so many standard deviations below what was likely.

    Args:
        found: what came true.
        likely: probabilities of it.
        slopes: theirs with respect to the others' strengths.
        others: whose errors make the probabilities uncertain, all of them together.
        deviations: how many.
    """
    if not found:
        return False
    slope = np.sum(slopes, axis=0)
    variance = sum(p * (1 - p) for p in likely) + slope @ others.covariance @ slope
    return sum(found) - sum(likely) < -deviations * math.sqrt(variance)


def _share(found: Sequence[bool]) -> float | None:
    return sum(found) / len(found) if found else None
