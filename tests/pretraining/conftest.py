from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL


def micro_autoencoder() -> AutoencoderKL:
    """f4, 4 channels, a few thousand parameters."""
    return AutoencoderKL(
        block_out_channels=(4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        mid_block_add_attention=False,
        scaling_factor=0.5,
    )


def encoder(image, blocks):
    """Stands for a pretrained encoder: every block is the picture, four times smaller."""
    return {block: torch.nn.functional.avg_pool2d(image, 4) for block in blocks}


UNET = {
    "sample_size": 8,
    "block_out_channels": (8, 8),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "projection_dim": 16,
}
SCHEDULER = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "prediction_type": "epsilon",
}
ADAM = partial(torch.optim.Adam, lr=1e-2)


@pytest.fixture(scope="session")
def autoencoder_folder(tmp_path_factory) -> str:
    folder: Path = tmp_path_factory.mktemp("autoencoder")
    torch.manual_seed(0)
    micro_autoencoder().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def diffusion(autoencoder_folder):
    """Makes a micro second stage; keywords change it."""
    from latentiqa.pretraining.diffusion import DiffusionTraining

    def make(**changes):
        torch.manual_seed(0)
        arguments = {
            "autoencoder_folder": autoencoder_folder,
            "unet": UNET,
            "text_encoder": TEXT,
            "scheduler": SCHEDULER,
            "optimizer": ADAM,
            "warmup_steps": 0,
            "schedule": "constant",
            "caption_dropout": 0.0,
        }
        return DiffusionTraining(**(arguments | changes))

    return make
