from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from scipy import ndimage
from skimage import color

from latentiqa.data import distortions, kadid
from latentiqa.data.kadid import KINDS, LEVELS, NAMES, UNORDERED, distort, from_lab, to_lab
from latentiqa.errors import ConfigError, LatentiqaError

UNSEEN = {("gaussian_blur", 1), ("color_saturation_2", 1), ("mean_shift", 3)}
"""What the authors' strengths leave as it is, but for rounding."""
RANDOM = {
    *("motion_blur", "color_shift", "white_noise", "white_noise_color_component"),
    *("impulse_noise", "multiplicative_noise", "denoise", "jitter"),
    *("non_eccentricity_patch", "color_block"),
}


def smooth(height: int, width: int) -> kadid.Picture:
    """Coloured structures of many sizes, as photos have, in [0.05, 0.95]."""
    noise = np.random.default_rng(0).standard_normal((height, width, 3))
    mixed = sum(ndimage.gaussian_filter(noise, (s, s, 0.4)) * s for s in (0.7, 2, 6, 15))
    return (0.05 + 0.9 * (mixed - mixed.min()) / np.ptp(mixed)).astype(np.float32)


@pytest.fixture(scope="module")
def picture():
    return smooth(160, 128)


@pytest.fixture(scope="module")
def distorted(picture):
    """Kind -> its five pictures."""
    return {n: [distort(picture, n, level, seed=3) for level in LEVELS] for n in NAMES.values()}


def error(image: kadid.Picture, picture: kadid.Picture) -> float:
    return float(np.mean((image - picture) ** 2))


def test_kinds_are_the_authors():
    assert list(NAMES) == list(range(1, 26))
    assert len(set(NAMES.values())) == 25
    assert [NAMES[n] for n in (1, 10, 20, 25)] == [
        *("gaussian_blur", "jpeg", "non_eccentricity_patch", "contrast_change")
    ]


@pytest.mark.parametrize("kind", NAMES.values())
def test_float32_in_range(picture, distorted, kind):
    for image in distorted[kind]:
        assert image.dtype == np.float32
        assert image.shape == picture.shape
        assert image.min() >= 0
        assert image.max() <= 1


@pytest.mark.parametrize(("number", "kind"), NAMES.items())
def test_deterministic_and_pure(picture, distorted, number, kind):
    before = picture.copy()
    assert np.array_equal(distort(picture, number, 4, seed=3), distorted[kind][3])
    assert np.array_equal(picture, before)
    other = distort(picture, number, 4, seed=4)
    assert np.array_equal(other, distorted[kind][3]) == (kind not in RANDOM)


@pytest.mark.parametrize("kind", NAMES.values())
def test_damage_grows_with_the_level(picture, distorted, kind):
    errors = [error(image, picture) for image in distorted[kind]]
    if kind in UNORDERED:
        assert errors[0] > errors[1] > errors[2]
        assert errors[3] < errors[4]
    else:
        assert all(low < high for low, high in pairwise(errors))
    for level, found in zip(LEVELS, errors, strict=True):
        assert (found < 1e-10) == ((kind, level) in UNSEEN)


@pytest.mark.parametrize("kind", NAMES.values())
@pytest.mark.parametrize("shape", [(16, 16), (17, 61)])
def test_small_pictures(picture, kind, shape):
    cut = picture[: shape[0], : shape[1]]
    image = distort(cut, kind, 5, seed=0)
    assert image.shape == cut.shape
    assert np.isfinite(image).all()
    assert not np.array_equal(image, cut)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_flat_pictures(value):
    flat = np.full((32, 40, 3), value, np.float32)
    for kind in NAMES:
        image = distort(flat, kind, 3, seed=0)
        assert np.isfinite(image).all()
        assert image.min() >= 0
        assert image.max() <= 1


def test_what_is_the_same_thing_is_not_there_twice():
    shared = {kind.name for kind in KINDS.values() if kind.apply.__module__ == distortions.__name__}
    assert shared == {"gaussian_blur", "motion_blur", "jpeg", "jpeg2000"}


def test_lab_is_that_of_scikit_image(picture):
    assert np.allclose(to_lab(picture), color.rgb2lab(picture), atol=0.01)
    assert np.allclose(from_lab(to_lab(picture)), picture, atol=1e-5)


@pytest.mark.parametrize("level", [1, 3, 5])
def test_lens_blur_is_a_disk(level):
    """The second moment of a disk along each axis is r^2 / 4."""
    radius = KINDS[2].strengths[level - 1]
    impulse = np.zeros((41, 41, 3), np.float32)
    impulse[20, 20] = 1
    spread = distort(impulse, "lens_blur", level, seed=0)[..., 0].astype(float)
    assert spread.sum() == pytest.approx(1, abs=1e-4)
    for axis in (0, 1):
        moment = spread.sum(axis) @ (np.arange(41) - 20.0) ** 2
        assert moment == pytest.approx(radius**2 / 4 + 1 / 12, rel=0.05, abs=0.06)


def test_color_diffusion_keeps_lightness(picture):
    grey = 0.5 + 0.2 * (picture - 0.5)
    diffused = distort(grey, "color_diffusion", 1, seed=0)
    assert np.allclose(to_lab(diffused)[..., 0], to_lab(grey)[..., 0], atol=0.05)
    assert to_lab(diffused)[..., 1:].std() < 0.8 * to_lab(grey)[..., 1:].std()


def test_color_shift_moves_green_at_edges():
    step = np.zeros((96, 96, 3), np.float32)
    step[:, 48:] = 0.8
    for seed in range(4):
        shifted = distort(step, "color_shift", 5, seed)
        assert np.array_equal(shifted[..., ::2], step[..., ::2])
        changed = np.flatnonzero((shifted != step).any(axis=(0, 2)))
        # Something right of the edge, within the 12 pixels of the shift.
        assert 48 <= changed.min(initial=48) <= changed.max(initial=48) < 60


def test_color_quantization_leaves_so_many_colours(distorted):
    counts = [len(np.unique(i.reshape(-1, 3), axis=0)) for i in distorted["color_quantization"]]
    assert all(count <= n for count, n in zip(counts, KINDS[6].strengths, strict=True))
    assert counts[-1] == 8


@pytest.mark.parametrize("level", LEVELS)
def test_saturations_are_those_of_hsv_and_lab(picture, distorted, level):
    hsv = color.rgb2hsv(picture)
    hsv[..., 1] *= KINDS[7].strengths[level - 1]
    found = distorted["color_saturation_1"][level - 1]
    if level < 5:  # below 0 there is no saturation for scikit-image
        assert np.allclose(found, color.hsv2rgb(hsv), atol=1e-4)
    else:
        assert ((found.argmin(-1) == picture.argmax(-1)) | (np.ptp(found, -1) < 1e-3)).all()
    lab = to_lab(picture) * np.array([1, *2 * [KINDS[8].strengths[level - 1]]], np.float32)
    assert np.allclose(distorted["color_saturation_2"][level - 1], from_lab(lab), atol=1e-4)


def test_noises_have_the_stated_variances():
    grey = np.full((200, 200, 3), 0.5, np.float32)
    noise = {kind: distort(grey, kind, 3, seed=0) - grey for kind in RANDOM}
    assert noise["white_noise"].var() == pytest.approx(0.003, rel=0.02)
    assert noise["multiplicative_noise"].var() == pytest.approx(0.5**2 * 0.01, rel=0.02)
    assert np.abs(noise["multiplicative_noise"]).max() < 0.5 * (3 * 0.01) ** 0.5 + 1e-6
    components = noise["white_noise_color_component"].reshape(-1, 3) @ kadid.YCBCR.T
    assert np.allclose(np.cov(components.T), 0.001 * np.eye(3), atol=3e-5)
    struck = noise["impulse_noise"]
    assert (struck > 0).mean() == pytest.approx(0.005, rel=0.15)
    assert (struck < 0).mean() == pytest.approx(0.005, rel=0.15)
    assert set(np.unique(struck)) == {-0.5, 0, 0.5}


@pytest.mark.parametrize("level", LEVELS)
def test_denoise_takes_noise_away(picture, level):
    variance = KINDS[15].strengths[level - 1]
    noisy = kadid.white_noise(picture, variance, np.random.default_rng(0))
    denoised = kadid.denoise(picture, variance, np.random.default_rng(0))
    assert error(denoised, picture) < 0.4 * error(noisy, picture)


def test_tones_move_as_stated():
    tones = np.repeat(np.linspace(0, 1, 41, dtype=np.float32)[:, None, None], 3, axis=-1)
    tones = np.repeat(tones, 16, axis=1)

    def at(kind: str, level: int, tone: float) -> float:
        image = distort(tones, kind, level, seed=0)
        assert np.ptp(image, axis=(1, 2)).max() < 1e-3
        assert np.diff(image[:, 0, 0]).min() > -1e-4
        return float(image[round(40 * tone), 0, 0])

    assert at("darken", 4, 0.5) == pytest.approx(0.3, abs=1e-5)
    # Two thirds of 0.6, one third of lightness 0.5 lifted by 0.1: L of 0.5 is 53.39.
    lightness = 53.389 + 40 * 0.53389 * (1 - 0.53389)
    lifted = ((((lightness + 16) / 116) ** 3) ** (1 / 2.4)) * 1.055 - 0.055
    assert at("brighten", 2, 0.5) == pytest.approx((1.2 + lifted) / 3, abs=1e-3)
    assert at("mean_shift", 1, 0.5) == pytest.approx(0.65, abs=1e-6)
    for level, amount in zip(LEVELS, KINDS[25].strengths, strict=True):
        assert at("contrast_change", level, 0.3) == pytest.approx(0.25 - amount / 4, abs=1e-5)
        assert at("contrast_change", level, 0.7) == pytest.approx(0.75 + amount / 4, abs=1e-5)
        assert at("contrast_change", level, 0.5) == pytest.approx(0.5, abs=1e-5)
    for kind in ("brighten", "darken", "contrast_change"):
        assert at(kind, 5, 0) == pytest.approx(0, abs=1e-5)
        assert at(kind, 5, 1) == pytest.approx(1, abs=1e-5)


def test_jitter_displaces_by_the_stated_amount():
    """On a ramp a displacement is a change of the value."""
    ramp = np.repeat(np.linspace(0, 1, 201, dtype=np.float32)[None, :, None], 100, axis=0)
    moved = (distort(np.repeat(ramp, 3, -1), "jitter", 2, seed=0) - ramp)[10:-10, 10:-10, 0] * 200
    # Five moves, each an average over neighbours that have moved.
    assert 0.1 < moved.std() < 0.1 * 5**0.5
    assert abs(moved.mean()) < 0.01


def test_patches_come_from_nearby():
    places = np.mgrid[:96, :96].transpose(1, 2, 0).astype(np.float32) / 96
    image = np.concatenate([places, places[..., :1]], axis=-1)
    patched = distort(image, "non_eccentricity_patch", 5, seed=1)
    offsets = np.rint(96 * (patched - image)[..., :2])
    assert np.abs(offsets).max() == 8
    assert 0.3 < (offsets != 0).any(-1).mean() < 1


def test_pixelate_repeats_pixels():
    columns = np.repeat(np.linspace(0, 1, 100, dtype=np.float32)[None, :, None], 16, axis=0)
    image = distort(np.repeat(columns, 3, -1), "pixelate", 5, seed=0)
    kept = np.unique(image)
    assert len(kept) == np.ceil(100 * (0.95 - 0.5**0.6))
    assert np.isin(kept, columns).all()


def test_quantization_leaves_so_many_values(distorted):
    for image, thresholds in zip(distorted["quantization"], KINDS[22].strengths, strict=True):
        assert len(np.unique(image)) <= thresholds + 1
    assert set(np.unique(distorted["quantization"][-1])) >= {0, 1}


@pytest.mark.parametrize("number", [1, 2, 3])
def test_otsu_thresholds_are_the_best(number):
    counts = np.random.default_rng(0).integers(0, 30, 14)
    values = np.repeat(np.arange(14), counts)

    def within(thresholds) -> float:
        classes = np.searchsorted(thresholds, values, side="right")
        return sum(values[classes == c].var() * (classes == c).sum() for c in set(classes))

    best = min(within(chosen) for chosen in combinations(range(1, 14), number))
    assert within(kadid.otsu_thresholds(counts, number)) == pytest.approx(best)


def test_color_blocks_are_squares_of_32():
    grey = np.full((128, 160, 3), 0.5, np.float32)
    blocks = (distort(grey, "color_block", 1, seed=0) != grey).any(-1)
    assert 32**2 <= blocks.sum() <= 2 * 32**2
    labels, _ = ndimage.label(blocks)
    for rows, columns in ndimage.find_objects(labels):
        assert rows.stop - rows.start >= 32
        assert columns.stop - columns.start >= 32


def test_high_sharpen_overshoots_at_edges_only():
    step = np.full((32, 96, 3), 0.3, np.float32)
    step[:, 48:] = 0.6
    sharp = distort(step, "high_sharpen", 1, seed=0)
    assert np.allclose(sharp[:, :30], 0.3, atol=1e-3)
    assert sharp[0, 47, 0] < 0.2
    assert sharp[0, 48, 0] > 0.7


def test_jpeg2000_without_its_codec(picture, monkeypatch):
    monkeypatch.setattr(distortions.features, "check", lambda feature: feature != "jpg_2000")
    with pytest.raises(LatentiqaError, match=r"install Pillow from its wheel, or leave"):
        distort(picture, 9, 1, 0)


@pytest.mark.parametrize("kind", [0, 26, "fog", True, 1.5, None])
def test_unknown_kinds(picture, kind):
    with pytest.raises(ConfigError, match=rf"types=.*{kind}.* is none of 1 gaussian_blur, 2 lens"):
        distort(picture, kind, 1, 0)


@pytest.mark.parametrize("level", [0, 6, "x", True])
def test_unknown_levels(picture, level):
    with pytest.raises(ConfigError, match=rf"levels=.*{level}.* is none of 1 to 5"):
        distort(picture, 1, level, 0)


def test_lists_of_kinds_and_levels():
    assert kadid.check_kinds(None) == tuple(range(1, 26))
    assert kadid.check_kinds(["jpeg", 1, "1", "lens_blur"]) == (1, 2, 10)
    assert kadid.check_levels([5, 1, 1]) == (1, 5)
    for wrong in ([], "jpeg", 3):
        with pytest.raises(ConfigError, match=r"types=.*: expected a list of some of 1 gaussian"):
            kadid.check_kinds(wrong)
        with pytest.raises(ConfigError, match=r"levels=.*: expected a list of some of 1 to 5"):
            kadid.check_levels(wrong)
