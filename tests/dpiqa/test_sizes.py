"""The teacher at the size of Stable Diffusion 1.5, on the meta device: no memory, no arithmetic."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from latentiqa.backbones.stable_diffusion import StableDiffusion
from latentiqa.backbones.tiny_random import SCHEDULER, VAE, byte_tokenizer
from latentiqa.dpiqa.teacher import Design, Teacher


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Teacher:
    with torch.device("meta"):
        vae = AutoencoderKL(
            **VAE | {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
        )
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        # Of CLIP's ViT-L/14 only the width matters here: the prompts' features are given.
        text_encoder = CLIPTextModel(CLIPTextConfig(hidden_size=768, num_hidden_layers=1))
        backbone = StableDiffusion(
            vae=vae,
            unet=unet,
            text_encoder=text_encoder,
            tokenizer=byte_tokenizer(tmp_path_factory.mktemp("tokenizer")),
            scheduler=DDIMScheduler(**SCHEDULER),
        )
        return Teacher(backbone, Design(), prompts=torch.empty(495, 768))


def test_parameters_are_as_many_as_the_paper_says(teacher):
    """77.4 M and 42.9 M are the paper's, as is about 0.98 B in all; the rest follows."""
    counts = {part: round(n / 1e6, 1) for part, n in teacher.parameter_counts().items()}
    # conv_norm_out and conv_out, 0.01 M behind the last tap, are not trained.
    assert counts == {"unet": 859.5, "text_adapter": 1.2, "image_adapter": 77.4, "decoder": 42.9}
    assert round(sum(teacher.parameter_counts().values()) / 1e9, 2) == 0.98


def test_maps_have_the_paper_s_shapes(teacher):
    image = torch.empty(1, 3, 512, 512, device="meta")
    maps = []
    teacher.decoder.register_forward_pre_hook(lambda _m, inputs: maps.extend(inputs[0]))
    quality = teacher.quality(image, ["a.png"])
    assert [tuple(one.shape[1:]) for one in maps] == [
        *((1280, 16, 16), (1280, 32, 32), (640, 64, 64), (320, 64, 64))
    ]
    assert quality.shape == (1, 8, 64, 64)
    assert teacher.decoder.regress(quality.flatten(1)).shape == (1, 1)
    assert teacher.image_adapter is not None
    assert [tuple(one.shape[1:]) for one in teacher.image_adapter(image)] == [
        *((320, 64, 64), (640, 32, 32), (1280, 16, 16), (1280, 8, 8))
    ]
    assert teacher.backbone.encode(image).shape == (1, 4, 64, 64)
