"""What a score costs: parameters, floating-point operations, time, memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from latentiqa.errors import check_integer
from latentiqa.runs import peak_memory_mb


def cost_of(
    work: Callable[[], Any], device: torch.device, rounds: int = 10, warm_up: int = 2
) -> dict[str, Any]:
    """Measure a computation that is repeated.

    Memory is what this process has held at most so far, so measure one thing a process.

    Args:
        work: what is measured; its first call may fill caches.
        device: where it computes.
        rounds: how often it is timed.
        warm_up: calls before that, 1 and more.

    Returns:
        ``parameters`` of all modules that the first call goes through, each once; ``gflop``, 1e9
        floating-point operations of a call, two a multiplication and addition, of matrix products
        and convolutions, forward and backward; ``ms``, median milliseconds, and ``ms_range``, the
        fastest and the slowest; ``peak_memory_mb``, see `latentiqa.runs.peak_memory_mb`.

    Raises:
        ConfigError: a number of calls is not 1 or more.

    Example:
        >>> layer, x = nn.Linear(100, 10), torch.rand(5, 100)
        >>> cost = cost_of(lambda: layer(x), torch.device("cpu"))
        >>> cost["parameters"], cost["gflop"]
        (1010, 1e-05)
    """
    check_integer("rounds", rounds, 1)
    check_integer("warm_up", warm_up, 1)
    passed: dict[nn.Parameter, int] = {}

    def note(module: nn.Module, _inputs: Any) -> None:
        passed.update((p, p.numel()) for p in module.parameters(recurse=False))

    hook = register_module_forward_pre_hook(note)
    try:
        work()
    finally:
        hook.remove()
    for _ in range(warm_up - 1):
        work()
    milliseconds = [1e3 * _seconds(work, device) for _ in range(rounds)]
    peak = peak_memory_mb()
    # The registry knows no fused attention of CPUs, which would be left out.
    with _Counter() as counter, sdpa_kernel(SDPBackend.MATH):
        work()
    return {
        "parameters": sum(passed.values()),
        "gflop": counter.operations / 1e9,
        "ms": statistics.median(milliseconds),
        "ms_range": [min(milliseconds), max(milliseconds)],
        "peak_memory_mb": peak,
        "rounds": rounds,
    }


class _Counter(TorchDispatchMode):
    """Adds up operations by PyTorch's own registry.

    Its FlopCounterMode also tells modules apart, by hooks that ``autograd.grad`` with respect to a
    module's own input, as guidance takes it, does not stand.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if (count := flop_registry.get(func.overloadpacket)) is not None:
            self.operations += count(*args, **(kwargs or {}), out_val=out)
        return out


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
