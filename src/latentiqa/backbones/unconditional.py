"""Unconditional latent diffusion models of CompVis: a U-Net on a VQ model's latents, no text."""

from __future__ import annotations

from typing import Any, ClassVar

from diffusers import UNet2DModel, VQModel
from torch import Tensor

from latentiqa.backbones.ldm import Context, LatentDiffusion
from latentiqa.errors import ConfigError


class UnconditionalLDM(LatentDiffusion):
    """LDM-4-VQ (Rombach et al., CVPR 2022). See `LatentDiffusion`.

    Latents are those before quantisation, the decoder quantises them; its gradient passes the
    quantisation as if it were not there (straight-through, van den Oord et al., NeurIPS 2017).
    """

    PARTS: ClassVar[dict[str, Any]] = {"vqvae": VQModel, "unet": UNet2DModel}

    unet: Any
    vqvae: Any

    @property
    def vae(self) -> Any:
        """The autoencoder, by the name that the other families have for it."""
        return self.vqvae

    def encode_prompt(self, prompt: str) -> Context:
        """Nothing.

        Raises:
            ConfigError: there is a prompt.
        """
        if prompt:
            raise ConfigError(
                f"prompt={prompt!r}: {self.identity} is unconditional; expected an empty prompt, "
                "or another backbone."
            )
        return {}

    def denoise(self, z_t: Tensor, t: int, context: Context) -> Tensor:
        """See `LatentDiffusion.denoise`."""
        return self.unet(z_t, t).sample
