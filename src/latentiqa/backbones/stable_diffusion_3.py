"""Stable Diffusion 3: a rectified flow; text and picture are two streams of one transformer."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import Tensor
from torch.nn.functional import pad
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel

from latentiqa.backbones.ldm import Context, LatentDiffusion
from latentiqa.backbones.text import T5TokenizerFast, clip_states, tokenise

T5_TOKENS = 256


class StableDiffusion3(LatentDiffusion):
    """SD3 and 3.5 (Esser et al., ICML 2024). See `LatentDiffusion`.

    A folder may leave out T5, by far the largest of the text encoders: zeros stand in for its
    tokens, as in training, where each encoder was dropped at random.
    """

    PARTS: ClassVar[dict[str, Any]] = {
        "vae": AutoencoderKL,
        "transformer": SD3Transformer2DModel,
        "text_encoder": CLIPTextModelWithProjection,
        "text_encoder_2": CLIPTextModelWithProjection,
        "text_encoder_3": T5EncoderModel,
        "tokenizer": CLIPTokenizer,
        "tokenizer_2": CLIPTokenizer,
        "tokenizer_3": T5TokenizerFast,
    }
    OPTIONAL = frozenset({"text_encoder_3", "tokenizer_3"})
    DENOISER = "transformer"

    transformer: Any
    text_encoder: Any
    text_encoder_2: Any
    text_encoder_3: Any
    tokenizer: Any
    tokenizer_2: Any
    tokenizer_3: Any

    def encode_prompt(self, prompt: str) -> Context:
        """Tokens of both CLIPs side by side, then T5's; the CLIPs' embeddings side by side."""
        first, pooled = clip_states(self.text_encoder, self.tokenizer, prompt)
        second, pooled_2 = clip_states(self.text_encoder_2, self.tokenizer_2, prompt)
        clip = torch.cat([first, second], -1)
        width = self.transformer.config.joint_attention_dim
        if self.text_encoder_3 is None:
            t5 = clip.new_zeros(1, T5_TOKENS, width)
        else:
            ids = tokenise(self.tokenizer_3, prompt, T5_TOKENS).input_ids.to(self.device)
            t5 = self.text_encoder_3(ids)[0]
        states = torch.cat([pad(clip, (0, width - clip.shape[-1])), t5], dim=1)
        pooled = torch.cat([pooled, pooled_2], -1)
        return {"encoder_hidden_states": states, "pooled_projections": pooled}

    def denoise(self, z_t: Tensor, t: int, context: Context) -> Tensor:
        """See `LatentDiffusion.denoise`."""
        return self.transformer(z_t, timestep=self.times(z_t, t), **context).sample
