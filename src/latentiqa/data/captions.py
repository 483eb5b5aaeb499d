"""Chains of degradations, and what was done to a picture in words.

The sentences are the prompts of methods that read quality from a text-conditioned model:
DP-IQA's, after LIQE (Zhang et al., CVPR 2023), GenzIQA's ("Good photo."), and two descriptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from latentiqa.errors import ConfigError


class Degradation(NamedTuple):
    """One distortion.

    Attributes:
        kind: a key of `latentiqa.data.distortions.DISTORTIONS`.
        level: 1 (barely visible) to 5 (severe).
    """

    kind: str
    level: int


Degradations = tuple[Degradation, ...]

CLEAN: Degradations = ()
"""Nothing was done."""

QUALITIES = ("excellent", "good", "fair", "poor", "bad")
"""The five grades of ITU-R BT.500, best first."""

WORDS = {
    "low_light": ("dark", "underexposure"),
    "over_exposure": ("overexposed", "overexposure"),
    "colour_cast": ("tinted", "color cast"),
    "low_contrast": ("faded", "low contrast"),
    "gaussian_blur": ("blurry", "blur"),
    "motion_blur": ("motion blurred", "motion blur"),
    "ringing": ("ringing", "ringing"),
    "gaussian_noise": ("noisy", "noise"),
    "pixelation": ("pixelated", "pixelation"),
    "banding": ("banded", "banding"),
    "jpeg2000": ("jpeg2000 compressed", "jpeg2000 compression"),
    "jpeg": ("jpeg compressed", "jpeg compression"),
}
"""Adjective and noun of each kind, in the order in which they befall a picture: light, colour and
contrast, blur, noise, processing, file."""

SEVERITY_WORDS = ("slightly ", "somewhat ", "", "very ", "extremely ")
CLEAN_ADJECTIVES = ("sharp", "sharp and clean")

TEMPLATES = (
    "{a} {adjectives} photo, {quality} quality",
    "a photo with {nouns} artifacts, which is of {quality} quality",
    "{Quality} photo.",
    "{quality} quality photo, {adjectives}",
)

LIQE_TEMPLATE = "a photo of a {scene} with {nouns} artifacts, which is of {quality} quality"
"""In full, with the scene, as LIQE and DP-IQA have it."""

SCENES = (
    "animal",
    "cityscape",
    "human",
    "indoor scene",
    "landscape",
    "night scene",
    "plant",
    "still-life",
    "others",
)
"""The scenes of LIQE."""

COUNT_WEIGHTS = (0.6, 0.3, 0.1)
"""How often one, two and three degradations come together."""


def sample_degradations(
    rng: np.random.Generator, clean: float = 0.25, at_most: int = 3
) -> Degradations:
    """Draw what shall be done to a picture.

    Args:
        rng: source of the draws.
        clean: probability that nothing is done.
        at_most: 1 to 3, how many kinds may come together, in the proportions `COUNT_WEIGHTS`.

    Returns:
        Different kinds, in the order of `WORDS`, never both too dark and too bright; every level
        alike often.

    Raises:
        ConfigError: an argument outside its range.

    Example:
        >>> sample_degradations(np.random.default_rng(5), clean=0)
        (Degradation(kind='low_contrast', level=1), Degradation(kind='gaussian_noise', level=4))
    """
    if not 0 <= clean <= 1:
        raise ConfigError(f"clean={clean}: expected a probability, 0 to 1")
    if at_most not in range(1, len(COUNT_WEIGHTS) + 1):
        raise ConfigError(f"at_most={at_most}: expected 1 to {len(COUNT_WEIGHTS)}")
    if rng.random() < clean:
        return CLEAN
    weights = np.array(COUNT_WEIGHTS[:at_most])
    count = 1 + rng.choice(at_most, p=weights / weights.sum())
    order = list(WORDS)
    drawn = [order[index] for index in rng.permutation(len(order))]
    # Of the two opposites the one drawn later cannot be chosen.
    drawn.remove(max("low_light", "over_exposure", key=drawn.index))
    kinds = sorted(drawn[:count], key=order.index)
    return tuple(Degradation(kind, int(rng.integers(1, 6))) for kind in kinds)


def quality(degradations: Sequence[Degradation]) -> str:
    """The grade of a picture: the worst level, and half a grade for every further degradation.

    Returns:
        One of `QUALITIES`.

    Example:
        >>> quality(CLEAN), quality([Degradation("jpeg", 1)]), quality([Degradation("jpeg", 5)])
        ('excellent', 'good', 'bad')
    """
    if not degradations:
        return QUALITIES[0]
    severity = max(level for _, level in degradations) + 0.5 * (len(degradations) - 1)
    return QUALITIES[min(int(severity), len(QUALITIES) - 1)]


def levels(degradations: Sequence[Degradation]) -> list[float]:
    """How severe each kind is, in the order of `WORDS`: 0 is none, 1 is level 5.

    Example:
        >>> levels([Degradation("jpeg", 4)])[-2:]
        [0.0, 0.8]
    """
    done = dict(degradations)
    return [done.get(kind, 0) / 5 for kind in WORDS]


def degradations_of(levels: Sequence[float]) -> Degradations:
    """What was done to a picture, read from its `levels`.

    Example:
        >>> degradations_of(levels([Degradation("gaussian_blur", 1), Degradation("jpeg", 4)]))
        (Degradation(kind='gaussian_blur', level=1), Degradation(kind='jpeg', level=4))
    """
    steps = (round(5 * level) for level in levels)
    return tuple(Degradation(kind, step) for kind, step in zip(WORDS, steps, strict=True) if step)


def caption(degradations: Sequence[Degradation], rng: np.random.Generator) -> str:
    """Say in one of the `TEMPLATES`, drawn at random, what was done to a picture.

    Args:
        degradations: in the order in which they were done.
        rng: draws the template.

    Raises:
        ConfigError: an unknown kind or a level outside 1 to 5.

    Example:
        >>> done = (Degradation("gaussian_blur", 1), Degradation("gaussian_noise", 4))
        >>> caption(done, np.random.default_rng(0))
        'bad quality photo, slightly blurry and very noisy'
    """
    template = TEMPLATES[rng.integers(len(TEMPLATES))]
    adjectives = _adjectives(degradations)
    return _fill(template, degradations, adjectives[rng.integers(len(adjectives))])


def describe(degradations: Sequence[Degradation]) -> str:
    """Say what was done to a picture, always in the same words: the first of the `TEMPLATES`.

    Raises:
        ConfigError: an unknown kind or a level outside 1 to 5.

    Example:
        >>> describe(CLEAN)
        'a sharp photo, excellent quality'
        >>> describe([Degradation("gaussian_blur", 1), Degradation("gaussian_noise", 4)])
        'a slightly blurry and very noisy photo, bad quality'
    """
    return _fill(TEMPLATES[0], degradations, _adjectives(degradations)[0])


def corpus() -> list[str]:
    """Sentences with every word that captions have, for training a tokenizer.

    Returns:
        Every template for every kind and level and for pairs and triples of kinds; LIQE's
        template with its scenes. Always the same, in the same order.
    """
    kinds = list(WORDS)
    chains: list[Degradations] = [CLEAN]
    chains += [(Degradation(kind, level),) for kind in kinds for level in range(1, 6)]
    chains += [(Degradation(a, 2), Degradation(b, 3)) for a, b in pairwise(kinds)]
    chains += [tuple(Degradation(kind, 4) for kind in kinds[i : i + 3]) for i in range(10)]
    texts = [
        _fill(template, chain, adjectives)
        for chain in chains
        for template in TEMPLATES
        for adjectives in _adjectives(chain)
    ]
    texts += [
        LIQE_TEMPLATE.format(scene=scene, nouns=noun, quality=grade)
        for scene in SCENES
        for noun in ["no", *(noun for _, noun in WORDS.values())]
        for grade in QUALITIES
    ]
    return list(dict.fromkeys(texts))


def _adjectives(degradations: Sequence[Degradation]) -> tuple[str, ...]:
    """All ways to say it, for example ``("slightly blurry and noisy",)``."""
    if not degradations:
        return CLEAN_ADJECTIVES
    for kind, level in degradations:
        if kind not in WORDS:
            raise ConfigError(f"kind={kind!r}: expected one of {', '.join(WORDS)}")
        if level not in range(1, 6):
            raise ConfigError(f"level={level}: expected 1 to 5")
    return (
        _enumerate([SEVERITY_WORDS[level - 1] + WORDS[kind][0] for kind, level in degradations]),
    )


def _fill(template: str, degradations: Sequence[Degradation], adjectives: str) -> str:
    grade = quality(degradations)
    return template.format(
        a="an" if adjectives[0] in "aeiou" else "a",
        adjectives=adjectives,
        nouns=_enumerate([WORDS[kind][1] for kind, _ in degradations]) or "no",
        quality=grade,
        Quality=grade.capitalize(),
    )


def _enumerate(words: list[str]) -> str:
    """For example ``"blur, noise and ringing"``."""
    *others, last = words or [""]
    return f"{', '.join(others)} and {last}" if others else last
