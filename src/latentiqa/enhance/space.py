"""What ascent moves: latents at any place of a diffusion chain, or pixels, the control."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentiqa.enhance.chain import Chain

if TYPE_CHECKING:
    from latentiqa.backbones.ldm import LatentDiffusion


class Space(ABC):
    """A small description of it, ``x = f(z)``."""

    @abstractmethod
    def multiple(self, backbone: LatentDiffusion) -> int:
        """Sides of pictures are multiples of it."""

    @abstractmethod
    def latents(self, backbone: LatentDiffusion, image: Tensor) -> Tensor | None:
        """Clean latents of a picture, for fidelity in them; none in pixels."""

    @abstractmethod
    def start(self, backbone: LatentDiffusion, image: Tensor) -> Tensor:
        """Find z of a picture ``(1, 3, H, W)``; first comes which of its pictures it is."""

    @abstractmethod
    def residual(self, backbone: LatentDiffusion, image: Tensor) -> Tensor | float:
        """What a picture ``(1, 3, H, W)`` has and `pictures` are to have, though no z shows it."""

    @abstractmethod
    def pictures(
        self, backbone: LatentDiffusion, z: Tensor, residual: Tensor | float
    ) -> tuple[Tensor, Tensor | None]:
        """The pictures of z, differentiably.

        Args:
            backbone: the frozen model.
            z: what `start` found, moved.
            residual: added to each.

        Returns:
            ``(S, 3, H, W)`` clipped to [0, 1], float32, and what they are decoded from. The first
            one is the result; a pair's second one is there for the gradient.
        """


@dataclass(frozen=True)
class Latents(Space):
    """Latents at the noisy end of a chain.

    Args:
        chain: its ``at`` says where: 1000 for z_T, 0 for the clean latents.
        keep_residual: what the autoencoder loses of the picture, ``x - D(E(x))``, is added to all
            that is decoded, so that only what ascent changes is changed. Ours; false is the paper's
            ``x = D(f(z))``, each result of which has lost it.
    """

    chain: Chain
    keep_residual: bool = False

    def multiple(self, backbone: LatentDiffusion) -> int:
        """See `Space`."""
        return backbone.multiple

    @torch.no_grad()
    def latents(self, backbone: LatentDiffusion, image: Tensor) -> Tensor | None:
        """See `Space`."""
        return backbone.encode(image)

    @torch.no_grad()
    def start(self, backbone: LatentDiffusion, image: Tensor) -> Tensor:
        """``(S, 1, C, h, w)`` in float64, see `Chain.invert`."""
        return self.chain.invert(backbone, backbone.encode(image).double())

    @torch.no_grad()
    def residual(self, backbone: LatentDiffusion, image: Tensor) -> Tensor | float:
        """See `Space`: nothing unless it is kept."""
        if not self.keep_residual:
            return 0.0
        return image.float() - backbone.decode(backbone.encode(image)).float()

    def pictures(
        self, backbone: LatentDiffusion, z: Tensor, residual: Tensor | float
    ) -> tuple[Tensor, Tensor | None]:
        """See `Space`."""
        latents = self.chain.denoise(backbone, z).flatten(0, 1)
        decoded = backbone.decode(latents.to(backbone.dtype)).float()
        return (decoded + residual).clamp(0, 1), latents


@dataclass(frozen=True)
class Pixels(Space):
    """The picture itself: no diffusion model holds what ascent makes of it."""

    def multiple(self, backbone: LatentDiffusion) -> int:
        """See `Space`."""
        return 1

    def latents(self, backbone: LatentDiffusion, image: Tensor) -> Tensor | None:
        """See `Space`."""
        return None

    def start(self, backbone: LatentDiffusion, image: Tensor) -> Tensor:
        """``(1, 3, H, W)``."""
        return image.clone()

    def residual(self, backbone: LatentDiffusion, image: Tensor) -> Tensor | float:
        """See `Space`: pixels are all there is."""
        return 0.0

    def pictures(
        self, backbone: LatentDiffusion, z: Tensor, residual: Tensor | float
    ) -> tuple[Tensor, Tensor | None]:
        """See `Space`."""
        return (z + residual).clamp(0, 1), None
