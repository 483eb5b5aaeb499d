"""Stable Diffusion 1 and 2, SD-Turbo, and the embedded models: a U-Net that attends to CLIP."""

from __future__ import annotations

from typing import Any, ClassVar

from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from latentiqa.backbones.ldm import Context, LatentDiffusion
from latentiqa.backbones.text import tokenise


class StableDiffusion(LatentDiffusion):
    """Rombach et al., CVPR 2022; predicts the noise or v. See `LatentDiffusion`."""

    PARTS: ClassVar[dict[str, Any]] = {
        "vae": AutoencoderKL,
        "unet": UNet2DConditionModel,
        "text_encoder": CLIPTextModel,
        "tokenizer": CLIPTokenizer,
    }

    unet: Any
    text_encoder: Any
    tokenizer: Any

    def encode_prompt(self, prompt: str) -> Context:
        """Hidden states ``(1, 77, D)``."""
        ids = tokenise(self.tokenizer, prompt).input_ids.to(self.device)
        return {"encoder_hidden_states": self.text_encoder(ids)[0]}

    def denoise(self, z_t: Tensor, t: int, context: Context) -> Tensor:
        """See `LatentDiffusion.denoise`."""
        return self.unet(z_t, t, **context).sample
