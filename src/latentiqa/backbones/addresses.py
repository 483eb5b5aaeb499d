"""Layer addresses of a denoiser of diffusers, as a person would say them: ``up.1.resnet.2``.

In a U-Net an address is ``<stage>.<block>.<kind>.<index>`` for the down and up paths and
``mid.<kind>.<index>`` for the middle. Kinds: ``resnet``, ``attn``, ``downsample``, ``upsample``.
In a transformer it is ``block.<index>``, and ``single.<index>`` for FLUX's blocks of one stream,
which follow. Groups are written as globs: ``up.*.resnet.*``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain, zip_longest
from typing import Any

from torch import nn

from latentiqa.errors import ConfigError


@dataclass(frozen=True)
class Layers:
    """The layers whose maps are read, as addresses or globs.

    Args:
        patterns: addresses (``mid.attn.0``) or globs over them (``up.*.resnet.*``).

    Raises:
        ConfigError: there is no pattern, or one names no known stage.

    Example:
        >>> Layers(["up.*.resnet.*"]).patterns
        ('up.*.resnet.*',)
    """

    patterns: tuple[str, ...]

    def __init__(self, patterns: Sequence[str]) -> None:
        if isinstance(patterns, str) or not patterns:
            raise ConfigError(
                f"layers={patterns!r}: expected a list of addresses or globs, for example "
                "['up.*.resnet.*']."
            )
        for pattern in patterns:
            if pattern.split(".")[0] not in {"down", "mid", "up", "block", "single", "*"}:
                raise ConfigError(
                    f"layers: {pattern!r} names no stage; an address begins with down, mid or up "
                    "in a U-Net, for example 'up.1.resnet.2' or 'mid.attn.*', and with block or "
                    "single in a transformer, for example 'block.7'."
                )
        object.__setattr__(self, "patterns", tuple(patterns))


def layer_modules(denoiser: Any) -> dict[str, nn.Module]:
    """Name every layer of a U-Net or a transformer, in the order of their execution.

    Args:
        denoiser: the model; only ``down_blocks``, ``mid_block`` and ``up_blocks`` are looked at,
            or ``transformer_blocks`` and ``single_transformer_blocks``.

    Returns:
        address -> module.
    """
    layers: dict[str, nn.Module] = {}

    def add(prefix: str, block: nn.Module) -> None:
        resnets = list(getattr(block, "resnets", []))
        attentions = list(getattr(block, "attentions", None) or [])
        named_resnets = [(f"{prefix}.resnet.{i}", module) for i, module in enumerate(resnets)]
        named_attns = [(f"{prefix}.attn.{i}", module) for i, module in enumerate(attentions)]
        # A block runs resnet, attention, resnet, attention, ...; the middle ends on a resnet.
        for pair in chain.from_iterable(zip_longest(named_resnets, named_attns)):
            if pair is not None and pair[1] is not None:
                layers[pair[0]] = pair[1]
        for kind in ("downsample", "upsample"):
            for i, module in enumerate(getattr(block, f"{kind}rs", None) or []):
                layers[f"{prefix}.{kind}.{i}"] = module

    if is_transformer(denoiser):
        layers |= {f"block.{i}": block for i, block in enumerate(denoiser.transformer_blocks)}
        singles = getattr(denoiser, "single_transformer_blocks", [])
        return layers | {f"single.{i}": block for i, block in enumerate(singles)}
    for i, block in enumerate(denoiser.down_blocks):
        add(f"down.{i}", block)
    if denoiser.mid_block is not None:
        add("mid", denoiser.mid_block)
    for i, block in enumerate(denoiser.up_blocks):
        add(f"up.{i}", block)
    return layers


def cross_attentions(denoiser: Any) -> dict[str, nn.Module]:
    """Name every attention to the prompt, in the order of their execution.

    Args:
        denoiser: the model.

    Returns:
        address -> attention: the address of its layer, ``up.1.attn.0``; of a layer that attends
        to the prompt several times, as SDXL's, with a number behind, ``up.1.attn.0.3``. Empty for
        a transformer that joins text and picture in one attention, as FLUX's.
    """
    found: dict[str, nn.Module] = {}
    for address, layer in layer_modules(denoiser).items():
        inside = [m for m in layer.modules() if getattr(m, "is_cross_attention", False)]
        several = len(inside) > 1
        found |= {f"{address}.{i}" if several else address: m for i, m in enumerate(inside)}
    return found


def is_transformer(denoiser: Any) -> bool:
    """Whether a denoiser is a stack of transformer blocks rather than a U-Net."""
    return hasattr(denoiser, "transformer_blocks")


def expand(patterns: Sequence[str], denoiser: Any) -> list[str]:
    """Expand addresses and globs to those of one denoiser, in the order of their execution.

    Args:
        patterns: addresses or globs.
        denoiser: the model that they are meant for.

    Returns:
        Addresses without repetition.

    Raises:
        ConfigError: a pattern matches no layer of this model.
    """
    return select(patterns, list(layer_modules(denoiser)), f"layer of this {_kind(denoiser)}")


def expand_cross_attentions(patterns: Sequence[str], denoiser: Any) -> list[str]:
    """Expand addresses and globs to those of `cross_attentions`, in the order of execution.

    Raises:
        ConfigError: a pattern matches no attention to the prompt.
    """
    known = list(cross_attentions(denoiser))
    if not known:
        raise ConfigError(
            f"a {_kind(denoiser)} has no attention to the prompt alone; take a Stable Diffusion or "
            "a PixArt, or a score without attention."
        )
    return select(patterns, known, f"attention to the prompt of this {_kind(denoiser)}")


def select(patterns: Sequence[str], known: Sequence[str], what: str) -> list[str]:
    """Addresses that the patterns stand for, in the order of ``known``.

    Raises:
        ConfigError: a pattern matches nothing.

    Example:
        >>> select(["up.*"], ["mid.attn.0", "up.0.attn.0"], "layer")
        ['up.0.attn.0']
    """
    for pattern in patterns:
        if not any(fnmatchcase(address, pattern) for address in known):
            raise ConfigError(f"layers: {pattern!r} matches no {what}; it has {', '.join(known)}.")
    return [a for a in known if any(fnmatchcase(a, pattern) for pattern in patterns)]


def _kind(denoiser: Any) -> str:
    return type(denoiser).__name__


def layer_channels(module: nn.Module) -> int:
    """Number of channels of the map that a U-Net's layer puts out."""
    # An Attention, which an unconditional U-Net has in place of a transformer, says out_dim.
    told = (getattr(module, name, None) for name in ("out_channels", "in_channels", "out_dim"))
    channels = next((value for value in told if value), None)
    if not isinstance(channels, int):
        raise ConfigError(f"{type(module).__name__}: its number of output channels is not known.")
    return channels
