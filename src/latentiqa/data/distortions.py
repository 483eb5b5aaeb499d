"""Synthetic distortions of five severities, for the demo dataset, pretraining and experiments.

Pictures are float32 arrays (H, W, 3) in [0, 1], sRGB, of 16 pixels a side and more. Kinds follow
the groups of KADID-10k (Lin, Hosu and Saupe, QoMEX 2019); the strengths are ours, chosen by eye
for pictures of 256 pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features
from scipy import fft, ndimage, signal

from latentiqa.errors import ConfigError, LatentiqaError

Picture = NDArray[np.float32]

GAMMA = 2.2
FULL_WELL = 2000.0
"""Photons that make a white pixel in `low_light`: fewer are noisier."""


def gaussian_blur(image: Picture, sigma: float, rng: np.random.Generator) -> Picture:
    """Blur with a Gaussian of ``sigma`` pixels; ``rng`` is not used."""
    blurred = ndimage.gaussian_filter(image, sigma=(sigma, sigma, 0), mode="reflect")
    return blurred.astype(np.float32, copy=False)


def gaussian_noise(image: Picture, std: float, rng: np.random.Generator) -> Picture:
    """Add white noise of standard deviation ``std`` to every channel."""
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image + std * noise, 0, 1).astype(np.float32)


def jpeg(image: Picture, quality: float, rng: np.random.Generator) -> Picture:
    """Encode and decode as JPEG of ``quality`` 1 to 95; ``rng`` is not used."""
    buffer = BytesIO()
    Image.fromarray(to_bytes(image)).save(buffer, format="JPEG", quality=int(quality))
    return np.asarray(Image.open(buffer), dtype=np.float32) / np.float32(255)


def low_light(image: Picture, exposure: float, rng: np.random.Generator) -> Picture:
    """Keep only a share ``exposure`` of the light, with the shot noise of what is left."""
    photons = rng.poisson(image.astype(np.float64) ** GAMMA * exposure * FULL_WELL)
    return np.clip((photons / FULL_WELL) ** (1 / GAMMA), 0, 1).astype(np.float32)


def motion_blur(image: Picture, length: float, rng: np.random.Generator) -> Picture:
    """Blur along a straight path of ``length`` pixels, in a random direction."""
    angle = rng.uniform(0, np.pi)
    radius = int(length / 2) + 1
    pixels = np.arange(-radius, radius + 1)[:, None]
    path = length * ((np.arange(8 * radius) + 0.5) / (8 * radius) - 0.5)
    # Each point of the path is shared among its four pixels, as in bilinear interpolation.
    rows = np.maximum(1 - abs(pixels - path * np.sin(angle)), 0)
    columns = np.maximum(1 - abs(pixels - path * np.cos(angle)), 0)
    return convolve(image, (rows @ columns.T / path.size).astype(np.float32))


def jpeg2000(image: Picture, rate: float, rng: np.random.Generator) -> Picture:
    """Encode and decode as JPEG 2000, compressed ``rate`` times; ``rng`` is not used.

    Below some 128 pixels a side the codec's own headers set a limit to the rate.

    Raises:
        LatentiqaError: the installed Pillow has no JPEG 2000 codec.
    """
    if not features.check("jpg_2000"):
        raise LatentiqaError(
            "kind='jpeg2000': the installed Pillow has no JPEG 2000 codec (OpenJPEG); "
            "install Pillow from its wheel, or leave this kind out"
        )
    buffer = BytesIO()
    options = {"quality_mode": "rates", "quality_layers": [rate], "irreversible": True}
    Image.fromarray(to_bytes(image)).save(buffer, format="JPEG2000", **options)
    return np.asarray(Image.open(buffer), dtype=np.float32) / np.float32(255)


def over_exposure(image: Picture, gain: float, rng: np.random.Generator) -> Picture:
    """Take ``gain`` times the light, and clip what is too much; ``rng`` is not used."""
    return np.clip(image * np.float32(gain ** (1 / GAMMA)), 0, 1)


def colour_cast(image: Picture, strength: float, rng: np.random.Generator) -> Picture:
    """Tint with a random hue: gains of the channels between 1 - and 1 + ``strength``, mean 1."""
    phases = rng.uniform(0, 2 * np.pi) + np.arange(3) * 2 * np.pi / 3
    return np.clip(image * (1 + strength * np.cos(phases)).astype(np.float32), 0, 1)


def low_contrast(image: Picture, share: float, rng: np.random.Generator) -> Picture:
    """Keep a ``share`` of the deviations from the picture's mean; ``rng`` is not used."""
    mean = image.mean()
    return np.clip(mean + np.float32(share) * (image - mean), 0, 1)


def pixelation(image: Picture, block: float, rng: np.random.Generator) -> Picture:
    """Replace squares of ``block`` pixels by their means; ``rng`` is not used."""
    block = int(block)
    for axis in (0, 1):
        starts = np.arange(0, image.shape[axis], block)
        # The last block may be cut off by the border.
        sizes = np.diff(starts, append=image.shape[axis])
        sums = np.add.reduceat(image, starts, axis)
        means = np.moveaxis(np.moveaxis(sums, axis, -1) / sizes.astype(np.float32), -1, axis)
        image = np.repeat(means, sizes, axis)
    return np.clip(image, 0, 1)


def ringing(image: Picture, cutoff: float, rng: np.random.Generator) -> Picture:
    """Drop all frequencies above ``cutoff`` (1 is Nyquist); ``rng`` is not used.

    The cut is ideal, so that edges overshoot and ripple (Gibbs). In the cosine transform, that is
    of the mirrored picture: its borders are no edges.
    """
    height, width = image.shape[:2]
    frequencies = np.hypot(np.arange(height)[:, None] / height, np.arange(width) / width)
    spectrum = np.asarray(fft.dctn(image, axes=(0, 1)))
    spectrum[frequencies > cutoff] = 0
    return np.clip(np.asarray(fft.idctn(spectrum, axes=(0, 1))), 0, 1)


def banding(image: Picture, steps: float, rng: np.random.Generator) -> Picture:
    """Round every channel to ``steps`` values; ``rng`` is not used."""
    banded = np.rint(image * (steps - 1)) / (steps - 1)
    return banded.astype(np.float32, copy=False)


DISTORTIONS: dict[str, Callable[[Picture, float, np.random.Generator], Picture]] = {
    "gaussian_blur": gaussian_blur,
    "gaussian_noise": gaussian_noise,
    "jpeg": jpeg,
    "low_light": low_light,
    "motion_blur": motion_blur,
    "jpeg2000": jpeg2000,
    "over_exposure": over_exposure,
    "colour_cast": colour_cast,
    "low_contrast": low_contrast,
    "pixelation": pixelation,
    "ringing": ringing,
    "banding": banding,
}
SEVERITIES: dict[str, tuple[float, float, float, float, float]] = {
    "gaussian_blur": (0.6, 1.0, 1.6, 2.6, 4.2),
    "gaussian_noise": (0.02, 0.04, 0.08, 0.14, 0.25),
    "jpeg": (45, 25, 13, 7, 3),
    "low_light": (0.6, 0.35, 0.2, 0.1, 0.05),
    "motion_blur": (3, 5, 9, 15, 25),
    "jpeg2000": (15, 30, 60, 110, 200),
    "over_exposure": (1.3, 1.7, 2.4, 3.6, 6.0),
    "colour_cast": (0.05, 0.09, 0.15, 0.23, 0.35),
    "low_contrast": (0.8, 0.62, 0.46, 0.32, 0.2),
    "pixelation": (2, 3, 4, 6, 10),
    "ringing": (0.6, 0.45, 0.33, 0.23, 0.15),
    "banding": (24, 15, 10, 7, 5),
}
"""Strength of each kind at levels 1 (barely visible) to 5 (severe)."""


def distort(image: Picture, kind: str, level: int, seed: int) -> Picture:
    """Distort a picture.

    Args:
        image: (H, W, 3) in [0, 1].
        kind: a key of `DISTORTIONS`.
        level: 1 to 5.
        seed: of the kinds that draw noise, a direction or a hue; the same seed gives the same
            picture.

    Returns:
        (H, W, 3) in [0, 1]; a new array.

    Raises:
        ConfigError: an unknown kind or a level outside 1 to 5.
        LatentiqaError: the installed Pillow has no codec for this kind.

    Example:
        >>> dark = distort(np.ones((8, 8, 3), np.float32), "low_light", level=5, seed=0)
        >>> bool(dark.mean() < 0.3)
        True
    """
    if kind not in DISTORTIONS:
        raise ConfigError(f"kind={kind!r}: expected one of {', '.join(DISTORTIONS)}")
    if level not in range(1, 6):
        raise ConfigError(f"level={level}: expected 1 to 5")
    strength = SEVERITIES[kind][level - 1]
    return DISTORTIONS[kind](image, strength, np.random.default_rng(seed))


def convolve(image: Picture, kernel: NDArray[np.float32]) -> Picture:
    """Every channel convolved with a square ``kernel`` of odd side; borders are mirrored."""
    radius = len(kernel) // 2
    padded = np.pad(image, ((radius, radius), (radius, radius), (0, 0)), mode="symmetric")
    blurred = signal.fftconvolve(padded, kernel[..., None], mode="valid", axes=(0, 1))
    return np.clip(blurred, 0, 1)


def to_bytes(image: Picture) -> NDArray[np.uint8]:
    """Round a picture in [0, 1] to 8 bits."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
