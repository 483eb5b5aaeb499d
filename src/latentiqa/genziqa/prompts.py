"""Two opposite prompts, and learnt context around their words (CoOp, Zhou et al., IJCV 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from latentiqa.backbones.ldm import Context, LatentDiffusion
from latentiqa.backbones.stable_diffusion import StableDiffusion
from latentiqa.backbones.text import tokenise
from latentiqa.errors import ConfigError

POSITIONS = ("front", "middle", "end")

SPREAD = 0.02
"""Standard deviation of context that begins at random, as CLIP's own embeddings began."""


class Encoded(NamedTuple):
    """Prompts as the denoiser takes them.

    Attributes:
        context: of P prompts, tensors ``(P, ...)``.
        text: ``(P, K)`` booleans, true at the tokens that are part of a prompt: not at the padding
            behind it, nor at CLIP's token of the start, which no word has reached.
    """

    context: Context
    text: Tensor


def encode(backbone: LatentDiffusion, texts: Sequence[str]) -> Encoded:
    """Prompts without learnt context; any backbone with a text encoder has them.

    Args:
        backbone: that they are for.
        texts: P prompts.

    Raises:
        ConfigError: the backbone takes no prompt, or fewer tokens than one has.
    """
    contexts = [backbone.context(text) for text in texts]
    context = {name: torch.cat([one[name] for one in contexts]) for name in contexts[0]}
    if (mask := context.get("encoder_attention_mask")) is not None:
        return Encoded(context, mask.bool())
    return Encoded(context, _said(backbone, texts).to(backbone.device))


def _said(backbone: Any, texts: Sequence[str]) -> Tensor:
    # Families with a second encoder pad its tokens behind CLIP's; nobody reads attention there.
    for text in texts:  # what is cut off would be no part of what is scored
        taken = len(_words(backbone.tokenizer, text)) + 2
        if taken > (length := _length(backbone.tokenizer)):
            raise ConfigError(
                f"{text!r}: {taken} tokens, but the text encoder takes {length}; use fewer words."
            )
    mask = tokenise(backbone.tokenizer, list(texts)).attention_mask.bool()
    mask[:, 0] = False
    return mask


class ContextTokens(nn.Module):
    """Vectors in the place of word embeddings, shared by all prompts, before or behind the words.

    They enter CLIP's text model where the embeddings of tokens do, before those of the positions
    are added; the model itself is frozen.

    Args:
        backbone: one whose only text encoder is CLIP's; it is neither kept nor changed.
        begin: number of vectors, drawn with a standard deviation of `SPREAD`; or words, whose
            embeddings they begin at.
        position: of the vectors: in ``front`` of the words, at their ``end``, or in the
            ``middle``: half of them in front.

    Raises:
        ConfigError: the backbone has another text encoder, or the words have no tokens.

    Attributes:
        vectors: ``(number, D)``.

    Example:
        >>> from latentiqa.backbones.source import BackboneSource
        >>> backbone = BackboneSource("control", "tiny_random", resolution=64).load()
        >>> encoded = ContextTokens(backbone, 4).encode(backbone, ["Good Photo.", "Bad Photo."])
        >>> encoded.context["encoder_hidden_states"].shape
        torch.Size([2, 77, 64])
    """

    def __init__(
        self, backbone: LatentDiffusion, begin: int | str = 16, position: str = "front"
    ) -> None:
        super().__init__()
        if not isinstance(backbone, StableDiffusion):
            raise ConfigError(
                f"context={begin} with a {type(backbone).__name__}: expected a Stable Diffusion 1 "
                "or 2, whose text encoder is CLIP's alone; set context=0 for fixed prompts."
            )
        embedding = backbone.text_encoder.get_input_embeddings()
        if isinstance(begin, str):
            if not (ids := _words(backbone.tokenizer, begin)):
                raise ConfigError(f"context={begin!r}: expected words, or a number of tokens.")
            vectors = embedding(torch.tensor(ids, device=backbone.device)).float()
        else:
            vectors = SPREAD * torch.randn(begin, embedding.embedding_dim)
        self.vectors = nn.Parameter(vectors.detach().clone())
        self.position = position

    def encode(self, backbone: StableDiffusion, texts: Sequence[str]) -> Encoded:
        """Prompts with the context; their gradient reaches the vectors.

        Args:
            backbone: with the frozen text encoder.
            texts: P prompts, of the words alone.

        Returns:
            Hidden states ``(P, N, D)`` of all N tokens that the encoder takes.

        Raises:
            ConfigError: words and context are more than the encoder takes.
        """
        rows = [self._row(backbone.tokenizer, text) for text in texts]
        ids = torch.tensor([row.ids for row in rows], device=backbone.device)
        places = torch.tensor([row.places for row in rows], device=backbone.device)
        prompts = torch.arange(len(texts), device=backbone.device)[:, None]

        def insert(_module: nn.Module, _inputs: Any, embedded: Tensor) -> Tensor:
            vectors = self.vectors.to(embedded.dtype).expand(len(texts), -1, -1)
            return embedded.index_put((prompts, places), vectors)

        hook = backbone.text_encoder.get_input_embeddings().register_forward_hook(insert)
        try:
            states = backbone.text_encoder(ids)[0]
        finally:
            hook.remove()
        text = torch.tensor([row.text for row in rows], device=backbone.device)
        return Encoded({"encoder_hidden_states": states}, text)

    def _row(self, tokenizer: Any, text: str) -> _Row:
        words, number, length = _words(tokenizer, text), len(self.vectors), _length(tokenizer)
        if (taken := 1 + number + len(words) + 1) > length:
            raise ConfigError(
                f"context={number} with {text!r}: {taken} tokens, but the text encoder takes "
                f"{length}; set context to at most {length - 2 - len(words)}."
            )
        front = {"front": number, "middle": number // 2, "end": 0}[self.position]
        behind = [1 + front + len(words) + i for i in range(number - front)]
        # What stands at the places is never seen.
        blank = tokenizer.bos_token_id
        inner = [blank] * front + words + [blank] * (number - front)
        padding = length - taken
        return _Row(
            [tokenizer.bos_token_id, *inner, tokenizer.eos_token_id]
            + [tokenizer.pad_token_id] * padding,
            [*range(1, 1 + front), *behind],
            [False] + [True] * (taken - 1) + [False] * padding,
        )


class _Row(NamedTuple):
    """A prompt's tokens, the places of the context among them, and which are text."""

    ids: list[int]
    places: list[int]
    text: list[bool]


def _words(tokenizer: Any, text: str) -> list[int]:
    """Tokens of the words alone."""
    return tokenizer(text, add_special_tokens=False).input_ids


def _length(tokenizer: Any) -> int:
    return tokenizer.model_max_length
