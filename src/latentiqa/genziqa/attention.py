"""Reading queries and keys of cross-attention while a denoiser runs as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from latentiqa.backbones.addresses import cross_attentions
from latentiqa.backbones.taps import tapped_forward

Read = Callable[[Tensor, Tensor], Tensor]
"""What is kept of queries ``(B, heads, N, d)``, scaled so that the logits are the products of
queries and keys, and keys ``(B, heads, K, d)``."""

QUERIES_AT_ONCE = 1024
"""Of a picture's places; their logits are held at the same time."""


class ReadingProcessor(AttnProcessor2_0):
    """diffusers' attention (SDPA), which shows queries and keys to a reader on the way.

    Args:
        show: is told scaled queries and keys.
    """

    def __init__(self, show: Callable[[Tensor, Tensor], None]) -> None:
        super().__init__()
        self.show = show

    def __call__(self, attn: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Attended states, as of diffusers' processor."""
        projected: dict[str, Tensor] = {}

        def keep(name: str, norm: nn.Module | None) -> Callable[[nn.Module, Any, Tensor], None]:
            def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
                states = output.unflatten(2, (attn.heads, -1)).transpose(1, 2)
                projected[name] = states if norm is None else norm(states)

            return hook

        # On the projections' own outputs: they are not computed a second time.
        hooks = [
            attn.to_q.register_forward_hook(keep("q", attn.norm_q)),
            attn.to_k.register_forward_hook(keep("k", attn.norm_k)),
        ]
        try:
            attended = super().__call__(attn, *args, **kwargs)
        finally:
            for hook in hooks:
                hook.remove()
        query, key = projected["q"], projected["k"]
        with torch.autocast(query.device.type, enabled=False):
            self.show(query.float() * query.shape[-1] ** -0.5, key.float())
        return attended


def read_attention(
    denoiser: Any,
    layers: Sequence[str],
    forward: Callable[[], Tensor],
    read: Read,
    *,
    need_output: bool,
) -> tuple[Tensor | None, dict[str, Tensor]]:
    """Run ``forward`` and keep what ``read`` makes of the layers' queries and keys.

    Args:
        denoiser: the model that ``forward`` calls once.
        layers: addresses of `latentiqa.backbones.addresses.cross_attentions`.
        forward: the pass; returns the denoiser's output.
        read: is called once a layer, in float32.
        need_output: without it the pass ends after the last of these attentions.

    Returns:
        The output (``None`` if the pass was cut) and address -> what was read.
    """
    modules = cross_attentions(denoiser)
    seen: dict[str, Tensor] = {}

    def show_at(address: str) -> Callable[[Tensor, Tensor], None]:
        return lambda query, key: seen.update({address: read(query, key)})

    with _processors({modules[a]: ReadingProcessor(show_at(a)) for a in layers}):
        output, _ = tapped_forward(modules, layers, forward, need_output=need_output)
    return output, seen


@contextmanager
def _processors(of: dict[Any, ReadingProcessor]) -> Iterator[None]:
    before = {attention: attention.processor for attention in of}
    try:
        for attention, processor in of.items():
            attention.set_processor(processor)
        yield
    finally:
        for attention, processor in before.items():
            attention.set_processor(processor)


def logits(query: Tensor, key: Tensor) -> Tensor:
    """``A = Q K^T / sqrt(d)``, what a softmax over the tokens follows, ``(B, heads, N, K)``.

    Args:
        query: ``(B, heads, N, d)``, scaled by ``1 / sqrt(d)``.
        key: ``(B, heads, K, d)``.
    """
    return query @ key.mT


def pooled(query: Tensor, key: Tensor, sharpness: float) -> Tensor:
    """Log-sum-exp of the logits over the places: ``s_k = log(sum_q exp(lambda A_qk)) / lambda``.

    The logits of `QUERIES_AT_ONCE` places are held at a time, in the backward pass too.

    Args:
        query: ``(B, heads, N, d)``, scaled.
        key: ``(B, heads, K, d)``.
        sharpness: lambda.

    Returns:
        ``(B, heads, K)``.

    Example:
        >>> query, key = torch.rand(1, 1, 6, 4), torch.rand(1, 1, 3, 4)
        >>> whole = logits(query, key).mul(0.14).logsumexp(dim=2) / 0.14
        >>> torch.allclose(pooled(query, key, 0.14), whole)
        True
    """

    def some(places: Tensor) -> Tensor:
        return (sharpness * logits(places, key)).logsumexp(dim=2)

    parts = [
        checkpoint(some, places, use_reentrant=False, preserve_rng_state=False)
        for places in query.split(QUERIES_AT_ONCE, dim=2)
    ]
    return torch.stack(parts).logsumexp(dim=0) / sharpness


def place_means(query: Tensor, key: Tensor, text: Tensor) -> Tensor:
    """Mean logit of each place over heads and tokens: a heat map, a row.

    Args:
        query: ``(B, heads, N, d)``, scaled.
        key: ``(B, heads, K, d)``.
        text: ``(B, K)``, weights of the tokens that sum to 1.

    Returns:
        ``(B, N)``.

    Example:
        >>> query, key, text = torch.rand(1, 2, 6, 4), torch.rand(1, 2, 3, 4), torch.rand(1, 3)
        >>> long = (logits(query, key).mean(dim=1) * text[:, None]).sum(dim=2)
        >>> torch.allclose(place_means(query, key, text), long)
        True
    """
    # A mean of products is a product with the mean key.
    direction = (text[:, None, None] @ key).mT
    return (query @ direction).squeeze(3).mean(dim=1)
