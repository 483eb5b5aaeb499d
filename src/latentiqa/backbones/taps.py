"""Read the maps of chosen layers during a forward pass, and stop where nobody reads on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn


class _LastTapReachedError(Exception):
    """Unwinds a forward pass whose remaining layers nobody reads."""


def tapped_forward(
    modules: Mapping[str, nn.Module],
    addresses: Sequence[str],
    forward: Callable[[], Tensor],
    *,
    need_output: bool,
) -> tuple[Tensor | None, dict[str, Tensor]]:
    """Run ``forward`` and collect the maps of the tapped layers.

    Hooks live only as long as the pass, also when it fails, so no map outlives its reader.

    Args:
        modules: the layers of the denoiser that ``forward`` calls once, in the order of their
            execution; see `latentiqa.backbones.addresses.layer_modules`.
        addresses: exact addresses of the layers to read.
        forward: the pass; returns the denoiser's output.
        need_output: without it the pass ends right after the last tapped layer: what lies behind
            is not computed, and neither is its backward.

    Returns:
        The output (``None`` if the pass was cut) and address -> map ``(B, C, h, w)``, of a
        transformer's block tokens ``(B, N, C)``, the picture's last.
    """
    # Execution order, so that the last one is known whatever order the caller used.
    ordered = [address for address in modules if address in set(addresses)]
    maps: dict[str, Tensor] = {}

    def keep(address: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            # ResNet blocks answer with a tensor, a U-Net's transformers with a tuple of one, and
            # blocks of two streams with the text's tokens and the picture's.
            maps[address] = output if isinstance(output, Tensor) else output[-1]
            if not need_output and address == ordered[-1]:
                raise _LastTapReachedError

        return hook

    hooks = [modules[address].register_forward_hook(keep(address)) for address in ordered]
    try:
        return forward(), maps
    except _LastTapReachedError:
        return None, maps
    finally:
        for hook in hooks:
            hook.remove()
