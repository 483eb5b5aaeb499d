"""The adapter that shows the U-Net the picture itself, at every level of its way down."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from diffusers import T2IAdapter
from torch import Tensor, nn


class ImageAdapter(nn.Module):
    """diffusers' full `T2IAdapter` (Mou et al., AAAI 2024), one map for each down block of a U-Net.

    Args:
        unet: gives the widths of the maps; it is neither kept nor changed.
        scale: how many times smaller the sides of its latents are than those of pictures.

    Example:
        >>> import torch
        >>> from diffusers import UNet2DConditionModel
        >>> unet = UNet2DConditionModel(block_out_channels=(8, 8, 16, 16), norm_num_groups=4)
        >>> maps = ImageAdapter(unet, scale=8)(torch.rand(1, 3, 64, 64))
        >>> [tuple(one.shape[1:]) for one in maps]
        [(8, 8, 8), (8, 4, 4), (16, 2, 2), (16, 1, 1)]
    """

    def __init__(self, unet: Any, scale: int) -> None:
        super().__init__()
        self.adapter = T2IAdapter(
            channels=list(unet.config.block_out_channels),
            downscale_factor=scale,
            adapter_type="full_adapter",
        )
        # diffusers adds to a block with attention before it halves its map, to one without after.
        self.halved = [
            not getattr(block, "has_cross_attention", False) and block.downsamplers is not None
            for block in unet.down_blocks
        ]

    def freeze_behind(self, tap: str) -> None:
        """Freeze what no map up to a tap depends on: without a gradient it would stop DDP.

        Args:
            tap: address of the last layer that is read.
        """
        place, *rest = tap.split(".")
        if place != "down":
            return
        block, kind = int(rest[0]), rest[1]
        # What is added to a block is seen by its own downsampling, if that comes after it.
        seen = block + (kind == "downsample" and not self.halved[block])
        for body in self.adapter.adapter.body[seen:]:
            body.requires_grad_(False)
        if not seen:
            self.requires_grad_(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """What the U-Net takes as ``down_intrablock_additional_residuals``.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1].

        Returns:
            A map ``(B, C, h, w)`` for each down block, h and w where diffusers adds it.
        """
        maps = self.adapter(image)
        return [
            F.avg_pool2d(one, 2) if half else one
            for one, half in zip(maps, self.halved, strict=True)
        ]
