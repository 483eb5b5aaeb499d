"""Raters who did not look, or looked for something else: measured, flagged, and said why."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from scipy import stats
from scipy.special import expit

from latentiqa.comparison.bradley_terry import strengths, with_prior
from latentiqa.comparison.picks import CATCH, GOOD, PAIR, REPEAT, Pick
from latentiqa.comparison.ranking import wins_of
from latentiqa.errors import ConfigError, DataError


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


def check_raters(
    raters: Mapping[str, Sequence[Pick]], limits: Limits | None = None, prior: float = 0.1
) -> list[Rater]:
    """Measure each rater, and flag who is inconsistent.

    Four things are told: catch trials missed; a lean to one side that chance does not explain
    (exact binomial test against a half); fewer picks for the models that the *other* raters rank
    higher than their strengths make likely; and fewer repeated trials answered as before. If they
    pick the higher one of trial t with probability p_t, then (agreements - sum p) /
    sqrt(sum p (1 - p)) is about standard normal for one who sees what they see; who guesses is far
    below. A repeated trial is answered as before with probability p_t^2 + (1 - p_t)^2, or more by
    one who remembers. Where models are alike, all of these are about a half, and nobody is flagged
    for it.

    Args:
        raters: picks of each one.
        limits: see there.
        prior: of the others' strengths, see `latentiqa.comparison.bradley_terry.with_prior`.
    """
    limits = limits or Limits()
    return [
        _measured(name, picks, _others(raters, name, prior), limits)
        for name, picks in raters.items()
        if picks
    ]


def _others(raters: Mapping[str, Sequence[Pick]], name: str, prior: float) -> dict[str, float]:
    """Strengths of the models by all raters but one; nothing where they have no ranking."""
    picks = [p for other, found in raters.items() if other != name for p in found]
    names = sorted({m for p in picks if p.kind == PAIR for m in (p.left, p.right)})
    if not names:
        return {}
    try:
        found = strengths(with_prior(wins_of(picks, names), prior, names), names)
    except DataError:  # what the ranking of all says, where it matters
        return {}
    return dict(zip(names, found.tolist(), strict=True))


def _measured(
    name: str, picks: Sequence[Pick], others: Mapping[str, float], limits: Limits
) -> Rater:
    reasons = []
    missed = [p.winner != GOOD for p in picks if p.kind == CATCH]
    catch_missed = _share(missed)
    if len(missed) >= limits.few and sum(missed) > limits.catch * len(missed):
        reasons.append(f"missed {sum(missed)} of {len(missed)} catch trials")

    repeated = list(_repeated(picks))
    repeated_same = _share([same for _, same in repeated])
    known = [(p, same) for p, same in repeated if {p.winner, p.loser} <= others.keys()]
    alike = [same for _, same in known]
    firm = [float(expit(others[p.winner] - others[p.loser])) for p, _ in known]
    if _too_few(alike, [p**2 + (1 - p) ** 2 for p in firm], limits.agreement):
        reasons.append(f"answered {sum(alike)} of {len(alike)} repeated trials as before")

    lefts = sum(p.side == "left" for p in picks)
    if stats.binomtest(lefts, len(picks)).pvalue < limits.side:
        side, times = ("left", lefts) if 2 * lefts > len(picks) else ("right", len(picks) - lefts)
        reasons.append(f"picked the {side} side in {times} of {len(picks)} trials")

    agreement = expected = None
    apart = [
        others[p.winner] - others[p.loser]
        for p in picks
        if p.kind == PAIR
        and {p.winner, p.loser} <= others.keys()
        and others[p.winner] != others[p.loser]
    ]
    if apart:
        likely = [float(expit(abs(x))) for x in apart]
        agrees = [x > 0 for x in apart]
        agreement, expected = sum(agrees) / len(apart), sum(likely) / len(apart)
        if _too_few(agrees, likely, limits.agreement):
            reasons.append(
                f"agrees with the others' ranking in {sum(agrees)} of {len(apart)} trials, "
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


def _too_few(found: Sequence[bool], likely: Sequence[float], deviations: float) -> bool:
    """Whether fewer came true than so many standard deviations below what was likely."""
    spread = math.sqrt(sum(p * (1 - p) for p in likely))
    return sum(found) - sum(likely) < -deviations * spread


def _share(found: Sequence[bool]) -> float | None:
    return sum(found) / len(found) if found else None
