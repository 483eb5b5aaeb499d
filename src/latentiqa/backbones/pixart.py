"""PixArt-alpha and -sigma: a diffusion transformer that attends to T5."""

from __future__ import annotations

from typing import Any, ClassVar

from diffusers import AutoencoderKL, PixArtTransformer2DModel
from torch import Tensor
from transformers import T5EncoderModel

from latentiqa.backbones.ldm import Context, LatentDiffusion
from latentiqa.backbones.text import T5TokenizerFast, tokenise

# What alpha was trained with, and enough for a quality prompt; what is padded is masked.
TOKENS = 120


class PixArt(LatentDiffusion):
    """PixArt-alpha (Chen et al., ICLR 2024) and -sigma (ECCV 2024). See `LatentDiffusion`."""

    PARTS: ClassVar[dict[str, Any]] = {
        "vae": AutoencoderKL,
        "transformer": PixArtTransformer2DModel,
        "text_encoder": T5EncoderModel,
        "tokenizer": T5TokenizerFast,
    }
    DENOISER = "transformer"
    # Of the tokenizer the hub has sentencepiece's model alone.
    PACKAGES = ("sentencepiece", "google.protobuf")

    transformer: Any
    text_encoder: Any
    tokenizer: Any

    def encode_prompt(self, prompt: str) -> Context:
        """Hidden states ``(1, 120, D)`` and their mask; captions are in lower case."""
        tokens = tokenise(self.tokenizer, prompt.lower().strip(), TOKENS).to(self.device)
        states = self.text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0]
        return {"encoder_hidden_states": states, "encoder_attention_mask": tokens.attention_mask}

    def denoise(self, z_t: Tensor, t: int, context: Context) -> Tensor:
        """See `LatentDiffusion.denoise`; alpha at 1024 pixels is told the picture's size."""
        size: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
        if self.transformer.use_additional_conditions:
            height, width = (side * self.vae_scale for side in z_t.shape[-2:])
            size = {
                "resolution": z_t.new_tensor([[height, width]]).expand(len(z_t), 2),
                "aspect_ratio": z_t.new_tensor([[height / width]]).expand(len(z_t), 1),
            }
        times = self.times(z_t, t)
        output = self.transformer(z_t, timestep=times, added_cond_kwargs=size, **context).sample
        # With a learnt variance its channels follow those of the noise.
        return output[:, : z_t.shape[1]]
