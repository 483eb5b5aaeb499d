"""PMG in the pipelines of diffusers, as their ``callback_on_step_end``.

A pipeline shows its callbacks the latents after each step and nothing of how it made them. Of a
deterministic DDIM step both the noise prediction and the clean-latent estimate can be read off the
latents before and after it: two equations with two unknowns (DDIM, Song et al., ICLR 2021, eq. 12),

    z_t     = sqrt(abar_t)     z_{0|t} + sqrt(1 - abar_t)     e
    z_{t-1} = sqrt(abar_{t-1}) z_{0|t} + sqrt(1 - abar_{t-1}) e

with whatever prompts, classifier-free guidance or adapters e came from. With e held fixed, moving
``z_{0|t}`` by d moves ``z_{t-1}`` by ``sqrt(abar_{t-1}) d``, as in `latentiqa.trajectory`.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDIMScheduler
from diffusers.callbacks import PipelineCallback
from PIL import Image
from torch import Tensor

from latentiqa.backbones.process import Rates
from latentiqa.backbones.stable_diffusion import StableDiffusion
from latentiqa.data.images import from_pillow
from latentiqa.errors import ConfigError
from latentiqa.guidance.base import Guidance
from latentiqa.trajectory import Guide, Step


class PMGCallback(PipelineCallback):
    """Guides `StableDiffusionPipeline` and `StableDiffusionImg2ImgPipeline` towards a picture.

    The scheduler must be a `DDIMScheduler` that does not clip its estimates, and the pipeline's
    ``eta`` 0, its default: no callback is told ``eta``, so this cannot be checked. The first step
    is not guided, since the latents before it are not shown, and the last one is. The weights of
    the pipeline's models are frozen. The pipeline's precision must be float32: what is read off is
    the small difference of two latents.

    Args:
        image: y: a picture of Pillow, or ``(3, H, W)`` or ``(B, 3, H, W)`` in [0, 1], of the size
            that the pipeline makes.
        guidance: a `PMG` with ``route=latent``, or any other guidance that does not pass the
            U-Net.

    Raises:
        ConfigError: the guidance passes the U-Net, or the image is none.

    Example:
        >>> from latentiqa.guidance import PMG
        >>> callback = PMGCallback(torch.rand(3, 64, 64), PMG())
        >>> # pipe("a photo", callback_on_step_end=callback)
    """

    # diffusers declares a property and reads an attribute.
    tensor_inputs = ["latents"]  # type: ignore[assignment]  # noqa: RUF012

    def __init__(self, image: Image.Image | Tensor, guidance: Guidance) -> None:
        super().__init__()
        if guidance.through_unet:
            raise ConfigError(
                f"guidance={type(guidance).__name__}: it differentiates through the U-Net, whose "
                "pass a callback does not see; expected one that does not, such as PMG with "
                "route='latent'."
            )
        if isinstance(image, Image.Image):
            image = from_pillow(image)
        if not isinstance(image, Tensor) or image.shape[-3:-2] != (3,) or image.ndim > 4:
            raise ConfigError(
                "image: expected a picture of Pillow or a tensor (3, H, W) or (B, 3, H, W) in "
                f"[0, 1], not {getattr(image, 'shape', type(image).__name__)}."
            )
        self.image = image if image.ndim == 4 else image[None]
        self.guidance = guidance
        self._guide: Guide | None = None
        self._z_t: Tensor | None = None

    def callback_fn(
        self, pipeline: Any, step_index: int, timestep: Any, callback_kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """Correct the latents of one step; diffusers calls it."""
        z_prev: Tensor = callback_kwargs["latents"]
        if step_index == 0:
            check_scheduler(pipeline.scheduler)
            check_precision(z_prev)
            self._guide = self._bind(pipeline, z_prev)
        elif self._guide is not None:
            assert self._z_t is not None
            z_prev = corrected(self._guide, pipeline.scheduler, int(timestep), self._z_t, z_prev)
        self._z_t = z_prev
        return callback_kwargs | {"latents": z_prev}

    def _bind(self, pipeline: Any, latents: Tensor) -> Guide | None:
        size = tuple(pipeline.vae_scale_factor * side for side in latents.shape[-2:])
        count = len(self.image)
        if tuple(self.image.shape[-2:]) != size or count not in (1, len(latents)):
            raise ConfigError(
                f"image: {count} of {tuple(self.image.shape[-2:])} pixels, but the pipeline makes "
                f"{len(latents)} of {size}; expected one, or one for each, of that size."
            )
        parts = {name: getattr(pipeline, name) for name in StableDiffusion.PARTS}
        backbone = StableDiffusion(**parts, scheduler=pipeline.scheduler)
        image = self.image.to(latents.device, latents.dtype)
        return self.guidance.bind(image.expand(len(latents), -1, -1, -1), backbone)


def corrected(guide: Guide, scheduler: Any, t: int, z_t: Tensor, z_prev: Tensor) -> Tensor:
    """The latents after a step, with the estimate moved as the guide says.

    Args:
        guide: corrects the estimate.
        scheduler: a `DDIMScheduler` whose timesteps are set.
        t: timestep of the step.
        z_t: latents before it, ``(B, C, h, w)``.
        z_prev: latents after it.

    Returns:
        ``(B, C, h, w)``.
    """
    # As DDIMScheduler.step itself finds where it goes.
    t_prev = t - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    final = scheduler.final_alpha_cumprod
    abars = scheduler.alphas_cumprod[t], scheduler.alphas_cumprod[t_prev] if t_prev >= 0 else final
    rates, rates_prev = (Rates(float(abar) ** 0.5, (1 - float(abar)) ** 0.5) for abar in abars)
    if rates == rates_prev:  # nothing was denoised, as at a last timestep of 0
        return z_prev
    z0, noise = estimate_and_noise(z_t, z_prev, rates, rates_prev)
    move = guide(Step(t, z_t, noise, z0, rates, rates_prev)) - z0
    return z_prev + rates_prev.signal * move


def estimate_and_noise(
    z_t: Tensor, z_prev: Tensor, rates: Rates, rates_prev: Rates
) -> tuple[Tensor, Tensor]:
    """What a deterministic DDIM step was made of, from the latents before and after it.

    Args:
        z_t: latents before the step.
        z_prev: latents after it, the same shape.
        rates: of signal and noise before it.
        rates_prev: those after it, less noise.

    Returns:
        Clean-latent estimate and noise prediction, the same shape.

    Example:
        >>> from latentiqa.trajectory import add_noise
        >>> z0, noise = torch.randn(2, 1, 4, 8, 8, dtype=torch.float64)
        >>> rates = Rates(0.6, 0.8), Rates(0.8, 0.6)
        >>> steps = [add_noise(z0, noise, r) for r in rates]
        >>> torch.allclose(estimate_and_noise(*steps, *rates)[0], z0)
        True
    """
    determinant = rates.signal * rates_prev.noise - rates.noise * rates_prev.signal
    z0 = (rates_prev.noise * z_t - rates.noise * z_prev) / determinant
    noise = (rates.signal * z_prev - rates_prev.signal * z_t) / determinant
    return z0, noise


def check_scheduler(scheduler: Any) -> None:
    """Refuse schedulers whose steps cannot be read off the latents.

    Raises:
        ConfigError: it is no `DDIMScheduler`, or it clips its estimates.
    """
    clips = [key for key in ("clip_sample", "thresholding") if scheduler.config.get(key)]
    if not isinstance(scheduler, DDIMScheduler) or clips:
        told = "".join(f" with {key}=True" for key in clips)
        raise ConfigError(
            f"scheduler={type(scheduler).__name__}{told}: expected a DDIMScheduler that does not "
            "clip its estimates; pipe.scheduler = DDIMScheduler.from_config("
            "pipe.scheduler.config, clip_sample=False, thresholding=False)"
        )


def check_precision(latents: Tensor) -> None:
    """Refuse latents whose rounding is as large as what is to be read off their differences.

    With Stable Diffusion's schedule and 50 steps the estimate would be off by .04 of its standard
    deviation in float16 and by .2 in bfloat16, with 200 steps by .2 and .6.

    Raises:
        ConfigError: they have fewer than 32 bits.
    """
    if torch.finfo(latents.dtype).bits < 32:
        raise ConfigError(
            f"the pipeline's latents are {str(latents.dtype).removeprefix('torch.')}: expected "
            "float32, since the estimate is read off their small differences; load the pipeline "
            "with torch_dtype=torch.float32."
        )
