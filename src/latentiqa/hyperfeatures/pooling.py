"""From a map to a few statistics of each channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from latentiqa.errors import ConfigError

STATISTICS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x.mean(dim=(2, 3)),
    # The population's: a map of one pixel has spread 0, not NaN.
    "std": lambda x: x.std(dim=(2, 3), correction=0),
}

POOLINGS: dict[str, tuple[str, ...]] = {"mean": ("mean",), "mean_std": ("mean", "std")}


def pool(x: Tensor, pooling: str = "mean") -> dict[str, Tensor]:
    """Pool a map over its pixels, in float32.

    Args:
        x: ``(B, C, h, w)``.
        pooling: ``mean`` (global average pooling) or ``mean_std``.

    Returns:
        statistic -> ``(B, C)`` float32.

    Raises:
        ConfigError: the pooling is not known.

    Example:
        >>> import torch
        >>> {k: v.tolist() for k, v in pool(torch.tensor([[[[1.0, 3.0]]]]), "mean_std").items()}
        {'mean': [[2.0]], 'std': [[1.0]]}
    """
    return {name: STATISTICS[name](x.float()) for name in statistics_of(pooling)}


def statistics_of(pooling: str) -> tuple[str, ...]:
    """The statistics that a pooling stands for.

    Raises:
        ConfigError: the pooling is not known.
    """
    if pooling not in POOLINGS:
        raise ConfigError(f"pooling={pooling!r}: expected one of {', '.join(POOLINGS)}.")
    return POOLINGS[pooling]


def pool_all(maps: Mapping[str, Tensor], pooling: str = "mean") -> dict[str, Tensor]:
    """Pool maps by name.

    Args:
        maps: name -> ``(B, C, h, w)``; sizes may differ.
        pooling: as for `pool`.

    Returns:
        ``<name>/<statistic>`` -> ``(B, C)`` float32.

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
    return {f"{name}/{s}": width for name, width in channels.items() for s in statistics}
