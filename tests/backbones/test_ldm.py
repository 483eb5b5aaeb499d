from __future__ import annotations

import json
import shutil

import pytest
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline

from latentiqa.backbones.stable_diffusion import StableDiffusion
from latentiqa.errors import ConfigError


@pytest.fixture(scope="module")
def pipeline(micro_folder):
    pipe = StableDiffusionPipeline.from_pretrained(micro_folder, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def micro(micro_folder):
    return StableDiffusion.from_folder(micro_folder)


def test_encoding_is_the_scaled_mode_of_the_vae(micro, pipeline, pictures):
    image, _ = pictures
    with torch.no_grad():
        expected = pipeline.vae.encode(
            pipeline.image_processor.preprocess(image)
        ).latent_dist.mode()
        latents = micro.encode(image)
    torch.testing.assert_close(latents, expected * pipeline.vae.config.scaling_factor)
    assert latents.shape == (8, 4, 8, 8)


def test_decoding_is_the_pipelines(micro, pipeline, pictures):
    with torch.no_grad():
        latents = micro.encode(pictures[0])
        expected = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
        decoded = micro.decode(latents)
    expected = pipeline.image_processor.postprocess(expected, "pt")
    torch.testing.assert_close(decoded.clamp(0, 1), expected)


@pytest.mark.parametrize("prompt", ["", "a sharp photo, good quality"])
def test_context_is_the_pipelines_prompt_embedding(micro, pipeline, prompt):
    expected, _ = pipeline.encode_prompt(prompt, "cpu", 1, False)
    context = micro.context(prompt, 3)
    assert list(context) == ["encoder_hidden_states"]
    torch.testing.assert_close(context["encoder_hidden_states"], expected.expand(3, -1, -1))


def test_noise_of_an_epsilon_model_is_its_output(micro, pipeline):
    z_t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    context = micro.context("", 2)
    with torch.no_grad():
        expected = pipeline.unet(z_t, 37, **context).sample
        noise, _ = micro.predict_noise(z_t, 37, context)
    assert torch.equal(noise, expected)


def test_noise_of_a_v_model_agrees_with_diffusers_own_scheduler(micro_folder, tmp_path):
    folder = tmp_path / "v"
    shutil.copytree(micro_folder, folder)
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"prediction_type": "v_prediction"})
    )
    model = StableDiffusion.from_folder(folder)
    z_t = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        noise, _ = model.predict_noise(z_t, 401, model.context(""))
        output = model.unet(z_t, 401, **model.context("")).sample
    scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    scheduler.set_timesteps(10)
    step = scheduler.step(output, 401, z_t)
    rates = model.rates(401)
    z0 = (z_t - rates.noise * noise) / rates.signal
    torch.testing.assert_close(z0, step.pred_original_sample, atol=1e-5, rtol=1e-5)


def test_other_prediction_types_are_refused(micro):
    scheduler = DDIMScheduler(prediction_type="sample")
    with pytest.raises(ConfigError, match="prediction_type='sample'"):
        StableDiffusion(**micro.parts(), scheduler=scheduler)


def test_it_is_frozen_and_stays_in_evaluation_mode(micro):
    torch.nn.Sequential(micro).train()
    assert not any(module.training for module in micro.modules())
    assert not any(parameter.requires_grad for parameter in micro.parameters())


def test_a_tiny_autoencoder_serves_as_vae(micro_folder, tmp_path, pictures):
    folder = tmp_path / "taesd"
    shutil.copytree(micro_folder, folder)
    shutil.rmtree(folder / "vae")
    torch.manual_seed(0)
    taesd = AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4,
    ).eval()  # fmt: skip
    taesd.save_pretrained(folder / "vae")
    model = StableDiffusion.from_folder(folder)
    with torch.no_grad():
        latents = model.encode(pictures[0])
        torch.testing.assert_close(latents, taesd.encode(pictures[0] * 2 - 1).latents)
        decoded = model.decode(latents)
        torch.testing.assert_close(decoded * 2 - 1, taesd.decode(latents).sample)
    assert latents.shape == (8, 4, 8, 8)
    assert decoded.shape == (8, 3, 64, 64)


def test_an_unknown_vae_class_is_named(micro_folder, tmp_path):
    folder = tmp_path / "vq"
    shutil.copytree(micro_folder, folder)
    config = folder / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"_class_name": "AutoencoderDC"}))
    with pytest.raises(ConfigError, match=r"config.json: class 'AutoencoderDC' is not supported"):
        StableDiffusion.from_folder(folder)


def test_lower_precision_weights_give_results_in_the_inputs_dtype(micro_folder, pictures):
    model = StableDiffusion.from_folder(micro_folder, dtype=torch.bfloat16)
    latents = model.encode(pictures[0])
    noise, maps = model.predict_noise(latents, 10, model.context("", 8), ["mid.attn.0"])
    assert latents.dtype == noise.dtype == model.decode(latents).dtype == torch.float32
    assert maps["mid.attn.0"].dtype == torch.bfloat16
