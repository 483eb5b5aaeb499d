"""Raters of the 2AFC page whose taste is known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from latentiqa.comparison.picks import CATCH, GOOD, KIND, PAIR, REPEAT, WORSE, Pick

STRENGTHS = {"a": 1.2, "b": 0.6, "c": 0.0, "d": -0.6, "e": -1.2}
"""Of models, their mean 0."""

PICK = {"trial": 1, "kind": "pair", "picture": "x", "left": "a", "right": "b", "pick": "left"}
PICK |= {"milliseconds": 900}
CAUGHT = PICK | {"kind": "catch", "left": "degraded", "right": "input", "pick": "right"}


def said(session: str = "0123abcd", study: str = "s", picks=(PICK, CAUGHT)) -> dict:
    """A session as the page writes it."""
    names = {"kind": KIND, "study": study, "session": session, "rater": 'Ann, "A"'}
    return names | {"picks": list(picks)}


def picks_of(
    generator: np.random.Generator,
    strengths: Mapping[str, float] = STRENGTHS,
    pictures: int = 6,
    care: float = 1.0,
    side: str | None = None,
) -> list[Pick]:
    """One rater's picks of every pair on every picture, with repeated and catch trials.

    Args:
        generator: of chance.
        strengths: of Bradley and Terry.
        pictures: how many.
        care: 1 picks as the strengths say, 0 by chance.
        side: the one that is always picked, if any.
    """

    def picked(kind: str, picture: str, names: Sequence[str], p: float) -> Pick:
        """The first name wins with probability p."""
        first_is_left = generator.random() < 0.5
        left, right = names if first_is_left else reversed(names)
        first_wins = generator.random() < p
        chosen = "left" if first_wins == first_is_left else "right"
        return Pick(kind, picture, left, right, side or chosen, 1500.0)

    trials = []
    for i, (a, b) in itertools.product(range(pictures), itertools.combinations(strengths, 2)):
        p = 1 / (1 + math.exp(strengths[b] - strengths[a]))
        trials.append(picked(PAIR, str(i), (a, b), 0.5 + care * (p - 0.5)))
    # Nobody remembers: a repeated trial is answered anew.
    for first in [trials[i] for i in generator.choice(len(trials), 6, replace=False)]:
        p = 1 / (1 + math.exp(strengths[first.loser] - strengths[first.winner]))
        names = (first.winner, first.loser)
        trials.append(picked(REPEAT, first.picture, names, 0.5 + care * (p - 0.5)))
    trials += [picked(CATCH, "0", (GOOD, WORSE), 0.5 + care * 0.49) for _ in range(6)]
    return trials
