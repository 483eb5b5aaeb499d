"""Representation alignment: U-Net maps learn to say what a pretrained encoder says.

REPA (Yu et al., "Representation Alignment for Generation", ICLR 2025) projects hidden states of a
diffusion model and maximises their similarity, token by token, to the features of a pretrained
encoder of the clean picture. For U-Nets U-REPA (Tian et al., arXiv 2503.18414) aligns the middle
stage, upsamples after the projection, and adds a loss on relative similarities. More than one
pair of layers, the standardised targets, the exact form of the relative term and the term on
pooled statistics, which is about what hyperfeatures are, are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentiqa.errors import ConfigError
from latentiqa.hyperfeatures.pooling import pool
from latentiqa.pretraining.base import key_of

Encoder = Callable[..., dict[str, Tensor]]
"""Pictures ``(B, 3, H, W)`` in [0, 1] and names of blocks -> block -> map ``(B, D, h, w)``."""


class Alignment(nn.Module):
    """Projections of U-Net maps onto an encoder's, and their loss.

    Args:
        encoder: frozen; see `Encoder`.
        pairs: layer address of the U-Net -> block of the encoder.
        weight: of the whole term in the training loss.
        relative: weight of the relative-similarity loss against the tokenwise one.
        pooled: weight of the `readout` of pooled statistics against the tokenwise loss.
        hidden: channels inside the projection.

    Raises:
        ConfigError: no pair, or a negative weight.
    """

    def __init__(
        self,
        encoder: Encoder,
        pairs: Mapping[str, str],
        weight: float = 0.5,
        relative: float = 1.0,
        pooled: float = 1.0,
        hidden: int = 256,
    ) -> None:
        super().__init__()
        if not pairs:
            raise ConfigError("stage.alignment.pairs: expected at least one layer: block.")
        if min(weight, relative, pooled) < 0:
            raise ConfigError(
                f"stage.alignment: weight={weight}, relative={relative}, pooled={pooled}: expected "
                "values >= 0."
            )
        self.encoder = encoder
        self.pairs = dict(pairs)
        self.weight = weight
        self.relative = relative
        self.pooled = pooled
        self.hidden = hidden
        self.norms = nn.ModuleDict()
        self.projections = nn.ModuleDict()
        self.readouts = nn.ModuleDict()

    def connect(self, channels: Mapping[str, int]) -> None:
        """Make the projections, once the U-Net's channels are known.

        Args:
            channels: layer address -> channels of its map.
        """
        blocks = list(dict.fromkeys(self.pairs.values()))
        with torch.no_grad():
            example = self.encoder(torch.zeros(1, 3, 64, 64), blocks)
        for block in blocks:
            # Channels of pretrained maps differ in scale and offset by orders of magnitude;
            # unstandardised, a few of them are the whole cosine.
            self.norms[key_of(block)] = nn.BatchNorm2d(example[block].shape[1], affine=False)
        for layer, block in self.pairs.items():
            self.projections[key_of(layer)] = nn.Sequential(
                nn.Conv2d(channels[layer], self.hidden, 1),
                nn.SiLU(),
                nn.Conv2d(self.hidden, self.hidden, 1),
                nn.SiLU(),
                nn.Conv2d(self.hidden, example[block].shape[1], 1),
            )
            if self.pooled:
                self.readouts[key_of(layer)] = Readout(channels[layer], example[block].shape[1])

    @torch.no_grad()
    def targets(self, image: Tensor) -> dict[str, Tensor]:
        """What the pairs' blocks say of the clean pictures, standardised: block -> map."""
        maps = self.encoder(image, list(dict.fromkeys(self.pairs.values())))
        return {block: self.norms[key_of(block)](value.float()) for block, value in maps.items()}

    def forward(self, maps: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """The loss, averaged over the pairs.

        Args:
            maps: layer address -> ``(B, C, h, w)``.
            targets: block -> ``(B', D, H, W)``; B is a multiple of B', the same pictures again.

        Returns:
            Scalar, unweighted.
        """
        losses = []
        for layer, block in self.pairs.items():
            target = targets[block].repeat(len(maps[layer]) // len(targets[block]), 1, 1, 1)
            projected = self.projections[key_of(layer)](maps[layer])
            projected = F.interpolate(projected.float(), target.shape[-2:], mode="bilinear")
            losses.append(tokenwise(projected, target))
            if self.pooled:
                unexplained = self.readouts[key_of(layer)](maps[layer], target)
                losses[-1] = losses[-1] + self.pooled * unexplained
            if self.relative:
                losses[-1] = losses[-1] + self.relative * relative_similarity(projected, target)
        return torch.stack(losses).mean()


class Readout(nn.Module):
    """How much of an encoder's pooled statistics is read linearly from a U-Net map's.

    Args:
        channels: C of the U-Net's map.
        width: D of the encoder's map.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        # Mean and standard deviation of each channel, standardised over the pictures.
        self.source = nn.BatchNorm1d(2 * channels, affine=False)
        self.target = nn.BatchNorm1d(2 * width, affine=False)
        self.linear = nn.Linear(2 * channels, 2 * width)

    def forward(self, maps: Tensor, target: Tensor) -> Tensor:
        """The share of the variance that the linear map leaves, ``1 - R^2``.

        Args:
            maps: ``(B, C, h, w)``.
            target: ``(B, D, H, W)``.

        Returns:
            Scalar; 1 where nothing is read.
        """
        read = self.linear(self.source(moments(maps))).float()
        return (read - self.target(moments(target))).square().mean()


def moments(maps: Tensor) -> Tensor:
    """Mean and standard deviation of each channel, ``(B, 2 C)`` float32."""
    return torch.cat(list(pool(maps, "mean_std").values()), dim=1)


def tokenwise(projected: Tensor, target: Tensor) -> Tensor:
    """``1 - cos`` of each pixel's channel vectors, averaged (REPA, eq. 8, plus one).

    Args:
        projected: ``(B, D, h, w)``.
        target: same shape.

    Example:
        >>> x = torch.randn(2, 8, 4, 4)
        >>> round(tokenwise(x, x).item(), 5)
        0.0
    """
    return 1 - F.cosine_similarity(projected, target, dim=1).mean()


def relative_similarity(projected: Tensor, target: Tensor, tokens: int = 16) -> Tensor:
    """Squared difference of all cosines between tokens, here and there.

    Tokens of all pictures of the batch are compared with each other, so that pictures keep
    their relations too (U-REPA's manifold loss).

    Args:
        projected: ``(B, D, h, w)``.
        target: same shape.
        tokens: about so many are taken of each picture, evenly, since all pairs are compared.

    Returns:
        Scalar.

    Example:
        >>> x = torch.randn(2, 8, 4, 4)
        >>> round(relative_similarity(x, 3 * x).item(), 5)
        0.0
    """

    def cosines(maps: Tensor) -> Tensor:
        step = max(1, round((maps.shape[-2] * maps.shape[-1] / tokens) ** 0.5))
        flat = maps[:, :, ::step, ::step].permute(0, 2, 3, 1).flatten(0, 2)
        unit = F.normalize(cast(Tensor, flat), dim=1)
        return unit @ unit.T

    return (cosines(projected) - cosines(target)).square().mean()
