"""Prompts to the hidden states that condition a denoiser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import transformers
from torch import Tensor

# In transformers 4 the one that needs no sentencepiece; 5 keeps the name, unseen by type checkers.
T5TokenizerFast: Any = transformers.T5TokenizerFast  # pyright: ignore[reportAttributeAccessIssue]


def tokenise(tokenizer: Any, prompt: str | Sequence[str], length: int | None = None) -> Any:
    """Tokens of prompts, cut or padded to a length.

    Args:
        tokenizer: one of transformers'.
        prompt: any text, or B of them.
        length: N; the tokenizer's own by default.

    Returns:
        ``input_ids`` and ``attention_mask``, ``(B, N)`` each.
    """
    return tokenizer(
        prompt,
        padding="max_length",
        max_length=length or tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )


def clip_states(encoder: Any, tokenizer: Any, prompt: str) -> tuple[Tensor, Tensor]:
    """What SDXL and SD3 take of a CLIP text model.

    Returns:
        Hidden states before its last layer ``(1, 77, D)``, and its first output: of a model with
        a projection the embedding of the whole prompt ``(1, P)``.
    """
    ids = tokenise(tokenizer, prompt).input_ids.to(encoder.device)
    output = encoder(ids, output_hidden_states=True)
    return output.hidden_states[-2], output[0]
