"""Noise that belongs to a picture: its seed is (seed, image name, timestep), nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def image_noise(
    names: Sequence[str],
    t: int,
    shape: Sequence[int],
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard normal noise, drawn for each picture by a generator of its own.

    It is drawn on the CPU in float32 whatever the device, so a picture gets the same noise alone,
    in a batch, in another order and on another machine.

    Args:
        names: the pictures' names, B of them.
        t: timestep that the noise is for.
        shape: shape of one picture's latents, ``(C, h, w)``.
        seed: the run's seed.
        device: where the noise is wanted.
        dtype: floating-point type wanted.

    Returns:
        ``(B, C, h, w)``.

    Example:
        >>> alone = image_noise(["a.png"], 10, (4, 2, 2))
        >>> pair = image_noise(["b.png", "a.png"], 10, (4, 2, 2))
        >>> bool((pair[1] == alone[0]).all())
        True
    """
    drawn = []
    for name in names:
        seed_bytes = hashlib.sha256(f"{seed}/{name}/{t}".encode()).digest()[:8]
        generator = torch.Generator().manual_seed(int.from_bytes(seed_bytes, "big") >> 1)
        drawn.append(torch.randn(tuple(shape), generator=generator))
    return torch.stack(drawn).to(device=device, dtype=dtype)
