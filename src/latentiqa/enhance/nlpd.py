"""The normalised Laplacian pyramid, a model of early vision, and distances in it.

Laparra, Ballé, Berardino and Simoncelli, "Perceptual image quality assessment using a normalized
Laplacian pyramid", Human Vision and Electronic Imaging 2016. The weights and constants of the
divisive normalisation are those fitted by the authors; each channel is treated as a grey picture.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from latentiqa.errors import ConfigError

LOWPASS = (0.05, 0.25, 0.4, 0.25, 0.05)
"""Burt and Adelson's filter, of rows and of columns."""

NEIGHBOURS = (
    (0.1011, 0.1493, 0.1460, 0.1015),
    (0.0757, 0.1986, 0.1846, 0.0837),
    (0.0477, 0.2138, 0.2243, 0.0467),
    (0.0, 0.2503, 0.2616, 0.0),
    (0.0, 0.2598, 0.2552, 0.0),
)
"""Weights of the pixels above, left, right and below in the normalisation, by band."""

CONSTANTS = (0.0248, 0.0185, 0.0179, 0.0191, 0.0220)
"""What is added to their sum, by band."""

RESIDUAL: tuple[tuple[float, ...], float] = (0.0, 0.2215, 0.0717, 0.0), 0.2782
"""Both for the low-pass residual, whichever level it is on."""


def reduce(image: Tensor) -> Tensor:
    """Blur and take every second pixel: ``(B, C, h, w)`` -> halves, rounded up.

    Borders are replicated.
    """
    return F.conv2d(
        F.pad(image, (2, 2, 2, 2), "replicate"), _kernel(image), stride=2, groups=image.shape[1]
    )


def expand(image: Tensor, height: int, width: int) -> Tensor:
    """Put zeros between pixels and blur, four times as strongly: the size before `reduce`."""
    kernel = 4 * _kernel(image)
    spread = F.conv_transpose2d(
        F.pad(image, (1, 1, 1, 1), "replicate"), kernel, stride=2, groups=image.shape[1]
    )
    # A replicated pixel and the filter's radius lie before the first one.
    return spread[..., 4 : 4 + height, 4 : 4 + width]


def laplacian_pyramid(image: Tensor, levels: int) -> list[Tensor]:
    """Band-pass parts, the finest first, and the low-pass residual; ``levels`` maps in all.

    Example:
        >>> [tuple(x.shape[-2:]) for x in laplacian_pyramid(torch.rand(1, 3, 37, 64), 3)]
        [(37, 64), (19, 32), (10, 16)]
    """
    bands = []
    for _ in range(levels - 1):
        low = reduce(image)
        bands.append(image - expand(low, *image.shape[-2:]))
        image = low
    return [*bands, image]


def normalised_pyramid(image: Tensor, levels: int) -> list[Tensor]:
    """Each band divided by a constant plus the weighted amplitudes around each pixel.

    Args:
        image: ``(B, C, H, W)``, in [0, 1] where it is a picture.
        levels: 2 to 6.

    Returns:
        ``levels`` maps, the last one of the residual.
    """
    *bands, residual = laplacian_pyramid(image, levels)
    known = zip(bands, NEIGHBOURS, CONSTANTS, strict=False)
    normalised = [_normalised(band, weights, constant) for band, weights, constant in known]
    return [*normalised, _normalised(residual, *RESIDUAL)]


def nlpd(a: Tensor, b: Tensor, levels: int = 5, bands: str = "coarsest") -> Tensor:
    """Root mean squared difference in the pyramid.

    Args:
        a: ``(B, C, H, W)``.
        b: the same shape.
        levels: of the pyramid, 2 to 6; the paper has 6.
        bands: ``coarsest``, of the low-pass residual alone, which leaves all detail free; or
            ``all``, the mean over the maps, as the paper's distance.

    Returns:
        ``(B,)``, >= 0; where a equals b its gradient is 0.

    Example:
        >>> nlpd(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32))
        tensor([0.])
    """
    pairs = zip(*(normalised_pyramid(x, levels) for x in (a, b)), strict=True)
    distances = [
        torch.linalg.vector_norm((x - y).flatten(1), dim=1) / x[0].numel() ** 0.5
        for x, y in list(pairs)[0 if bands == "all" else -1 :]
    ]
    return torch.stack(distances).mean(0)


def check_pyramid(levels: int, bands: str) -> None:
    """Refuse what `nlpd` does not know.

    Raises:
        ConfigError: a value is outside its range.
    """
    if levels not in range(2, 7):
        raise ConfigError(f"fidelity.nlpd.levels={levels}: expected an integer in 2..6.")
    if bands not in ("coarsest", "all"):
        raise ConfigError(f"fidelity.nlpd.bands={bands!r}: expected 'coarsest' or 'all'.")


def _kernel(image: Tensor) -> Tensor:
    taps = image.new_tensor(LOWPASS)
    return torch.outer(taps, taps).expand(image.shape[1], 1, 5, 5)


def _normalised(band: Tensor, neighbours: tuple[float, ...], constant: float) -> Tensor:
    """``z / (constant + sum of weights times | z | of the four neighbours)``; zeros lie around."""
    above, left, right, below = neighbours
    weights = band.new_tensor([[0, above, 0], [left, 0, right], [0, below, 0]])
    kernel = weights.expand(band.shape[1], 1, 3, 3)
    return band / (constant + F.conv2d(band.abs(), kernel, padding=1, groups=band.shape[1]))
