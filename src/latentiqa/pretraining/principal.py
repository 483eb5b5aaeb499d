"""Principal components of picture patches: where an autoencoder's latents start from.

An autoencoder with a narrow bottleneck finds its dimensions one after the other, the strongest
first, and stays on a grey blur for long. Pulled towards the principal components of the patches
that its latents stand for, each of unit variance, it has all of them at once, and goes on from
the best linear code. (Ours; for trainings of minutes rather than days.)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


class PrincipalComponents:
    """The leading principal components of f x f patches, whitened.

    Args:
        image: pictures to learn from, ``(N, 3, H, W)`` in [0, 1].
        factor: f, side of a patch in pixels; divides H and W.
        components: how many, C; at most ``3 f^2``.

    Example:
        >>> components = PrincipalComponents(torch.rand(8, 3, 32, 32), factor=4, components=5)
        >>> components(torch.rand(2, 3, 16, 16)).shape
        torch.Size([2, 5, 4, 4])
    """

    def __init__(self, image: Tensor, factor: int, components: int) -> None:
        self.factor = factor
        patches = self._patches(image).flatten(0, 2).double()
        self.mean = patches.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov(patches.T))
        leading = values.argsort(descending=True)[:components]
        # Divided by the standard deviation; the floor is for pictures without any detail.
        self.weights = vectors[:, leading] / values[leading].clamp_min(1e-12).sqrt()

    def _patches(self, image: Tensor) -> Tensor:
        """``(B, H/f, W/f, 3 f^2)``."""
        unshuffled = F.pixel_unshuffle(image.contiguous(), self.factor)
        return unshuffled.permute(0, 2, 3, 1)

    def __call__(self, image: Tensor) -> Tensor:
        """Components of each patch, ``(B, C, H/f, W/f)``, of about unit variance."""
        patches = self._patches(image) - self.mean.to(image)
        return (patches @ self.weights.to(image)).permute(0, 3, 1, 2)
