"""Stable Diffusion XL: a U-Net that attends to two CLIPs and is told the picture's size."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from latentiqa.backbones.ldm import Context, LatentDiffusion
from latentiqa.backbones.text import clip_states


class StableDiffusionXL(LatentDiffusion):
    """Podell et al., ICLR 2024. See `LatentDiffusion`.

    The empty prompt is encoded like any other; diffusers' classifier-free guidance has zeros in
    its place.
    """

    PARTS: ClassVar[dict[str, Any]] = {
        "vae": AutoencoderKL,
        "unet": UNet2DConditionModel,
        "text_encoder": CLIPTextModel,
        "text_encoder_2": CLIPTextModelWithProjection,
        "tokenizer": CLIPTokenizer,
        "tokenizer_2": CLIPTokenizer,
    }

    unet: Any
    text_encoder: Any
    text_encoder_2: Any
    tokenizer: Any
    tokenizer_2: Any

    def encode_prompt(self, prompt: str) -> Context:
        """Hidden states of both encoders side by side, and the second one's embedding."""
        first, _ = clip_states(self.text_encoder, self.tokenizer, prompt)
        second, pooled = clip_states(self.text_encoder_2, self.tokenizer_2, prompt)
        return {"encoder_hidden_states": torch.cat([first, second], -1), "text_embeds": pooled}

    def denoise(self, z_t: Tensor, t: int, context: Context) -> Tensor:
        """See `LatentDiffusion.denoise`; the picture is said to be whole and of its own size."""
        height, width = (side * self.vae_scale for side in z_t.shape[-2:])
        # Original size, corner of the crop, target size (section 2.2 of the paper).
        sizes = z_t.new_tensor([height, width, 0, 0, height, width]).expand(len(z_t), 6)
        return self.unet(
            z_t,
            t,
            encoder_hidden_states=context["encoder_hidden_states"],
            added_cond_kwargs={"text_embeds": context["text_embeds"], "time_ids": sizes},
        ).sample
