"""Representation alignment: U-Net maps learn to say what a pretrained encoder says.

REPA (Yu et al., "Representation Alignment for Generation", ICLR 2025) projects hidden states of a
diffusion model and maximises their similarity, token by token, to the features of a pretrained
encoder of the clean picture. For U-Nets U-REPA (Tian et al., arXiv 2503.18414) aligns the middle
stage, upsamples after the projection, and adds a loss on relative similarities.

Hyperfeatures are pooled over the picture and read by a linear head. `LinearAlignment` is alignment
for that reader: its projection is linear, so that what it finds in a map is found in the map's
mean too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentiqa.errors import ConfigError
from latentiqa.pretraining.base import key_of

Encoder = Callable[..., dict[str, Tensor]]
"""Pictures ``(B, 3, H, W)`` in [0, 1] and names of blocks -> block -> map ``(B, D, h, w)``."""


class Alignment(nn.Module, ABC):
    """Projections of U-Net maps onto an encoder's, and their loss.

    More than one pair of layers and the standardised targets are ours.

    Args:
        encoder: frozen; see `Encoder`.
        pairs: layer address of the U-Net -> blocks of the encoder.
        weight: of the whole term in the training loss.

    Raises:
        ConfigError: no pair, or a negative weight.
    """

    def __init__(
        self, encoder: Encoder, pairs: Mapping[str, Sequence[str]], weight: float = 1.0
    ) -> None:
        super().__init__()
        self.pairs = [(layer, block) for layer, blocks in pairs.items() for block in blocks]
        if not self.pairs:
            raise ConfigError("stage.alignment.pairs: expected at least one layer: [block].")
        if weight < 0:
            raise ConfigError(f"stage.alignment.weight={weight}: expected a value >= 0.")
        self.encoder = encoder
        self.weight = weight
        self.layers = list(dict.fromkeys(layer for layer, _ in self.pairs))
        self.blocks = list(dict.fromkeys(block for _, block in self.pairs))
        self.norms = nn.ModuleDict()
        self.projections = nn.ModuleDict()

    def connect(self, channels: Mapping[str, int]) -> None:
        """Make the projections, once the U-Net's channels are known.

        Args:
            channels: layer address -> channels of its map.
        """
        example = self.encode(torch.zeros(1, 3, 64, 64))
        for block in self.blocks:
            # Channels of pretrained maps differ in scale and offset by orders of magnitude;
            # unstandardised, a few of them are the whole loss.
            self.norms[key_of(block)] = nn.BatchNorm2d(example[block].shape[1], affine=False)
        for layer, block in self.pairs:
            width = example[block].shape[1]
            self.projections[key_of(f"{layer} {block}")] = self.projection(channels[layer], width)

    @torch.no_grad()
    def encode(self, image: Tensor) -> dict[str, Tensor]:
        """What the encoder says of the clean pictures: block -> map ``(B, D, H, W)``."""
        return self.encoder(image, self.blocks)

    def forward(self, maps: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """The loss, averaged over the pairs.

        Args:
            maps: layer address -> ``(B, C, h, w)``.
            targets: of `encode`; of B' pictures, where B is a multiple of B', the same pictures
                again.

        Returns:
            Scalar, unweighted.
        """
        # Standardised before they are repeated: B' pictures are what was seen.
        known = {block: self.norms[key_of(block)](targets[block].float()) for block in self.blocks}
        losses = []
        for layer, block in self.pairs:
            target = known[block].repeat(len(maps[layer]) // len(known[block]), 1, 1, 1)
            projected = self.projections[key_of(f"{layer} {block}")](maps[layer])
            losses.append(self.compare(projected.float(), target))
        return torch.stack(losses).mean()

    @abstractmethod
    def projection(self, channels: int, width: int) -> nn.Module:
        """From a U-Net map's channels to those of an encoder's map."""

    @abstractmethod
    def compare(self, projected: Tensor, target: Tensor) -> Tensor:
        """The loss of a projected map ``(B, D, h, w)`` against ``(B, D, H, W)``; scalar."""


class URepa(Alignment):
    """Alignment as in U-REPA: an MLP's projection, upsampled, by its direction at each pixel.

    Args:
        encoder: see `Alignment`.
        pairs: see `Alignment`.
        weight: see `Alignment`.
        relative: weight of the relative-similarity loss against the tokenwise one.
        hidden: channels inside the projection.

    Raises:
        ConfigError: no pair, or a negative weight.
    """

    def __init__(
        self,
        encoder: Encoder,
        pairs: Mapping[str, Sequence[str]],
        weight: float = 0.5,
        relative: float = 1.0,
        hidden: int = 256,
    ) -> None:
        super().__init__(encoder, pairs, weight)
        if relative < 0:
            raise ConfigError(f"stage.alignment.relative={relative}: expected a value >= 0.")
        self.relative = relative
        self.hidden = hidden

    def projection(self, channels: int, width: int) -> nn.Module:
        """Three layers at each pixel."""
        return nn.Sequential(
            nn.Conv2d(channels, self.hidden, 1),
            nn.SiLU(),
            nn.Conv2d(self.hidden, self.hidden, 1),
            nn.SiLU(),
            nn.Conv2d(self.hidden, width, 1),
        )

    def compare(self, projected: Tensor, target: Tensor) -> Tensor:
        """``tokenwise + relative * relative_similarity`` at the encoder's resolution."""
        projected = F.interpolate(projected, target.shape[-2:], mode="bilinear")
        loss = tokenwise(projected, target)
        if self.relative:
            loss = loss + self.relative * relative_similarity(projected, target)
        return loss


class LinearAlignment(Alignment):
    """Linear regression of an encoder's maps at each pixel of a U-Net map; ours.

    The mean of a linear projection over a picture is the projection of the mean: what this loss
    puts into a map, a linear head reads from its pooled statistics.
    """

    def projection(self, channels: int, width: int) -> nn.Module:
        """A matrix, on standardised channels."""
        return nn.Sequential(nn.BatchNorm2d(channels, affine=False), nn.Conv2d(channels, width, 1))

    def compare(self, projected: Tensor, target: Tensor) -> Tensor:
        """Share of the variance that is left, at the coarser of both resolutions."""
        (h, w), (height, width) = projected.shape[-2:], target.shape[-2:]
        size = (min(h, height), min(w, width))
        target = averaged_to(target, size)
        error = averaged_to(projected, size) - target
        return error.square().mean() / target.square().mean()


def averaged_to(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Means of a map's pixels; of a map that has the size already, the map at no price."""
    return maps if maps.shape[-2:] == size else F.adaptive_avg_pool2d(maps, size)


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
    their relations too. U-REPA's manifold loss; the exact form is ours.

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
