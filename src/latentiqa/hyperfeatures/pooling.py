"""From a map to a few statistics of each channel, and of the channels together."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from latentiqa.errors import ConfigError

WIDEST = 64
"""Most channels whose correlations are taken; more are mixed to so many first."""


def pool(x: Tensor, pooling: str = "mean") -> dict[str, Tensor]:
    """Pool a map over its pixels, in float32.

    Args:
        x: ``(B, C, h, w)``.
        pooling: one of `POOLINGS`; ``mean`` is global average pooling.

    Returns:
        statistic -> ``(B, C)`` float32; of the `correlation` as many values as it has pairs.

    Raises:
        ConfigError: the pooling is not known.

    Example:
        >>> import torch
        >>> {k: v.tolist() for k, v in pool(torch.tensor([[[[1.0, 3.0]]]]), "mean_std").items()}
        {'mean': [[2.0]], 'std': [[1.0]]}
    """
    return {name: STATISTICS[name](x.float()) for name in statistics_of(pooling)}


def correlation(x: Tensor) -> Tensor:
    """Correlation of each two channels over the pixels of a map.

    Second-order pooling: which structures occur together. Bilinear CNNs (Lin et al., ICCV 2015)
    and, for quality, DB-CNN (Zhang et al., IEEE TCSVT 2020) pool outer products; correlations leave
    out what mean and standard deviation say already. Of a map of more than `WIDEST` channels it is
    the covariance of a fixed random mixture of the standardised channels, as in compact bilinear
    pooling (Gao et al., CVPR 2016).

    Args:
        x: ``(B, C, h, w)``.

    Returns:
        ``(B, D (D - 1) / 2)``, D = min(C, `WIDEST`), of pairs in the order (0, 1), (0, 2), ...; 0
        of a channel that is constant.

    Example:
        >>> import torch
        >>> ramp = torch.arange(4.0).view(1, 1, 2, 2)
        >>> correlation(torch.cat([ramp, 2 * ramp + 1, -ramp], dim=1))
        tensor([[ 1.0000, -1.0000, -1.0000]])
    """
    flat = x.flatten(2)
    std = flat.std(dim=2, correction=0, keepdim=True)
    flat = (flat - flat.mean(dim=2, keepdim=True)) / std.clamp_min(1e-6)
    if x.shape[1] > WIDEST:
        flat = mixture(x.shape[1], x.device) @ flat
    products = flat @ flat.mT / flat.shape[2]
    first, second = torch.triu_indices(*products.shape[1:], offset=1, device=x.device)
    return products[:, first, second]


@functools.cache
def mixture(channels: int, device: torch.device) -> Tensor:
    """Orthonormal rows ``(WIDEST, channels)`` in random directions, always the same ones."""
    # RandomState's stream is frozen for good; and the factor is unique but for the signs of R.
    normal = np.random.RandomState(channels).standard_normal((channels, WIDEST))
    q, r = np.linalg.qr(normal)
    # It outlives the call, which may be in inference mode; later ones may need gradients.
    with torch.inference_mode(False):
        return torch.from_numpy((q * np.sign(r.diagonal())).T).float().to(device)


STATISTICS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x.mean(dim=(2, 3)),
    # The population's: a map of one pixel has spread 0, not NaN.
    "std": lambda x: x.std(dim=(2, 3), correction=0),
    "correlation": correlation,
}

POOLINGS: dict[str, tuple[str, ...]] = {
    "mean": ("mean",),
    "mean_std": ("mean", "std"),
    "mean_std_correlation": ("mean", "std", "correlation"),
}


def statistics_of(pooling: str) -> tuple[str, ...]:
    """The statistics that a pooling stands for.

    Raises:
        ConfigError: the pooling is not known.
    """
    if pooling not in POOLINGS:
        raise ConfigError(f"pooling={pooling!r}: expected one of {', '.join(POOLINGS)}.")
    return POOLINGS[pooling]


def width_of(statistic: str, channels: int) -> int:
    """How many values a statistic has of a map of so many channels.

    Example:
        >>> width_of("std", 5), width_of("correlation", 5), width_of("correlation", 320)
        (5, 10, 2016)
    """
    if statistic != "correlation":
        return channels
    mixed = min(channels, WIDEST)
    return mixed * (mixed - 1) // 2


def pool_all(maps: Mapping[str, Tensor], pooling: str = "mean") -> dict[str, Tensor]:
    """Pool maps by name.

    Args:
        maps: name -> ``(B, C, h, w)``; sizes may differ.
        pooling: as for `pool`.

    Returns:
        ``<name>/<statistic>`` -> ``(B, width_of(statistic, C))`` float32.

    Raises:
        ConfigError: the pooling is not known.
    """
    return {
        f"{name}/{statistic}": pooled
        for name, x in maps.items()
        for statistic, pooled in pool(x, pooling).items()
    }


def pooled_widths(channels: Mapping[str, int], pooling: str = "mean") -> dict[str, int]:
    """Names and lengths of what `pool_all` gives for maps of so many channels.

    Raises:
        ConfigError: the pooling is not known.

    Example:
        >>> pooled_widths({"mid.attn.0": 1280}, "mean_std")
        {'mid.attn.0/mean': 1280, 'mid.attn.0/std': 1280}
    """
    statistics = statistics_of(pooling)
    return {f"{name}/{s}": width_of(s, n) for name, n in channels.items() for s in statistics}
