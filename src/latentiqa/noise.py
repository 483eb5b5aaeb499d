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
    drawn = [torch.randn(tuple(shape), generator=generator_of(seed, name, t)) for name in names]
    return torch.stack(drawn).to(device=device, dtype=dtype)


def generator_of(seed: int, name: str, purpose: int | str) -> torch.Generator:
    """A generator on the CPU for one picture and one purpose.

    Args:
        seed: the run's seed.
        name: the picture's.
        purpose: what is drawn: the timestep of noise, or in words.

    Example:
        >>> draws = [torch.rand((), generator=generator_of(0, "a.png", "crop 1")) for _ in "ab"]
        >>> bool(draws[0] == draws[1])
        True
    """
    seed_bytes = hashlib.sha256(f"{seed}/{name}/{purpose}".encode()).digest()[:8]
    return torch.Generator().manual_seed(int.from_bytes(seed_bytes, "big") >> 1)
