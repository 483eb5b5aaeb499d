from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage

from latentiqa.data.distortions import DISTORTIONS, SEVERITIES, distort, to_bytes
from latentiqa.errors import ConfigError


@pytest.fixture(scope="module")
def picture():
    """Smooth structures of many sizes, as photos have."""
    noise = np.random.default_rng(0).standard_normal((96, 80, 3))
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


@pytest.mark.parametrize("kind", ["gaussian_noise", "low_light"])
def test_seed_changes_the_noise(picture, kind):
    assert not np.array_equal(distort(picture, kind, 3, 0), distort(picture, kind, 3, 1))


def test_noise_has_the_stated_strength():
    grey = np.full((200, 200, 3), 0.5, dtype=np.float32)
    noise = distort(grey, "gaussian_noise", 2, seed=0) - grey
    assert noise.std() == pytest.approx(SEVERITIES["gaussian_noise"][1], rel=0.02)
    assert abs(noise.mean()) < 1e-3


def test_low_light_keeps_the_stated_share_of_light():
    grey = np.full((200, 200, 3), 0.7, dtype=np.float32)
    light = distort(grey, "low_light", 3, seed=0).astype(float) ** 2.2
    assert light.mean() / 0.7**2.2 == pytest.approx(SEVERITIES["low_light"][2], rel=0.02)


def test_to_bytes_rounds():
    assert to_bytes(np.array([0, 0.4999, 0.502, 1, 1.2, -1])).tolist() == [0, 127, 128, 255, 255, 0]


def test_arguments_are_checked(picture):
    with pytest.raises(ConfigError, match=r"kind='fog'.*gaussian_blur"):
        distort(picture, "fog", 1, 0)
    for level in (0, 6):
        with pytest.raises(ConfigError, match=f"level={level}"):
            distort(picture, "jpeg", level, 0)
