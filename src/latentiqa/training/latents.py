"""Latents that stay in memory while a rater is trained, as its autoencoder is not trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

MOST_BYTES = 2**30
"""Kept at most: 16,000 pictures of 512 pixels with Stable Diffusion's autoencoder."""


class KeptLatents:
    """Encodes each picture once; what does not fit any more is encoded each time.

    Each by itself: in a batch its last bits would depend on which others are new, and a training
    that was killed would go on to other numbers.

    Args:
        most_bytes: of latents.

    Example:
        >>> kept, image = KeptLatents(), torch.rand(2, 3, 8, 8)
        >>> once = kept(image, ["a.png", "b.png"], lambda image, names: image.mean((2, 3)))
        >>> torch.equal(kept(image, ["a.png", "b.png"], lambda image, names: 1 / 0), once)
        True
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.room = most_bytes
        self.known: dict[str, Tensor] = {}

    def __call__(
        self,
        image: Tensor,
        names: Sequence[str],
        encode: Callable[[Tensor, Sequence[str]], Tensor],
    ) -> Tensor:
        """Latents ``(B, C, h, w)`` of pictures, without a gradient to them.

        Args:
            image: ``(B, 3, H, W)``, the same for the same name each time.
            names: of the pictures.
            encode: gives latents of such arguments.
        """
        return torch.cat(
            [
                self._one(image[i : i + 1], name, encode).to(image.device)
                for i, name in enumerate(names)
            ]
        )

    def _one(
        self, image: Tensor, name: str, encode: Callable[[Tensor, Sequence[str]], Tensor]
    ) -> Tensor:
        if name in self.known:
            return self.known[name]
        latents = encode(image, [name]).detach()
        size = latents.numel() * latents.element_size()
        if size <= self.room:
            self.room -= size
            self.known[name] = latents.cpu()
        return latents
