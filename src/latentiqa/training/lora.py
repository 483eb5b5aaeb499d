"""Updates of low rank (LoRA, Hu et al., ICLR 2022), by peft through diffusers' own adapters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from latentiqa.errors import ConfigError


def add_lora(unet: Any, rank: int, layers: Sequence[str]) -> None:
    """Give linear layers updates, which alone are trained; they begin at zero.

    Args:
        unet: of diffusers, frozen.
        rank: of the updates; their scale is 1.
        layers: names, or ends of names.

    Raises:
        ConfigError: peft is missing.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ConfigError(
            "tuning=lora needs peft: pip install 'latentiqa[lora]', or set another tuning."
        ) from error
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(layers)))
