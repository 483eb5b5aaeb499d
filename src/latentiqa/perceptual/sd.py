"""psi = the backbone's own features, the best variant of the paper (LGDM, ICML 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from latentiqa.backbones.addresses import Layers
from latentiqa.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from latentiqa.backbones.ldm import LatentDiffusion


@dataclass(frozen=True)
class BackboneFeatures:
    """Maps of the encoded picture at one small timestep, without noise, empty prompt.

    Each map is divided by the square root of its size, so that the squared distance of two
    pictures is the sum over layers of the maps' mean squared difference and no layer dominates
    by its size. Layers, timestep and the absence of noise are ours; the paper does not say.

    Args:
        layers: addresses or globs; the denoiser stops after the last of them, so early layers are
            cheap.
        timestep: 0..999.

    Raises:
        ConfigError: a value is outside its range.
    """

    layers: Sequence[str] = ("down.*.resnet.*",)
    timestep: int = 10

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", Layers(self.layers).patterns)
        if not 0 <= self.timestep < 1000:
            raise ConfigError(f"perceptual.timestep={self.timestep}: expected 0..999.")

    def __call__(self, image: Tensor, backbone: LatentDiffusion) -> list[Tensor]:
        """Features of the pictures.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1].
            backbone: the frozen model whose features they are.

        Returns:
            One tensor ``(B, C h w)`` a layer.
        """
        taps = backbone.expand(self.layers)
        context = backbone.context("", len(image))
        maps = backbone.maps(backbone.encode(image), self.timestep, context, taps)
        flat = [value.flatten(1).to(image.dtype) for value in maps.values()]
        return [value / value.shape[1] ** 0.5 for value in flat]
