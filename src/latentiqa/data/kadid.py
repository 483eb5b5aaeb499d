"""The 25 distortions of KADID-10k at five levels each, numbered and named as its authors do.

Lin, Hosu and Saupe, "KADID-10k: A Large-scale Artificially Distorted IQA Database", QoMEX 2019.
What they did with MATLAB is done here anew with NumPy, SciPy and Pillow. The strengths of
the levels in `KINDS` are the authors', as they published them; each function says what else is
theirs and what is our reading. Their rescaling of every picture to its full range, before and
after, is left out: it would undo a shift of the mean.

The authors' levels are taken as they are, with what is odd about them. Level 1 of
``gaussian_blur`` and of ``color_saturation_2`` changes nothing that could be seen, and levels of
the kinds in `UNORDERED` are no order of damage.

Pictures are float32 arrays (H, W, 3) in [0, 1], sRGB, of 16 pixels a side and more. Sizes are in
pixels of pictures of 512 x 384, the authors' size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.interpolate import PchipInterpolator

from latentiqa.data.distortions import (
    Picture,
    convolve,
    gaussian_blur,
    gaussian_noise,
    jpeg,
    jpeg2000,
    motion_blur,
    to_bytes,
)
from latentiqa.errors import ConfigError

LEVELS = (1, 2, 3, 4, 5)

GREY = np.array([0.299, 0.587, 0.114], np.float32)
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
     [0.0193339, 0.1191920, 0.9503041]], np.float32
)  # fmt: skip
"""Linear sRGB to XYZ; white is the sum of the columns, D65."""
YCBCR = np.array(
    [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]
) / 255  # fmt: skip
"""sRGB in [0, 1] to YCbCr of ITU-R BT.601 in [0, 1], without its offset."""


def lens_blur(image: Picture, radius: float, rng: np.random.Generator) -> Picture:
    """Blur with a disk of ``radius`` pixels; ``rng`` is not used.

    The radius is the authors'; a pixel at the disk's border counts by its share in the disk.
    """
    reach, fine = int(np.ceil(radius)), 9
    steps = (np.arange((2 * reach + 1) * fine) + 0.5) / fine - reach - 0.5
    inside = np.hypot(steps[:, None], steps) <= radius
    shares = inside.reshape(2 * reach + 1, fine, 2 * reach + 1, fine).mean((1, 3))
    return convolve(image, (shares / shares.sum()).astype(np.float32))


def color_diffusion(image: Picture, amount: float, rng: np.random.Generator) -> Picture:
    """Let colours run: blur a and b of Lab, and multiply them by ``amount``.

    The standard deviation, 1.5 ``amount`` + 2 pixels, is the authors'. ``rng`` is not used.
    """
    lab = to_lab(image)
    sigma = 1.5 * amount + 2
    lab[..., 1:] = amount * ndimage.gaussian_filter(lab[..., 1:], (sigma, sigma, 0))
    return from_lab(lab)


def color_shift(image: Picture, amount: float, rng: np.random.Generator) -> Picture:
    """Move green by ``amount`` pixels, right and down, where there are edges.

    The authors': the channel, the random direction, and the weight of what is moved, which is the
    magnitude of the grey picture's gradient, smoothed by 4 pixels, truncated below 0.1 and
    stretched to [0, 1] between its first and last percentile. What comes in at the border is
    mirrored.
    """
    height, width = image.shape[:2]
    direction = rng.random(2)
    down, right = np.rint(amount * direction / np.hypot(*direction)).astype(int)
    green = image[..., 1]
    moved = np.pad(green, ((down, 0), (right, 0)), mode="symmetric")[:height, :width]
    steep, along = np.gradient(image @ GREY)
    edges = np.asarray(ndimage.gaussian_filter(np.hypot(steep, along), 4))
    edges = np.maximum(_stretched(edges, 0, 100), np.float32(0.1))
    shifted = image.copy()
    shifted[..., 1] += _stretched(edges, 1, 99) * (moved - green)
    return shifted


def color_quantization(image: Picture, colors: float, rng: np.random.Generator) -> Picture:
    """Keep so many ``colors``, with dithering; ``rng`` is not used.

    The authors' colours are chosen for least variance; ours are those of the median cut. Both are
    dithered by error diffusion.
    """
    pixels = Image.fromarray(to_bytes(image))
    palette = pixels.quantize(int(colors), Image.Quantize.MEDIANCUT)
    dithered = pixels.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    return np.asarray(dithered.convert("RGB"), dtype=np.float32) / np.float32(255)


def color_saturation_1(image: Picture, factor: float, rng: np.random.Generator) -> Picture:
    """Multiply the saturation of HSV by ``factor``; ``rng`` is not used.

    The factor is the authors': 0 leaves greys, below 0 hues turn into their complements.
    """
    # With hue and value fixed, every channel's distance from the largest is proportional to it.
    value = image.max(axis=-1, keepdims=True)
    return np.clip(value - np.float32(factor) * (value - image), 0, 1)


def color_saturation_2(image: Picture, factor: float, rng: np.random.Generator) -> Picture:
    """Multiply a and b of Lab by ``factor``, the authors'; ``rng`` is not used."""
    lab = to_lab(image)
    lab[..., 1:] *= factor
    return from_lab(lab)


def white_noise(image: Picture, variance: float, rng: np.random.Generator) -> Picture:
    """Add Gaussian noise of a ``variance``, the authors', to every channel."""
    return gaussian_noise(image, variance**0.5, rng)


def white_noise_color_component(
    image: Picture, variance: float, rng: np.random.Generator
) -> Picture:
    """Add Gaussian noise of a ``variance``, the authors', to Y, Cb and Cr of [0, 1]."""
    noise = variance**0.5 * rng.standard_normal(image.shape)
    return np.clip(image + noise @ np.linalg.inv(YCBCR).T, 0, 1).astype(np.float32)


def impulse_noise(image: Picture, density: float, rng: np.random.Generator) -> Picture:
    """Set a share ``density``, the authors', of all values to 0 or to 1."""
    drawn = rng.random(image.shape, dtype=np.float32)
    pepper, salt = drawn < density / 2, drawn >= 1 - density / 2
    return np.where(pepper, np.float32(0), np.where(salt, np.float32(1), image))


def multiplicative_noise(image: Picture, variance: float, rng: np.random.Generator) -> Picture:
    """Multiply by 1 + uniform noise of a ``variance``, the authors', which is MATLAB's speckle."""
    noise = (12 * variance) ** 0.5 * (rng.random(image.shape, dtype=np.float32) - 0.5)
    return np.clip(image + noise * image, 0, 1).astype(np.float32)


def denoise(image: Picture, variance: float, rng: np.random.Generator) -> Picture:
    """Add Gaussian noise of a ``variance``, the authors', and take it away again.

    They denoise each channel with a trained network, DnCNN. Ours needs no weights: the total
    variation filter (Chambolle, 2004), its weight proportional to the noise, chosen by the mean
    squared error on photos.
    """
    from skimage.restoration import denoise_tv_chambolle  # a quarter of a second

    noisy = white_noise(image, variance, rng)
    # As many steps for all: where the filter stops by itself, it stops too early at some levels.
    smooth = denoise_tv_chambolle(
        noisy, weight=1.2 * variance**0.5, eps=0, max_num_iter=50, channel_axis=-1
    )
    return np.clip(smooth, 0, 1).astype(np.float32)


def brighten(image: Picture, amount: float, rng: np.random.Generator) -> Picture:
    """Lift the mid-tones: 0.5 becomes 0.5 + ``amount`` / 2; ``rng`` is not used.

    The authors': two parts of the lifted channels and one part of the lifted lightness of Lab.
    The curve through black, this point and white is our parabola.
    """
    lab = to_lab(image)
    lab[..., 0] = 100 * _bent(lab[..., 0] / np.float32(100), amount)
    return (2 * _bent(image, amount) + from_lab(lab)) / np.float32(3)


def darken(image: Picture, amount: float, rng: np.random.Generator) -> Picture:
    """Lower the mid-tones: 0.5 becomes 0.5 - ``amount`` / 2; ``rng`` is not used.

    The amount is the authors'; the curve is that of `brighten`, on the channels only.
    """
    return _bent(image, -amount)


def mean_shift(image: Picture, shift: float, rng: np.random.Generator) -> Picture:
    """Add ``shift``, the authors', to every value; ``rng`` is not used."""
    return np.clip(image + np.float32(shift), 0, 1)


def jitter(image: Picture, amount: float, rng: np.random.Generator) -> Picture:
    """Displace every pixel by Gaussian noise of ``amount`` pixels, five times over.

    Amount and number of times are the authors', who interpolate by cubics. Ours are splines.
    """
    places = np.indices(image.shape[:2], np.float32)
    moved = image
    for _ in range(5):
        drawn = places + amount * rng.standard_normal(places.shape, dtype=np.float32)
        channels = [
            np.asarray(ndimage.map_coordinates(channel, drawn, np.float32, mode="mirror"))
            for channel in np.moveaxis(moved, -1, 0)
        ]
        moved = np.stack(channels, axis=-1).astype(np.float32, copy=False)
    return np.clip(moved, 0, 1)


def non_eccentricity_patch(image: Picture, patches: float, rng: np.random.Generator) -> Picture:
    """Copy so many ``patches`` a few pixels off.

    Their number, their side of 16 pixels and the largest offset, 8 pixels each way, are the
    authors'. They are taken from the picture as it was.
    """
    side = min(16, *(length // 2 for length in image.shape[:2]))
    patched = image.copy()
    ends = np.array(image.shape[:2]) - side
    for _ in range(int(patches)):
        top, left = place = rng.integers(ends + 1)
        onto, beside = np.clip(place + rng.integers(-8, 9, 2), 0, ends)
        patch = image[top : top + side, left : left + side]
        patched[onto : onto + side, beside : beside + side] = patch
    return patched


def pixelate(image: Picture, strength: float, rng: np.random.Generator) -> Picture:
    """Scale down to 0.95 - ``strength`` ^ 0.6 and up again, by nearest neighbours.

    The formula is the authors'. ``rng`` is not used.
    """
    pixelated = image
    for axis, length in enumerate(image.shape[:2]):
        fewer = max(1, int(np.ceil((0.95 - strength**0.6) * length)))
        nearest = ((np.arange(length) + 0.5) * fewer / length).astype(int)
        source = ((nearest + 0.5) * length / fewer).astype(int)
        pixelated = np.take(pixelated, source, axis)
    return pixelated


def quantization(image: Picture, thresholds: float, rng: np.random.Generator) -> Picture:
    """Round every value by so many ``thresholds``, which are Otsu's; ``rng`` is not used.

    The authors': one set of thresholds for the three channels, and the values between: the upper
    threshold, but 0 below the first and 1 above the last. Ours are exact for 256 values.
    """
    values = to_bytes(image)
    found = otsu_thresholds(np.bincount(values.ravel(), minlength=256), int(thresholds))
    levels = np.array([0, *found[1:], 255], np.float32) / np.float32(255)
    table = levels[np.searchsorted(found, np.arange(256), side="right")]
    return table[values]


def color_block(image: Picture, blocks: float, rng: np.random.Generator) -> Picture:
    """Cover the picture by so many ``blocks`` of random colours at random places.

    Their number and their side of 32 pixels are the authors'.
    """
    side = min(32, *(length // 2 for length in image.shape[:2]))
    covered = image.copy()
    for _ in range(int(blocks)):
        top, left = rng.integers(np.array(image.shape[:2]) - side + 1)
        covered[top : top + side, left : left + side] = rng.random(3, dtype=np.float32)
    return covered


def high_sharpen(image: Picture, amount: float, rng: np.random.Generator) -> Picture:
    """Add ``amount`` times what a blur of 3 pixels takes away from the lightness of Lab.

    Amount and blur are the authors'. ``rng`` is not used.
    """
    lab = to_lab(image)
    lightness = lab[..., 0]
    sharp = lightness + amount * (lightness - ndimage.gaussian_filter(lightness, 3))
    lab[..., 0] = np.clip(sharp, 0, 100)
    return from_lab(lab)


def contrast_change(image: Picture, amount: float, rng: np.random.Generator) -> Picture:
    """Make 0.3 and 0.7 to 0.25 - ``amount`` / 4 and 0.75 + ``amount`` / 4; ``rng`` is not used.

    The points are the authors', with black, white and 0.5 fixed. The curve through them is our
    monotone cubic.
    """
    points = (0, 0.25 - amount / 4, 0.5, 0.75 + amount / 4, 1)
    curve = PchipInterpolator((0, 0.3, 0.5, 0.7, 1), points)
    return np.clip(curve(image), 0, 1).astype(np.float32)


class Kind(NamedTuple):
    """One of the 25: the authors' name, what does it, and its strength at levels 1 to 5."""

    name: str
    apply: Callable[[Picture, float, np.random.Generator], Picture]
    strengths: tuple[float, float, float, float, float]


KINDS: dict[int, Kind] = {
    1: Kind("gaussian_blur", gaussian_blur, (0.1, 0.5, 1, 2, 5)),
    2: Kind("lens_blur", lens_blur, (1, 2, 4, 6, 8)),
    3: Kind("motion_blur", motion_blur, (1, 2, 4, 6, 10)),
    4: Kind("color_diffusion", color_diffusion, (1, 3, 6, 8, 12)),
    5: Kind("color_shift", color_shift, (1, 3, 6, 8, 12)),
    6: Kind("color_quantization", color_quantization, (64, 48, 32, 16, 8)),
    7: Kind("color_saturation_1", color_saturation_1, (0.4, 0.2, 0.1, 0, -0.4)),
    8: Kind("color_saturation_2", color_saturation_2, (1, 2, 3, 6, 9)),
    9: Kind("jpeg2000", jpeg2000, (16, 32, 45, 120, 400)),
    10: Kind("jpeg", jpeg, (43, 36, 24, 7, 4)),
    11: Kind("white_noise", white_noise, (0.001, 0.002, 0.003, 0.005, 0.01)),
    12: Kind(
        "white_noise_color_component",
        white_noise_color_component,
        (0.0001, 0.0005, 0.001, 0.002, 0.003),
    ),
    13: Kind("impulse_noise", impulse_noise, (0.001, 0.005, 0.01, 0.02, 0.03)),
    14: Kind("multiplicative_noise", multiplicative_noise, (0.001, 0.005, 0.01, 0.02, 0.05)),
    15: Kind("denoise", denoise, (0.01, 0.03, 0.05, 0.1, 0.15)),
    16: Kind("brighten", brighten, (0.1, 0.2, 0.4, 0.7, 1.1)),
    17: Kind("darken", darken, (0.05, 0.1, 0.2, 0.4, 0.8)),
    18: Kind("mean_shift", mean_shift, (0.15, 0.08, 0, -0.08, -0.15)),
    19: Kind("jitter", jitter, (0.05, 0.1, 0.2, 0.5, 1)),
    20: Kind("non_eccentricity_patch", non_eccentricity_patch, (20, 40, 60, 80, 100)),
    21: Kind("pixelate", pixelate, (0.01, 0.05, 0.1, 0.2, 0.5)),
    22: Kind("quantization", quantization, (20, 16, 13, 10, 7)),
    23: Kind("color_block", color_block, (2, 4, 6, 8, 10)),
    24: Kind("high_sharpen", high_sharpen, (1, 2, 3, 6, 12)),
    25: Kind("contrast_change", contrast_change, (0.3, 0.15, 0, -0.4, -0.6)),
}
"""KADID-10k's number of each kind; its pictures are named ``I<photo>_<number>_<level>.png``."""

NAMES: dict[int, str] = {number: kind.name for number, kind in KINDS.items()}

# What users may call them, and what they are told; not made anew for each picture.
_NUMBERS = {key: n for n, name in NAMES.items() for key in (str(n), name)}
_LISTING = ", ".join(f"{number} {name}" for number, name in NAMES.items())

UNORDERED = ("mean_shift", "contrast_change")
"""Their levels go from much to little and on the other way: the middle is nearest the original,
and level 3 of ``mean_shift`` is the original."""


def distort(image: Picture, kind: int | str, level: int, seed: int) -> Picture:
    """Distort a picture as KADID-10k does.

    Args:
        image: (H, W, 3) in [0, 1].
        kind: number or name, see `KINDS`.
        level: 1 to 5.
        seed: of the kinds that draw noise, places, a direction or colours; the same seed gives
            the same picture.

    Returns:
        (H, W, 3) in [0, 1].

    Raises:
        ConfigError: an unknown kind or a level outside 1 to 5.
        LatentiqaError: the installed Pillow has no JPEG 2000 codec.

    Example:
        >>> grey = np.full((32, 32, 3), 0.5, np.float32)
        >>> round(float(distort(grey, "darken", level=5, seed=0).mean()), 3)
        0.1
    """
    [number], [level] = check_kinds([kind]), check_levels([level])
    _, apply, strengths = KINDS[number]
    return apply(image, strengths[level - 1], np.random.default_rng(seed))


def check_kinds(kinds: Sequence[int | str] | None) -> tuple[int, ...]:
    """Numbers of kinds that a user names, in ascending order; all for none.

    Raises:
        ConfigError: there is no such kind, or the list is empty.

    Example:
        >>> check_kinds(["jpeg", 1])
        (1, 10)
    """
    if kinds is None:
        return tuple(KINDS)
    if isinstance(kinds, str) or not isinstance(kinds, Sequence) or not kinds:
        raise ConfigError(f"types={kinds!r}: expected a list of some of {_LISTING}")
    if unknown := [kind for kind in kinds if str(kind) not in _NUMBERS]:
        raise ConfigError(f"types={list(kinds)}: {unknown[0]!r} is none of {_LISTING}")
    return tuple(sorted({_NUMBERS[str(kind)] for kind in kinds}))


def check_levels(levels: Sequence[int] | None) -> tuple[int, ...]:
    """Levels that a user names, in ascending order; all for none.

    Raises:
        ConfigError: one is not of 1 to 5, or the list is empty.
    """
    if levels is None:
        return LEVELS
    if isinstance(levels, str) or not isinstance(levels, Sequence) or not levels:
        raise ConfigError(f"levels={levels!r}: expected a list of some of 1 to 5")
    if unknown := [level for level in levels if str(level) not in map(str, LEVELS)]:
        raise ConfigError(f"levels={list(levels)}: {unknown[0]!r} is none of 1 to 5")
    return tuple(sorted({int(level) for level in levels}))


def to_lab(image: Picture) -> NDArray[np.float32]:
    """SRGB in [0, 1] to CIE Lab under D65; L from 0 to 100. Shapes (..., 3)."""
    linear = np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)
    xyz = linear @ (XYZ / XYZ.sum(1, keepdims=True)).T
    bent = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(bent, -1, 0)
    return np.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), axis=-1).astype(np.float32)


def from_lab(lab: NDArray[np.float32]) -> Picture:
    """The way back; colours outside sRGB are clipped to [0, 1]."""
    y = (lab[..., 0] + 16) / 116
    bent = np.stack((y + lab[..., 1] / 500, y, y - lab[..., 2] / 200), axis=-1)
    xyz = np.where(bent > 6 / 29, bent**3, 3 * (6 / 29) ** 2 * (bent - 4 / 29))
    linear = np.clip(xyz @ np.linalg.inv(XYZ / XYZ.sum(1, keepdims=True)).T, 0, 1)
    image = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.clip(image, 0, 1).astype(np.float32)


def otsu_thresholds(counts: NDArray[np.integer], number: int) -> NDArray[np.intp]:
    """The thresholds that part a histogram into classes of the least variance within.

    Exact, by dynamic programming over the last class.

    Args:
        counts: (N,) how often each value 0 to N - 1 occurs.
        number: how many thresholds.

    Returns:
        (number,) in ascending order; each is the first value of the class above it.

    Example:
        >>> otsu_thresholds(np.array([5, 4, 0, 0, 9, 8, 0, 7]), 2)
        array([2, 6])
    """
    values = np.arange(len(counts), dtype=np.float64)
    moments = [np.cumsum([0, *(counts * values**power)]) for power in range(3)]
    n, first, second = (moment - moment[:, None] for moment in moments)
    # within[i, j] is the variance, times its size, of the class of values from i to j - 1.
    within = np.where(np.triu(np.ones_like(n)), second - first**2 / np.maximum(n, 1), np.inf)
    best, starts = within[0], []
    for _ in range(number):
        total = best[:, None] + within
        starts.append(total.argmin(axis=0))
        best = total.min(axis=0)
    thresholds, end = [], len(counts)
    for start in reversed(starts):
        end = start[end]
        thresholds.append(end)
    return np.array(thresholds[::-1])


def _bent(values: NDArray[np.float32], amount: float) -> NDArray[np.float32]:
    """The parabola through (0, 0), (0.5, 0.5 + ``amount`` / 2) and (1, 1), clipped to [0, 1]."""
    bent = values + np.float32(2 * amount) * values * (1 - values)
    return np.clip(bent, 0, 1).astype(np.float32, copy=False)


def _stretched(values: NDArray[np.floating], low: float, high: float) -> NDArray[np.float32]:
    """Map two percentiles to 0 and 1, and clip; what is constant becomes 0."""
    bottom, top = np.percentile(values, (low, high))
    scaled = (values - bottom) / max(top - bottom, np.finfo(np.float32).tiny)
    return np.clip(scaled, 0, 1).astype(np.float32)
