"""A small decoder in place of the backbone's: guidance decodes at every step.

The decoder of Stable Diffusion is 2,515 GFLOP for a picture of 512 x 512, forward alone; TAESD's,
distilled from it, is about a hundredth of that. The embedded model has one, too: 79,267 parameters
in place of 1,229,443.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from latentiqa import backbones
from latentiqa.errors import ConfigError
from latentiqa.hashing import folder_digest

if TYPE_CHECKING:
    from torch import Tensor

    from latentiqa.backbones.ldm import LatentDiffusion

EMBEDDED = "tiny"
"""The small decoder that the package carries, for the embedded model's latents."""

_EMBEDDED_FOLDER = str(Path(backbones.__file__).parent / "tiny_decoder")


@dataclass(frozen=True)
class Decoder:
    """The decoder of an `AutoencoderTiny` or `AutoencoderKL` on this disk.

    It gets what the backbone's trajectory holds, latents scaled by the *backbone's* factor, and
    divides them by *its own*: TAESD was distilled on Stable Diffusion's scaled latents and says so
    with ``scaling_factor=1.0`` (diffusers' pipelines, which hand their VAE
    ``latents / vae.config.scaling_factor``, use it in the same way).

    Args:
        folder: holds ``config.json`` and safetensors weights, in diffusers' format; or ``tiny``,
            the one inside the package for the embedded model ``tiny``.

    Attributes:
        weights: hash of the folder's files; where they lie does not matter.

    Raises:
        ConfigError: there is no such folder, or no autoencoder in it.
    """

    folder: InitVar[str]
    weights: str = field(init=False)

    def __post_init__(self, folder: str) -> None:
        if folder == EMBEDDED:
            folder = _EMBEDDED_FOLDER
        if not (Path(folder) / "config.json").is_file():
            raise ConfigError(
                f"guidance.decoder={folder}: expected a folder with config.json and safetensors "
                "weights of an autoencoder in diffusers' format, tiny (for backbone=tiny), or "
                "null. Nothing is downloaded here; for Stable Diffusion 1 and 2: hf download "
                "madebyollin/taesd --local-dir taesd"
            )
        object.__setattr__(self, "weights", folder_digest(folder))
        object.__setattr__(self, "_folder", folder)

    def load(
        self, image: Tensor, backbone: LatentDiffusion, checkpointing: bool
    ) -> Callable[[Tensor], Tensor]:
        """The decoder on the backbone's device and in its dtype.

        Args:
            image: the pictures, ``(B, 3, H, W)``.
            backbone: the model whose latents it decodes.
            checkpointing: see `DecodingGuidance`.

        Returns:
            Scaled latents ``(B, C, h, w)`` -> pictures ``(B, 3, H, W)``, about [0, 1].

        Raises:
            ConfigError: it is one for other latents.
        """
        from latentiqa.backbones.ldm import checkpoint_blocks, decode, frozen_autoencoder

        folder: str = self._folder  # type: ignore[attr-defined]
        vae = frozen_autoencoder(folder, self.weights, backbone.device, backbone.dtype)
        checkpoint_blocks(vae, checkpointing)
        found, expected = vae.config.latent_channels, backbone.vae.config.latent_channels
        # Latents of other models have as many channels, too.
        stranger = folder == _EMBEDDED_FOLDER and (
            vae.config.scaling_factor != backbone.vae.config.scaling_factor
        )
        if stranger:
            raise ConfigError(
                "guidance.decoder=tiny: it decodes the latents of backbone=tiny alone; expected "
                "guidance.decoder=null, or the folder of an autoencoder made for this backbone."
            )
        if found != expected:
            raise ConfigError(
                f"guidance.decoder={folder}: it decodes latents of {found} channels, the "
                f"backbone's have {expected}; expected an autoencoder made for this backbone, or "
                "guidance.decoder=null."
            )

        def decoded(latents: Tensor) -> Tensor:
            picture = decode(vae, latents)
            if picture.shape != image.shape:
                raise ConfigError(
                    f"guidance.decoder={folder}: it makes {tuple(picture.shape[-2:])} pixels of "
                    f"these latents, the pictures have {tuple(image.shape[-2:])}; expected an "
                    "autoencoder made for this backbone, or guidance.decoder=null."
                )
            return picture

        return decoded
