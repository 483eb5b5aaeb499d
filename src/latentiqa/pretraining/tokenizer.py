"""CLIP's tokenizer with a vocabulary of its own: merges learnt from the captions of pretraining."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers.trainers import BpeTrainer
from transformers import (
    CLIPTokenizer,
    # Of transformers 4, only this class has a backend; in 5 it is another name of the first.
    CLIPTokenizerFast,  # pyright: ignore[reportAttributeAccessIssue]
)

from latentiqa.backbones.tiny_random import byte_tokenizer
from latentiqa.errors import ConfigError

BYTE_TOKENS = 2 * 256 + 2
"""The least tokens: the bytes inside and at the end of a word, start and end."""


def train_tokenizer(
    texts: Iterable[str], folder: str | Path, vocab_size: int = 1024, max_length: int = 48
) -> CLIPTokenizer:
    """Learn a byte-level BPE in CLIP's format (Radford et al., 2021) and save it.

    Every text has tokens, also where it is not like ``texts``: the vocabulary begins with all 256
    bytes, inside and at the end of a word. Text is lower-cased; the same texts give the same
    files.

    Args:
        texts: the sentences to learn from.
        folder: gets ``vocab.json``, ``merges.txt`` and ``tokenizer_config.json``.
        vocab_size: upper limit of the number of tokens; short texts have fewer to offer.
        max_length: tokens that a prompt is padded or cut to, with its start and end.

    Returns:
        What ``CLIPTokenizer.from_pretrained(folder)`` loads.

    Raises:
        ConfigError: ``vocab_size`` has no room for the bytes, or ``max_length`` none for a token.
    """
    if vocab_size < BYTE_TOKENS:
        raise ConfigError(f"vocab_size={vocab_size}: expected >= {BYTE_TOKENS}, the bytes")
    if max_length < 3:
        raise ConfigError(f"max_length={max_length}: expected >= 3: start, one token and end")
    folder = Path(folder)
    byte_tokenizer(folder)
    # The backend splits words as CLIP does; only its model is trained. With all letters given, in
    # order, the vocabulary is CLIP's: bytes, bytes with </w>, merges, start and end. Letters that
    # the trainer finds by itself come in an order that changes from call to call.
    backend: Any = CLIPTokenizerFast.from_pretrained(
        folder, local_files_only=True
    ).backend_tokenizer
    *letters, start, end = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    trainer = BpeTrainer(
        vocab_size=vocab_size - 2,
        special_tokens=letters,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    model = json.loads(backend.to_str())["model"]
    vocabulary, merges = model["vocab"], model["merges"]
    vocabulary |= {start: len(vocabulary), end: len(vocabulary) + 1}
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    config = {"model_max_length": max_length, "tokenizer_class": "CLIPTokenizer"}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
