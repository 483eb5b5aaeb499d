"""Magnitude: the maps of a U-Net stay near unit magnitude.

What a residual block adds is computed from normalised maps, so nothing in the loss of reading them
holds their scale, and at a high learning rate it grows from level to level without bound: attention
adds nothing to a map of a thousand, a skip connection is lost beside one, and half precision
overflows. Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models" (EDM2,
CVPR 2024), describe the growth and hold it by the weights' norms; the penalty is ours.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def log_magnitude(maps: Iterable[Tensor]) -> Tensor:
    """``(ln rms)^2``, averaged over maps; scalar float32.

    Args:
        maps: of any shape, one or more.

    Example:
        >>> log_magnitude([torch.full((1, 2, 4, 4), 1.0), torch.full((1, 2, 2, 2), -2.0)])
        tensor(0.2402)
    """
    squares = torch.stack([value.float().square().mean() for value in maps])
    return (squares.clamp_min(1e-12).log() / 2).square().mean()
