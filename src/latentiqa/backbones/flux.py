"""FLUX.1: a rectified flow; blocks of two streams, then blocks of one, over packed latents."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel

from latentiqa.backbones.ldm import Context, LatentDiffusion
from latentiqa.backbones.text import T5TokenizerFast, tokenise


class Flux(LatentDiffusion):
    """FLUX.1 dev and schnell (Black Forest Labs, 2024). See `LatentDiffusion`.

    Dev was distilled with classifier-free guidance and is told its scale: 1 here, none, as
    everywhere in the house.
    """

    PARTS: ClassVar[dict[str, Any]] = {
        "vae": AutoencoderKL,
        "transformer": FluxTransformer2DModel,
        "text_encoder": CLIPTextModel,
        "text_encoder_2": T5EncoderModel,
        "tokenizer": CLIPTokenizer,
        "tokenizer_2": T5TokenizerFast,
    }
    DENOISER = "transformer"

    transformer: Any
    text_encoder: Any
    text_encoder_2: Any
    tokenizer: Any
    tokenizer_2: Any

    @property
    def patch(self) -> int:
        """Two: latents are packed before the transformer sees them, its own patches are 1."""
        return 2

    def encode_prompt(self, prompt: str) -> Context:
        """T5's tokens ``(1, N, D)``, of dev 512, of schnell 256, and CLIP's embedding."""
        ids = tokenise(self.tokenizer, prompt).input_ids.to(self.device)
        pooled = self.text_encoder(ids).pooler_output
        length = 512 if self.transformer.config.guidance_embeds else 256
        ids = tokenise(self.tokenizer_2, prompt, length).input_ids.to(self.device)
        states = self.text_encoder_2(ids)[0]
        return {"encoder_hidden_states": states, "pooled_projections": pooled}

    def denoise(self, z_t: Tensor, t: int, context: Context) -> Tensor:
        """See `LatentDiffusion.denoise`."""
        packed = pixel_unshuffle(z_t, self.patch)
        height, width = packed.shape[-2:]
        # Positions: 0, row and column of a token of the picture, zeros of one of the text.
        rows, columns = torch.arange(height), torch.arange(width)
        places = torch.cartesian_prod(torch.zeros(1, dtype=rows.dtype), rows, columns).to(z_t)
        no_places = z_t.new_zeros(context["encoder_hidden_states"].shape[1], 3)
        guided = self.transformer.config.guidance_embeds
        output = self.transformer(
            packed.flatten(2).transpose(1, 2),
            timestep=self.times(z_t, t) / 1000,
            img_ids=places,
            txt_ids=no_places,
            guidance=torch.ones_like(self.times(z_t, t)) if guided else None,
            **context,
        ).sample
        return pixel_shuffle(output.transpose(1, 2).unflatten(2, (height, width)), self.patch)
