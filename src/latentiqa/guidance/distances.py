"""How far apart pictures or their features are: one value a picture.

Each takes two lists of tensors ``(B, ...)`` and treats a picture's as one long vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from latentiqa.errors import ConfigError

Distance = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]


def squared(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """``|| a - b ||^2``, as PMG and PSLD write their terms.

    Returns:
        ``(B,)``, 0 and more.

    Example:
        >>> squared([torch.zeros(1, 2)], [torch.tensor([[3.0, 4.0]])])
        tensor([25.])
    """
    return torch.stack([(x - y).flatten(1).square().sum(1) for x, y in zip(a, b, strict=True)]).sum(
        0
    )


def l2(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """``|| a - b ||``; where a equals b its gradient is 0.

    The direction of its gradient is that of `squared`: it differs in raw steps only, which it
    makes as long far from the picture as near it.

    Returns:
        ``(B,)``, 0 and more.

    Example:
        >>> l2([torch.zeros(1, 2)], [torch.tensor([[3.0, 4.0]])])
        tensor([5.])
    """
    norm = torch.linalg.vector_norm
    parts = [norm((x - y).flatten(1), dim=1) for x, y in zip(a, b, strict=True)]
    return norm(torch.stack(parts), dim=0)


def cosine(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """``1 - <a, b> / (|| a || || b ||)``; blind to how large they are.

    Returns:
        ``(B,)`` in [0, 2].

    Example:
        >>> cosine([torch.tensor([[1.0, 0.0]])], [torch.tensor([[0.0, 7.0]])])
        tensor([1.])
    """
    x, y = (torch.cat([part.flatten(1) for part in parts], dim=1) for parts in (a, b))
    return 1 - torch.nn.functional.cosine_similarity(x, y, dim=1)


DISTANCES: dict[str, Distance] = {"squared": squared, "l2": l2, "cosine": cosine}


def check_distance(key: str, name: str) -> None:
    """Refuse a name that is not in `DISTANCES`.

    Raises:
        ConfigError: it is not.
    """
    if name not in DISTANCES:
        raise ConfigError(f"{key}={name!r}: expected one of {', '.join(DISTANCES)}.")
