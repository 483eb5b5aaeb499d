"""The control of a backbone: the same networks without what they have learned."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from latentiqa.backbones.ldm import LatentDiffusion


def reinitialised(backbone: LatentDiffusion, seed: int = 0) -> LatentDiffusion:
    """The control of an untrained model: denoiser and text encoders anew from their configs.

    Autoencoder, tokenizers and noise schedule are the given model's own, so that both see the
    same latents.

    Args:
        backbone: stays as it is.
        seed: of the random weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        anew = {backbone.DENOISER: type(backbone.denoiser).from_config(backbone.denoiser.config)}
        for name, part in backbone.parts().items():
            if isinstance(part, PreTrainedModel):
                anew[name] = type(part)(part.config)
    parts = {name: part.to(backbone.device, backbone.dtype) for name, part in anew.items()}
    return type(backbone)(
        **backbone.parts() | parts,
        scheduler=backbone.scheduler,
        identity=f"{backbone.identity}, denoiser and text encoders random, seed {seed}",
    )
