from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage

from latentiqa.data import distortions
from latentiqa.data.distortions import DISTORTIONS, SEVERITIES, distort, to_bytes
from latentiqa.errors import ConfigError, LatentiqaError


@pytest.fixture(scope="module")
def picture():
    """Smooth structures of many sizes, as photos have."""
    noise = np.random.default_rng(0).standard_normal((192, 160, 3))
    layers = [ndimage.gaussian_filter(noise, (s, s, 0)) * s for s in (0.7, 2, 6)]
    mixed = sum(layers)
    return ((mixed - mixed.min()) / np.ptp(mixed)).astype(np.float32)


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_error_grows_with_the_level(picture, kind):
    distorted = [distort(picture, kind, level, seed=level) for level in range(1, 6)]
    errors = [float(np.mean((image - picture) ** 2)) for image in distorted]
    assert errors[0] > 0
    assert all(low < high for low, high in pairwise(errors))


@pytest.mark.parametrize("kind", DISTORTIONS)
@pytest.mark.parametrize("level", [1, 5])
def test_pure_float32_in_range(picture, kind, level):
    before = picture.copy()
    distorted = distort(picture, kind, level, seed=1)
    assert np.array_equal(picture, before)
    assert distorted.dtype == np.float32
    assert distorted.shape == picture.shape
    assert distorted.min() >= 0
    assert distorted.max() <= 1
    assert np.array_equal(distorted, distort(picture, kind, level, seed=1))


@pytest.mark.parametrize("kind", DISTORTIONS)
@pytest.mark.parametrize("shape", [(16, 16), (17, 61)])
def test_small_pictures(picture, kind, shape):
    cut = picture[: shape[0], : shape[1]]
    for level in range(1, 6):
        distorted = distort(cut, kind, level, seed=0)
        assert distorted.shape == cut.shape
        assert not np.array_equal(distorted, cut)


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_seed_changes_what_is_random(picture, kind):
    random = kind in {"gaussian_noise", "low_light", "motion_blur", "colour_cast"}
    same = np.array_equal(distort(picture, kind, 3, 0), distort(picture, kind, 3, 1))
    assert same != random


def test_noise_has_the_stated_strength():
    grey = np.full((200, 200, 3), 0.5, dtype=np.float32)
    noise = distort(grey, "gaussian_noise", 2, seed=0) - grey
    assert noise.std() == pytest.approx(SEVERITIES["gaussian_noise"][1], rel=0.02)
    assert abs(noise.mean()) < 1e-3


def test_low_light_keeps_the_stated_share_of_light():
    grey = np.full((200, 200, 3), 0.7, dtype=np.float32)
    light = distort(grey, "low_light", 3, seed=0).astype(float) ** 2.2
    assert light.mean() / 0.7**2.2 == pytest.approx(SEVERITIES["low_light"][2], rel=0.02)


@pytest.mark.parametrize("level", [1, 3, 5])
def test_motion_blur_is_a_line(level):
    """The second moments of a line of length L: L^2 / 12 along it, none across."""
    length = SEVERITIES["motion_blur"][level - 1]
    impulse = np.zeros((41, 41, 3), dtype=np.float32)
    impulse[20, 20] = 1
    angles = []
    for seed in range(5):
        spread = distort(impulse, "motion_blur", level, seed)[..., 0].astype(float)
        assert spread.sum() == pytest.approx(1, abs=1e-4)
        offsets = np.mgrid[-20:21, -20:21].reshape(2, -1)
        moments, axes = np.linalg.eigh((offsets * spread.ravel()) @ offsets.T)
        # Sharing a point among its pixels adds 1/4 at most.
        assert 0 <= moments[0] < 0.26
        assert length**2 / 12 - 0.01 < moments[1] < length**2 / 12 + 0.35
        angles.append(np.arctan2(*axes[:, 1]) % np.pi)
    assert np.ptp(angles) > 0.5


def test_motion_blur_keeps_what_has_no_edges():
    grey = np.full((32, 48, 3), 0.3, dtype=np.float32)
    assert np.allclose(distort(grey, "motion_blur", 5, seed=0), grey, atol=1e-6)


def test_over_exposure_multiplies_light_and_clips():
    steps = np.repeat(np.linspace(0, 1, 32, dtype=np.float32)[:, None, None], 3, axis=-1)
    light = distort(steps, "over_exposure", 3, seed=0).astype(float) ** 2.2
    expected = np.minimum(steps.astype(float) ** 2.2 * SEVERITIES["over_exposure"][2], 1)
    assert np.allclose(light, expected, atol=1e-5)


def test_colour_cast_has_the_stated_strength():
    grey = np.full((16, 16, 3), 0.5, dtype=np.float32)
    for seed in range(5):
        gains = distort(grey, "colour_cast", 4, seed)[0, 0] / 0.5
        assert gains.mean() == pytest.approx(1, abs=1e-6)
        # Three samples of a cosine, a third of its period apart.
        amplitude = np.sqrt(2 * gains.var())
        assert amplitude == pytest.approx(SEVERITIES["colour_cast"][3], rel=1e-5)


def test_low_contrast_keeps_the_mean_and_a_share_of_the_spread(picture):
    flat = distort(picture, "low_contrast", 4, seed=0)
    assert flat.mean() == pytest.approx(picture.mean(), abs=1e-5)
    assert flat.std() == pytest.approx(SEVERITIES["low_contrast"][3] * picture.std(), rel=1e-4)


def test_pixelation_takes_the_mean_of_each_block(picture):
    cut = picture[:33, :27]
    pixelated = distort(cut, "pixelation", 4, seed=0)
    block = int(SEVERITIES["pixelation"][3])
    for top in range(0, 33, block):
        for left in range(0, 27, block):
            square = np.s_[top : top + block, left : left + block]
            means = cut[square].astype(float).mean(axis=(0, 1))
            assert np.allclose(pixelated[square], means, atol=1e-6)


def test_ringing_overshoots_as_gibbs_found():
    """A band-limited step overshoots by 8.95 % of its height."""
    step = np.full((64, 256, 3), 0.3, dtype=np.float32)
    step[:, 128:] = 0.7
    rung = distort(step, "ringing", 5, seed=0)
    assert rung.max() - 0.7 == pytest.approx(0.0895 * 0.4, rel=0.05)
    assert 0.3 - rung.min() == pytest.approx(0.0895 * 0.4, rel=0.05)


def test_ringing_keeps_what_is_below_the_cutoff():
    cutoff = SEVERITIES["ringing"][2]
    for share, kept in ((0.8, True), (1.2, False)):
        wave = round(share * cutoff * 64)
        cosine = 0.5 + 0.4 * np.cos(np.pi * wave * (np.arange(64) + 0.5) / 64)
        bars = np.tile(cosine[None, :, None], (32, 1, 3)).astype(np.float32)
        rung = distort(bars, "ringing", 3, seed=0)
        assert np.allclose(rung, bars if kept else 0.5, atol=1e-5)


def test_banding_leaves_the_stated_number_of_values(picture):
    steps = int(SEVERITIES["banding"][1])
    banded = distort(picture, "banding", 2, seed=0)
    assert np.unique(banded).size <= steps
    assert np.abs(banded - picture).max() <= 0.5 / (steps - 1) + 1e-6


def test_jpeg2000_without_its_codec(picture, monkeypatch):
    monkeypatch.setattr(distortions.features, "check", lambda feature: feature != "jpg_2000")
    with pytest.raises(LatentiqaError, match=r"kind='jpeg2000'.*OpenJPEG.*install Pillow"):
        distort(picture, "jpeg2000", 1, 0)


def test_to_bytes_rounds():
    assert to_bytes(np.array([0, 0.4999, 0.502, 1, 1.2, -1])).tolist() == [0, 127, 128, 255, 255, 0]


def test_arguments_are_checked(picture):
    with pytest.raises(ConfigError, match=r"kind='fog'.*gaussian_blur"):
        distort(picture, "fog", 1, 0)
    for level in (0, 6):
        with pytest.raises(ConfigError, match=f"level={level}"):
            distort(picture, "jpeg", level, 0)
