"""Where in a picture the prompts are answered: heat maps of attention."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from latentiqa.errors import ConfigError
from latentiqa.genziqa.attention import place_means
from latentiqa.genziqa.rater import PromptRater

Maps = dict[int, dict[str, Tensor]]
"""timestep -> address of a layer -> ``(h, w)``."""


@torch.no_grad()
def heat_maps(rater: PromptRater, image: Tensor, name: str) -> tuple[Maps, Maps]:
    """The logits of a picture's places, means over heads and tokens.

    They are what the score pools, before it does.

    Args:
        rater: whose score reads attention.
        image: ``(1, 3, H, W)`` in [0, 1].
        name: the picture's.

    Returns:
        Of the good prompt and of the bad one.

    Raises:
        ConfigError: no attention is read.

    Example:
        >>> from latentiqa.backbones.source import BackboneSource
        >>> from latentiqa.genziqa.rater import Design
        >>> backbone = BackboneSource("control", "tiny_random", resolution=64).load()
        >>> design = Design(context=0, tuning="none", timesteps=[9, 45], layers=["mid.*", "up.3.*"])
        >>> good, bad = heat_maps(PromptRater(backbone, design), torch.rand(1, 3, 64, 128), "a.png")
        >>> list(good), {layer: tuple(one.shape) for layer, one in good[9].items()}["up.3.attn.0"]
        ([45, 9], (8, 16))
    """
    rater.check_reads("heat maps")
    if len(image) != 1:
        raise ConfigError(f"{len(image)} pictures: expected one, the maps are of one.")
    encoded, z0 = rater.encode_prompts(rater.design.pair), rater.latents(image, [name])
    read = partial(place_means, text=rater.token_weights(encoded))
    good: Maps = {}
    bad: Maps = {}
    for t, look, _ in rater.looks(z0, [name], encoded.context, read, need_noise=False):
        rows = {layer: folded(look.read[layer], *z0.shape[2:]) for layer in rater.layers}
        good[t] = {layer: one[0].cpu() for layer, one in rows.items()}
        bad[t] = {layer: one[1].cpu() for layer, one in rows.items()}
    return good, bad


def folded(rows: Tensor, height: int, width: int) -> Tensor:
    """The maps that rows of places make.

    Args:
        rows: ``(B, N)``; the places of latents that were halved or made patches.
        height: of the latents.
        width: of the latents.

    Returns:
        ``(B, h, w)``, ``h w = N`` with the latents' aspect.

    Example:
        >>> folded(torch.arange(8.0)[None], 4, 8).tolist()
        [[[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]]]
    """
    smaller = round((height * width / rows.shape[1]) ** 0.5)
    return rows.unflatten(1, (height // smaller, width // smaller))


def mean_map(maps: Mapping[int, Mapping[str, Tensor]]) -> Tensor:
    """Mean over timesteps and layers, which are resized to the largest of them, ``(h, w)``."""
    every = [one for layers in maps.values() for one in layers.values()]
    size = max((tuple(one.shape) for one in every), key=lambda shape: shape[0] * shape[1])
    resized = [
        F.interpolate(one[None, None], size=size, mode="bilinear", align_corners=False)
        for one in every
    ]
    return torch.cat(resized).mean(dim=(0, 1))
