"""What of a denoiser is trained: its attention to the prompt, in one way or another."""

from __future__ import annotations

from typing import Any

from latentiqa.backbones.addresses import cross_attentions
from latentiqa.errors import ConfigError
from latentiqa.training.lora import add_lora

TUNINGS = ("lora", "projections", "none")

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")


def tune(denoiser: Any, tuning: str, rank: int, last: str | None) -> None:
    """Let the projections of all cross-attentions be trained that a score depends on.

    Weights without a gradient would stop DDP.

    Args:
        denoiser: frozen.
        tuning: one of `TUNINGS`.
        rank: of LoRA's updates.
        last: address of the last attention that is read, where the pass ends: of it only queries
            and keys are trained, of what lies behind nothing. None if the pass goes to its end.

    Raises:
        ConfigError: there is no attention to the prompt, or peft is missing.
    """
    if tuning == "none":
        return
    if not (names := projections(denoiser, last)):
        raise ConfigError(
            f"tuning={tuning}: a {type(denoiser).__name__} has no attention to the prompt alone; "
            "set tuning=none, or take a Stable Diffusion."
        )
    if tuning == "lora":
        add_lora(denoiser, rank, names)
    else:
        for name in names:
            denoiser.get_submodule(name).requires_grad_(True)


def projections(denoiser: Any, last: str | None = None) -> list[str]:
    """Names of the linear layers of the cross-attentions, in the order of execution.

    Args:
        denoiser: the model.
        last: see `tune`.
    """
    names = {module: name for name, module in denoiser.named_modules()}
    found: list[str] = []
    for address, attention in cross_attentions(denoiser).items():
        parts = PROJECTIONS[:2] if address == last else PROJECTIONS
        found += [f"{names[attention]}.{part}" for part in parts]
        if address == last:
            break
    return found
