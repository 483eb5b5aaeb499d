"""Low precision: what it is called, and what a CPU without instructions for it makes of it."""

from __future__ import annotations

import functools
import logging
import time

import torch

log = logging.getLogger(__name__)

MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""What matrix products and convolutions are computed in, by Lightning's names."""

SLOW = 4.0
"""Times of float32 from which on it is said: CPUs that have the instructions are at 0.5 to 2."""


@functools.cache
def warn_if_slow(dtype: torch.dtype | None, device: str) -> None:
    """Log a warning, once, where computing in a dtype is far slower than in float32.

    Args:
        dtype: that a model computes in; None stands for float32.
        device: type of the device; only a CPU is measured, in some milliseconds.
    """
    if device != "cpu" or dtype in (None, torch.float32, torch.float64):
        return
    if (times := slowdown(dtype)) > SLOW:
        log.warning(
            "%s on this CPU: a convolution takes %.0f times as long as in float32. Where it can be "
            "chosen, backbone.dtype=float32 and training.precision=32-true are faster.",
            *(str(dtype).removeprefix("torch."), times),
        )


def slowdown(dtype: torch.dtype) -> float:
    """How many times as long as in float32 a convolution takes on this CPU.

    Example:
        >>> 0.1 < slowdown(torch.float32) < 10
        True
    """
    return _seconds(dtype) / _seconds(torch.float32)


def _seconds(dtype: torch.dtype) -> float:
    image = torch.ones(1, 64, 32, 32, dtype=dtype)
    kernel = torch.ones(64, 64, 3, 3, dtype=dtype)
    taken = []
    for _ in range(4):  # the first one prepares kernels
        started = time.perf_counter()
        torch.nn.functional.conv2d(image, kernel, padding=1)
        taken.append(time.perf_counter() - started)
    return min(taken)
