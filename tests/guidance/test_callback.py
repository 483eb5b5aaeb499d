"""PMG inside the pipelines of diffusers, on the embedded control."""

from __future__ import annotations

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from PIL import Image

from latentiqa.backbones.stable_diffusion import StableDiffusion
from latentiqa.backbones.tiny_random import tiny_random_folder
from latentiqa.errors import ConfigError
from latentiqa.guidance import DPS, PMG, StepSize
from latentiqa.guidance.callback import PMGCallback
from latentiqa.noise import image_noise
from latentiqa.perceptual.sd import BackboneFeatures
from latentiqa.trajectory import Timesteps, add_noise, trajectory

STEPS = 6


@pytest.fixture(scope="module")
def pipe():
    loaded = StableDiffusionPipeline.from_pretrained(tiny_random_folder(), local_files_only=True)
    loaded.set_progress_bar_config(disable=True)
    # In float32 the scheduler's own steps would be off by 1e-7, and what is solved from them more.
    loaded.scheduler.alphas_cumprod = loaded.scheduler.alphas_cumprod.double()
    return loaded


@pytest.fixture
def image(pictures):
    return pictures[0][:1]


class Recorder(PipelineCallback):
    tensor_inputs = ["latents"]  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.latents = []

    def callback_fn(self, pipeline, step_index, timestep, callback_kwargs):
        self.latents.append(callback_kwargs["latents"].clone())
        return callback_kwargs


@pytest.mark.parametrize("psi", [None, BackboneFeatures()], ids=["none", "sd"])
def test_it_guides_as_the_trajectory_does(pipe, image, psi):
    """The same latents at every timestep, from the same noise; the first step is not guided."""
    pipe = pipe.to(torch.float64)
    image, names = image.double(), ["a"]
    pipe.scheduler.set_timesteps(STEPS)
    values = pipe.scheduler.timesteps.tolist()
    size = StepSize(0.1, window=[values[1], 0])
    pmg = PMG(psi, measurement=size, perceptual=size)
    parts = {name: getattr(pipe, name) for name in StableDiffusion.PARTS}
    model = StableDiffusion(**parts, scheduler=pipe.scheduler)
    z0 = model.encode(image)
    noise = image_noise(names, values[0], z0.shape[1:], dtype=z0.dtype)
    start = add_noise(z0, noise, model.rates(values[0]))

    expected = []
    guide = pmg.bind(image, model)

    def observed(step):
        expected.append(step.z_t)
        return guide(step)

    for _ in trajectory(
        model, z0, Timesteps(values), names=names, context=model.context("", 1),
        taps=["mid.attn.0"], guide=observed,
    ):  # fmt: skip
        pass

    recorder = Recorder()
    callbacks = MultiPipelineCallbacks([PMGCallback(image, pmg), recorder])
    options = {"num_inference_steps": STEPS, "guidance_scale": 1.0, "output_type": "latent"}
    pipe("", latents=start, height=64, width=64, callback_on_step_end=callbacks, **options)
    assert len(recorder.latents) == STEPS
    for found, wanted in zip(recorder.latents, expected[1:], strict=False):
        torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)
    unguided = pipe("", latents=start, height=64, width=64, **options).images
    assert not torch.allclose(unguided, recorder.latents[-1], atol=1e-2)


def test_two_lines_guide_img2img_towards_the_picture(pipe, image):
    """With a prompt and classifier-free guidance, two pictures of one; and a second time."""
    img2img = StableDiffusionImg2ImgPipeline(**pipe.to(torch.float32).components)
    img2img.set_progress_bar_config(disable=True)
    pixels = (image[0].permute(1, 2, 0) * 255).round().byte().numpy()
    photo = Image.fromarray(pixels)
    callback = PMGCallback(photo, PMG(measurement=StepSize(0.2)))

    def distance(callback):
        made = img2img(
            "a photo", image=photo, strength=0.8, num_inference_steps=STEPS,
            num_images_per_prompt=2, generator=torch.Generator().manual_seed(0),
            output_type="pt", callback_on_step_end=callback,
        ).images  # fmt: skip
        return (made - image).square().mean().item()

    guided = distance(callback)
    assert guided < 0.9 * distance(None)
    assert distance(callback) == guided


def test_a_last_step_that_denoises_nothing_is_left_as_it_is(pipe, image):
    """From timestep 0 to what the scheduler calls final, which is timestep 0."""
    pipe = pipe.to(torch.float32)
    config = {**pipe.scheduler.config, "set_alpha_to_one": False, "timestep_spacing": "linspace"}
    other = StableDiffusionPipeline(**pipe.components, requires_safety_checker=False)
    other.scheduler = DDIMScheduler.from_config(config)
    other.set_progress_bar_config(disable=True)
    made = other(
        "", height=64, width=64, num_inference_steps=3, output_type="latent",
        callback_on_step_end=PMGCallback(image, PMG()),
    ).images  # fmt: skip
    assert other.scheduler.timesteps[-1] == 0
    assert made.isfinite().all()


def test_what_it_cannot_do_is_refused(pipe, image):
    pipe = pipe.to(torch.float32)

    def run(pipe=pipe, image=image, guidance=None):
        callback = PMGCallback(image, guidance or PMG())
        pipe("", height=64, width=64, num_inference_steps=2, callback_on_step_end=callback)

    with pytest.raises(ConfigError, match="DPS: it differentiates through the U-Net"):
        run(guidance=DPS())
    with pytest.raises(ConfigError, match="expected a picture of Pillow or a tensor"):
        run(image=torch.rand(64, 64))
    with pytest.raises(ConfigError, match=r"\(32, 32\) pixels, but the pipeline makes 1 of \(64"):
        run(image=torch.rand(3, 32, 32))
    with pytest.raises(ConfigError, match="latents are bfloat16: expected float32"):
        run(pipe=pipe.to(torch.bfloat16))
    pipe.to(torch.float32)
    with pytest.raises(ConfigError, match="image: 2 of"):
        run(image=torch.rand(2, 3, 64, 64))
    for scheduler, message in (
        (PNDMScheduler(skip_prk_steps=True), "scheduler=PNDMScheduler: expected"),
        (DDIMScheduler(clip_sample=True), "DDIMScheduler with clip_sample=True: expected"),
        (DDIMScheduler(clip_sample=False, thresholding=True), "with thresholding=True"),
    ):
        other = StableDiffusionPipeline(**pipe.components, requires_safety_checker=False)
        other.scheduler = scheduler  # its constructor would mend some of them
        other.set_progress_bar_config(disable=True)
        with pytest.raises(ConfigError, match=message):
            run(pipe=other)
