"""The smallest pipeline of each family, with random weights, in diffusers' own format."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    LDMPipeline,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from latentiqa.backbones.text import T5TokenizerFast
from latentiqa.backbones.tiny_random import SCHEDULER, byte_tokenizer

# f8, four channels, as Stable Diffusion's.
VAE: dict[str, Any] = {
    "block_out_channels": (4, 4, 8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "norm_num_groups": 4,
    "latent_channels": 4,
}


def clip(kind: Any, tokenizer: Any, width: int) -> Any:
    return kind(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            hidden_size=width,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            projection_dim=2 * width,
        )
    )


def t5(width: int) -> tuple[Any, Any]:
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    letters = [(letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    tokenizer = T5TokenizerFast(vocab=special + letters, extra_ids=0, model_max_length=512)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2
    )
    return T5EncoderModel(config), tokenizer


def sdxl(folder: Path) -> Any:
    first, second = byte_tokenizer(folder / "a"), byte_tokenizer(folder / "b")
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=24,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 32,
    )
    return StableDiffusionXLPipeline(
        vae=AutoencoderKL(**VAE),
        unet=unet,
        text_encoder=clip(CLIPTextModel, first, 8),
        text_encoder_2=clip(CLIPTextModelWithProjection, second, 16),
        tokenizer=first,
        tokenizer_2=second,
        scheduler=DDIMScheduler(**SCHEDULER),
    )


def ldm(folder: Path) -> Any:
    vqvae = VQModel(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4,
        latent_channels=3,
        scaling_factor=0.5,
    )
    unet = UNet2DModel(
        sample_size=16,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
    )
    return LDMPipeline(vqvae, unet, DDIMScheduler(**SCHEDULER))


def pixart(folder: Path, kind: Any = PixArtAlphaPipeline) -> Any:
    encoder, tokenizer = t5(16)
    transformer = PixArtTransformer2DModel(
        sample_size=128,
        # Alpha at 1024 pixels is told the picture's size.
        use_additional_conditions=kind is PixArtAlphaPipeline,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=16,
    )
    scheduler = DDIMScheduler(beta_start=0.0001, beta_end=0.02, clip_sample=False)
    return kind(tokenizer, encoder, AutoencoderKL(**VAE), transformer, scheduler)


def sd3(folder: Path, with_t5: bool = True) -> Any:
    first, second = byte_tokenizer(folder / "a"), byte_tokenizer(folder / "b")
    encoder, tokenizer = t5(32) if with_t5 else (None, None)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        caption_projection_dim=16,
        joint_attention_dim=32,
        pooled_projection_dim=16 + 32,
        pos_embed_max_size=16,
    )
    return StableDiffusion3Pipeline(
        vae=AutoencoderKL(**VAE, shift_factor=0.1),
        transformer=transformer,
        text_encoder=clip(CLIPTextModelWithProjection, first, 8),
        text_encoder_2=clip(CLIPTextModelWithProjection, second, 16),
        text_encoder_3=encoder,
        tokenizer=first,
        tokenizer_2=second,
        tokenizer_3=tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )


def flux(folder: Path, told: bool = True) -> Any:
    tokenizer = byte_tokenizer(folder / "a")
    encoder_2, tokenizer_2 = t5(32)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        num_attention_heads=2,
        attention_head_dim=16,
        joint_attention_dim=32,
        pooled_projection_dim=16,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=told,  # the scale of guidance, as dev; schnell is not
    )
    return FluxPipeline(
        vae=AutoencoderKL(**VAE, shift_factor=0.1),
        transformer=transformer,
        text_encoder=clip(CLIPTextModel, tokenizer, 16),
        text_encoder_2=encoder_2,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )


FAMILIES = {"sdxl": sdxl, "ldm": ldm, "pixart": pixart, "sd3": sd3, "flux": flux}
VARIANTS = {
    "pixart_sigma": partial(pixart, kind=PixArtSigmaPipeline),
    "flux_schnell": partial(flux, told=False),
}


def write_pipeline(family: str, folder: Path, **options: Any) -> Any:
    """Make a family's pipeline, write it into ``folder`` and return it.

    Layers that begin as zeros, so that an untrained transformer is deaf to what it is told, get
    random weights, too.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = (FAMILIES | VARIANTS)[family](
            folder.with_name(f"{folder.name}-tokenizers"), **options
        )
        denoiser = getattr(pipeline, "transformer", None) or pipeline.unet
        for parameter in denoiser.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.05)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()  # T5 has dropout
    pipeline.save_pretrained(folder, safe_serialization=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
