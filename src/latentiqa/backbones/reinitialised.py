"""The control of a backbone: the same networks without what they have learned."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from transformers import CLIPTextModel

from latentiqa.backbones.ldm import LatentDiffusion


def reinitialised(backbone: LatentDiffusion, seed: int = 0) -> LatentDiffusion:
    """The control of an untrained model: U-Net and text encoder anew from their configs.

    Autoencoder, tokenizer and noise schedule are the given model's own, so that both see the
    same latents.

    Args:
        backbone: stays as it is.
        seed: of the random weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = type(backbone.unet).from_config(backbone.unet.config)
        # Any: the decorators of transformers' `to` hide its arguments from type checkers.
        text_encoder: Any = CLIPTextModel(backbone.text_encoder.config)
    scheduler = SimpleNamespace(
        config=SimpleNamespace(prediction_type=backbone.prediction_type),
        alphas_cumprod=backbone.alphas_cumprod,
    )
    return LatentDiffusion(
        backbone.vae,
        unet.to(backbone.device, backbone.dtype),
        text_encoder.to(backbone.device, backbone.dtype),
        backbone.tokenizer,
        scheduler,
        identity=f"{backbone.identity}, U-Net and text encoder random, seed {seed}",
    )
