"""Recognition: pooled U-Net maps learn to say how a picture was degraded.

A linear head on each tapped layer's pooled statistics, the very numbers that quality is regressed
from, tells the level of every kind of degradation. Where the caption is dropped this has to be seen
in the picture; where it is given it may be read, so that words come to stand for what is seen. (Of
dropped captions alone it teaches the U-Net to mark them by a constant and the text encoder to tell
"" from everything else and nothing more.) After networks for quality assessment that learn types
and levels of distortions first: MEON (Ma et al., IEEE TIP 2018) and DB-CNN (Zhang et al., IEEE
TCSVT 2020). That it is done to a diffusion model is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentiqa.data.captions import WORDS
from latentiqa.errors import ConfigError
from latentiqa.hyperfeatures.pooling import pool
from latentiqa.pretraining.base import key_of

PRIOR = 0.06
"""Level of a kind, 0 (none) to 1 (severe), averaged over the crops of `latentiqa.data.crops`."""


class Recognition(nn.Module):
    """Linear heads on pooled U-Net maps, and their loss.

    Args:
        layers: addresses of the U-Net.
        weight: of the whole term in the training loss.

    Raises:
        ConfigError: no layer, or a negative weight.
    """

    def __init__(self, layers: Sequence[str], weight: float = 1.0) -> None:
        super().__init__()
        if not layers:
            raise ConfigError("stage.recognition.layers: expected at least one layer.")
        if weight < 0:
            raise ConfigError(f"stage.recognition.weight={weight}: expected a value >= 0.")
        self.layers = list(layers)
        self.weight = weight
        self.heads = nn.ModuleDict()

    def connect(self, channels: Mapping[str, int]) -> None:
        """Make the heads, once the U-Net's channels are known.

        Args:
            channels: layer address -> channels of its map.
        """
        for layer in self.layers:
            width = 2 * channels[layer]  # mean and standard deviation
            linear = nn.Linear(width, len(WORDS))
            # What is known without a look: the bias alone would take thousands of steps to get
            # there, and the maps would be bent to it.
            nn.init.constant_(linear.bias, math.log(PRIOR / (1 - PRIOR)))
            self.heads[key_of(layer)] = nn.Sequential(nn.BatchNorm1d(width, affine=False), linear)

    def forward(self, maps: Mapping[str, Tensor], levels: Tensor) -> Tensor:
        """Cross-entropy of the levels, averaged over samples, kinds and layers.

        Args:
            maps: layer address -> ``(B, C, h, w)``.
            levels: of each kind in the order of `WORDS`, 0 (none) to 1 (severe), ``(B, K)``.

        Returns:
            A scalar, unweighted.

        Raises:
            ConfigError: a single sample, which cannot be standardised in training.
        """
        if self.training and len(levels) < 2:
            raise ConfigError(
                "stage.recognition: a step of one noisy crop; expected two or more, by "
                "crops.batch_size or stage.draws."
            )
        losses = []
        for layer in self.layers:
            logits = self.heads[key_of(layer)](moments(maps[layer])).float()
            losses.append(F.binary_cross_entropy_with_logits(logits, levels))
        return torch.stack(losses).mean()


def moments(maps: Tensor) -> Tensor:
    """Mean and standard deviation of each channel, ``(B, 2 C)`` float32."""
    return torch.cat(list(pool(maps, "mean_std").values()), dim=1)
