"""A control: a small latent diffusion model of Stable Diffusion's own classes, trained on nothing.

Its weights are a fixed-seed random initialisation; whatever is measured with it says so. The
folder has diffusers' pipeline format and loads like any other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from latentiqa.backbones.ldm import save_pipeline
from latentiqa.files import build_folder
from latentiqa.hashing import digest
from latentiqa.paths import cache_dir

SEED = 0

VAE: dict[str, Any] = {
    "block_out_channels": (8, 16, 32, 64),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
}

# Stable Diffusion's layout (four levels, two ResNet blocks each, attention in the first three),
# so that every layer address of the large models exists here too.
UNET: dict[str, Any] = {
    "sample_size": 32,
    "block_out_channels": (32, 64, 96, 128),
    "layers_per_block": 2,
    "cross_attention_dim": 64,
    "attention_head_dim": 2,
    "norm_num_groups": 8,
}

TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": 64,
}

# Stable Diffusion's noise schedule.
SCHEDULER: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def tiny_random_folder(root: str | Path | None = None) -> Path:
    """Path of the model's folder, built at first use in about a second.

    Args:
        root: where it is kept; the cache folder by default.
    """
    recipe = digest([SEED, VAE, UNET, TEXT, SCHEDULER, torch.__version__.split("+")[0]])
    return build_folder(Path(root or cache_dir()) / f"tiny-random-{recipe}", build_random)


def build_random(
    folder: str | Path,
    vae: Mapping[str, Any] | None = None,
    unet: Mapping[str, Any] | None = None,
    text: Mapping[str, Any] | None = None,
) -> None:
    """Write a randomly initialised pipeline into ``folder``, in diffusers' pipeline format.

    Args:
        folder: where to.
        vae: changes to the config `VAE`.
        unet: changes to the config `UNET`.
        text: changes to the config `TEXT`.
    """
    folder = Path(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        # Any: diffusers types what a model returns as a union with a tuple.
        autoencoder: Any = AutoencoderKL(**VAE | dict(vae or {}))
        denoiser = UNet2DConditionModel(**UNET | dict(unet or {}))
        tokenizer: Any = byte_tokenizer(folder / "tokenizer")
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                **TEXT | dict(text or {}),
            )
        )
        # As for Stable Diffusion's 0.18215: latents of unit variance, here on white noise through
        # the random encoder, since a random model has no data that it was trained on.
        latents = autoencoder.eval().encode(torch.rand(4, 3, 256, 256) * 2 - 1).latent_dist.mode()
        autoencoder.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))
    scheduler = DDIMScheduler(**SCHEDULER)
    save_pipeline(folder, autoencoder, denoiser, text_encoder, tokenizer, scheduler)


def byte_tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIP's tokenizer without merges: one token a byte, so that every text has tokens."""
    letters = _byte_letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77)


def _byte_letters() -> list[str]:
    """The printable stand-in of each byte in GPT-2's and CLIP's byte-level vocabularies."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(hidden))]
