"""The rater at the size of Stable Diffusion 2.1, on the meta device."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from latentiqa.backbones.stable_diffusion import StableDiffusion
from latentiqa.backbones.tiny_random import SCHEDULER, VAE, byte_tokenizer
from latentiqa.genziqa.rater import Design, PromptRater


def test_parameters_are_as_many_as_the_authors_count(tmp_path):
    """LoRA of rank 4 on the 16 cross-attentions, and 16 tokens, 1024 wide."""
    with torch.device("meta"):
        backbone = StableDiffusion(
            vae=AutoencoderKL(**VAE),
            unet=UNet2DConditionModel(
                sample_size=64,
                cross_attention_dim=1024,
                attention_head_dim=(5, 10, 20, 20),
                use_linear_projection=True,
            ),
            text_encoder=CLIPTextModel(CLIPTextConfig(hidden_size=1024, num_hidden_layers=1)),
            tokenizer=byte_tokenizer(tmp_path),
            scheduler=DDIMScheduler(**SCHEDULER),
        )
        rater = PromptRater(backbone, Design())
    assert len(rater.layers) == 16
    assert rater.parameter_counts() == {"denoiser": 430_592, "context": 16_384}
