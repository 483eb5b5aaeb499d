"""Features of the latents themselves: what the autoencoder alone knows, no U-Net.

The control that tells what of LGDM's scores is the denoiser's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from latentiqa.backbones.ldm import LatentDiffusion
from latentiqa.hyperfeatures.pooling import pool_all, pooled_widths
from latentiqa.methods.base import FeatureExtractor


class LatentFeatures(FeatureExtractor):
    """Pooled scaled latents ``z_0 = s * E(y)``.

    Args:
        backbone: the frozen model; its encoder is used alone.
        pooling: how the latents become features, see `latentiqa.hyperfeatures.pooling.POOLINGS`.

    Raises:
        ConfigError: the pooling is not known.

    Example:
        >>> import torch
        >>> from latentiqa.backbones.source import BackboneSource
        >>> backbone = BackboneSource("control", "tiny_random", resolution=64).load()
        >>> latents = LatentFeatures(backbone, "mean_std")
        >>> features = latents.hyperfeatures(torch.rand(2, 3, 64, 64), ["a.png", "b.png"])
        >>> {name: tuple(value.shape) for name, value in features.items()}
        {'latents/mean': (2, 4), 'latents/std': (2, 4)}
    """

    def __init__(self, backbone: LatentDiffusion, pooling: str = "mean") -> None:
        super().__init__("latents", pooling)
        self.backbone = backbone

    @property
    def widths(self) -> dict[str, int]:
        """The statistics' names, ``latents/<statistic>``, and their lengths."""
        return pooled_widths({"latents": self.backbone.vae.config.latent_channels}, self.pooling)

    def recipe(self) -> dict[str, Any]:
        """The backbone; nothing of a trajectory, as there is none."""
        dtype = str(self.backbone.dtype).removeprefix("torch.")
        return {"method": "latents", "backbone": self.backbone.identity, "dtype": dtype}

    def compute(self, image: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Statistics of the latents; names of pictures do not matter."""
        return pool_all({"latents": self.backbone.encode(image)}, self.pooling)
