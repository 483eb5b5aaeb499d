from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from latentiqa.data.captions import (
    CLEAN,
    QUALITIES,
    SCENES,
    WORDS,
    Degradation,
    caption,
    corpus,
    quality,
    sample_degradations,
)
from latentiqa.data.distortions import DISTORTIONS
from latentiqa.errors import ConfigError


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    return [sample_degradations(rng, clean=0.25) for _ in range(8000)]


def all_captions(degradations):
    """Every caption that there is, by drawing often."""
    rng = np.random.default_rng(0)
    return {caption(degradations, rng) for _ in range(200)}


def test_every_distortion_has_words():
    assert set(WORDS) == set(DISTORTIONS)


def test_counts_come_in_their_proportions(samples):
    counts = Counter(len(degradations) for degradations in samples)
    shares = [counts[n] / len(samples) for n in range(4)]
    assert shares == pytest.approx([0.25, 0.75 * 0.6, 0.75 * 0.3, 0.75 * 0.1], abs=0.02)


def test_kinds_and_levels_are_alike_often(samples):
    degradations = [one for degradations in samples for one in degradations]
    levels = Counter(level for _, level in degradations)
    assert sorted(levels) == [1, 2, 3, 4, 5]
    assert max(levels.values()) < 1.1 * min(levels.values())
    kinds = Counter(degradations[0].kind for degradations in samples if len(degradations) == 1)
    assert set(kinds) == set(DISTORTIONS)
    # The two exposures give way to each other, and are drawn half as often as the others.
    others = [n for kind, n in kinds.items() if kind not in {"low_light", "over_exposure"}]
    assert max(others) < 1.35 * min(others)


def test_chains_are_what_a_camera_does(samples):
    for degradations in samples:
        kinds = [kind for kind, _ in degradations]
        assert len(set(kinds)) == len(kinds)
        assert not {"low_light", "over_exposure"} <= set(kinds)
    pairs = {(a.kind, b.kind) for chain in samples for a, b in pairwise(chain)}
    assert ("low_light", "gaussian_noise") in pairs
    assert ("gaussian_blur", "gaussian_noise") in pairs
    assert ("gaussian_blur", "pixelation") in pairs
    assert ("gaussian_noise", "jpeg") in pairs
    assert not pairs & {(b, a) for a, b in pairs}
    assert all(a not in {"jpeg", "jpeg2000"} or b == "jpeg" for a, b in pairs)


def test_sampling_bounds():
    rng = np.random.default_rng(0)
    assert {sample_degradations(rng, clean=1) for _ in range(20)} == {CLEAN}
    assert {len(sample_degradations(rng, clean=0, at_most=1)) for _ in range(50)} == {1}
    assert {len(sample_degradations(rng, clean=0, at_most=2)) for _ in range(50)} == {1, 2}
    for arguments in ({"clean": 1.1}, {"clean": -0.1}, {"at_most": 0}, {"at_most": 4}):
        (name, value), *_ = arguments.items()
        with pytest.raises(ConfigError, match=f"{name}={value}"):
            sample_degradations(rng, **arguments)


def test_the_same_generator_says_the_same():
    def draw():
        rng = np.random.default_rng(7)
        chains = [sample_degradations(rng) for _ in range(30)]
        return [(chain, caption(chain, rng)) for chain in chains]

    assert draw() == draw()


def test_captions_of_an_untouched_picture():
    assert all_captions(CLEAN) == {
        "a sharp photo, excellent quality",
        "a sharp and clean photo, excellent quality",
        "a photo with no artifacts, which is of excellent quality",
        "Excellent photo.",
        "excellent quality photo, sharp",
        "excellent quality photo, sharp and clean",
    }


def test_captions_name_what_was_done():
    done = (Degradation("gaussian_blur", 1), Degradation("gaussian_noise", 4))
    assert all_captions(done) == {
        "a slightly blurry and very noisy photo, bad quality",
        "a photo with blur and noise artifacts, which is of bad quality",
        "Bad photo.",
        "bad quality photo, slightly blurry and very noisy",
    }
    three = (
        Degradation("over_exposure", 3),
        Degradation("motion_blur", 2),
        Degradation("jpeg", 1),
    )
    assert all_captions(three) >= {
        "an overexposed, somewhat motion blurred and slightly jpeg compressed photo, bad quality",
        "a photo with overexposure, motion blur and jpeg compression artifacts, "
        "which is of bad quality",
    }
    assert "an extremely dark photo, bad quality" in all_captions([Degradation("low_light", 5)])


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([], "excellent"),
        ([1], "good"),
        ([2], "fair"),
        ([3], "poor"),
        ([4], "bad"),
        ([5], "bad"),
        ([1, 1], "good"),
        ([1, 1, 1], "fair"),
        ([2, 1, 1], "poor"),
        ([1, 3], "poor"),
        ([5, 5, 5], "bad"),
    ],
)
def test_quality(levels, expected):
    kinds = ("low_light", "gaussian_blur", "jpeg")
    degradations = [Degradation(*pair) for pair in zip(kinds, levels, strict=False)]
    assert quality(degradations) == expected


def test_arguments_are_checked():
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match=r"kind='fog'.*low_light"):
        caption([Degradation("fog", 1)], rng)
    with pytest.raises(ConfigError, match="level=6"):
        caption([Degradation("jpeg", 6)], rng)


def test_corpus_holds_every_word(samples):
    texts = corpus()
    assert texts == corpus()
    assert len(set(texts)) == len(texts)
    for kind in DISTORTIONS:
        for level in range(1, 6):
            assert all_captions([Degradation(kind, level)]) <= set(texts)
    assert all_captions(CLEAN) <= set(texts)
    for scene in SCENES:
        for grade in QUALITIES:
            text = f"a photo of a {scene} with blur artifacts, which is of {grade} quality"
            assert text in texts
    words = set(re.findall(r"\w+|[^\w\s]", " ".join(texts)))
    rng = np.random.default_rng(0)
    for degradations in samples[:500]:
        assert set(re.findall(r"\w+|[^\w\s]", caption(degradations, rng))) <= words
