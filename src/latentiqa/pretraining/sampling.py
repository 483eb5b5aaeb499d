"""Pictures out of noise: DDIM sampling with classifier-free guidance."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from latentiqa.backbones.ldm import LatentDiffusion
from latentiqa.noise import image_noise
from latentiqa.trajectory import ddim_step, tweedie


@torch.no_grad()
def sample(
    backbone: LatentDiffusion,
    prompt: str = "",
    number: int = 4,
    size: int = 256,
    steps: int = 25,
    guidance_scale: float = 3.0,
    seed: int = 0,
) -> Tensor:
    """Sample pictures (DDIM, Song et al., ICLR 2021; eta = 0).

    ``e = e(z, "") + s (e(z, prompt) - e(z, ""))`` (Ho and Salimans, 2021, in the form that
    Stable Diffusion uses).

    Args:
        backbone: the diffusion model.
        prompt: what the pictures shall be; "" is unconditional.
        number: of pictures.
        size: their side, pixels.
        steps: of the sampler.
        guidance_scale: s; 1 is plain conditional sampling.
        seed: of the initial noise.

    Returns:
        ``(number, 3, size, size)`` in [0, 1].
    """
    example = backbone.encode(torch.zeros(1, 3, size, size, device=backbone.device))
    names = [str(i) for i in range(number)]
    last = 999
    z = image_noise(names, last, example.shape[1:], seed=seed, device=backbone.device)
    context = backbone.context(prompt, number)
    unconditional = backbone.context("", number)
    path = torch.linspace(last, 0, steps + 1).round().int().tolist()
    for t, t_prev in pairwise(path):
        noise = backbone.predict_noise(z, t, context)[0]
        if prompt and guidance_scale != 1:
            base = backbone.predict_noise(z, t, unconditional)[0]
            noise = base + guidance_scale * (noise - base)
        z = ddim_step(tweedie(z, noise, backbone.rates(t)), noise, backbone.rates(t_prev))
    return backbone.decode(z).clamp(0, 1)
