"""Synthetic distortions of five severities, for the demo dataset and for experiments.

Pictures are float32 arrays (H, W, 3) in [0, 1], sRGB. Kinds follow the groups of KADID-10k (Lin,
Hosu and Saupe, QoMEX 2019); the strengths are ours, chosen by eye for pictures of 256 pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from latentiqa.errors import ConfigError

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


DISTORTIONS: dict[str, Callable[[Picture, float, np.random.Generator], Picture]] = {
    "gaussian_blur": gaussian_blur,
    "gaussian_noise": gaussian_noise,
    "jpeg": jpeg,
    "low_light": low_light,
}
SEVERITIES: dict[str, tuple[float, float, float, float, float]] = {
    "gaussian_blur": (0.6, 1.0, 1.6, 2.6, 4.2),
    "gaussian_noise": (0.02, 0.04, 0.08, 0.14, 0.25),
    "jpeg": (45, 25, 13, 7, 3),
    "low_light": (0.6, 0.35, 0.2, 0.1, 0.05),
}
"""Strength of each kind at levels 1 (barely visible) to 5 (severe)."""


def distort(image: Picture, kind: str, level: int, seed: int) -> Picture:
    """Distort a picture.

    Args:
        image: (H, W, 3) in [0, 1].
        kind: a key of `DISTORTIONS`.
        level: 1 to 5.
        seed: of the kinds that draw noise; the same seed gives the same picture.

    Returns:
        (H, W, 3) in [0, 1]; a new array.

    Raises:
        ConfigError: an unknown kind or a level outside 1 to 5.

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


def to_bytes(image: Picture) -> NDArray[np.uint8]:
    """Round a picture in [0, 1] to 8 bits."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
