"""psi of a reconstruction: what an autoencoder leaves of what quality is read from.

Whatever a latent diffusion model says of a picture, it says of its latents. A head on the features
of ``D(E(x))``, beside the same head on those of ``x``, tells how much of the quality they carry,
which PSNR and LPIPS of the reconstruction do not.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field

from torch import Tensor

from latentiqa.backbones.ldm import frozen_autoencoder, latents_of
from latentiqa.hashing import folder_digest
from latentiqa.perceptual import PooledPsi


@dataclass(frozen=True)
class Reconstructed:
    """A psi's statistics of pictures after an autoencoder, ``psi(D(E(x)))``, clipped to [0, 1].

    Args:
        psi: what sees the reconstructions.
        folder: an `AutoencoderKL` or `AutoencoderTiny` in diffusers' format.

    Attributes:
        autoencoder: hash of the folder's files; where they lie does not matter.

    Raises:
        ConfigError: there is no such folder.
    """

    psi: PooledPsi
    folder: InitVar[str]
    autoencoder: str = field(init=False)

    def __post_init__(self, folder: str) -> None:
        object.__setattr__(self, "autoencoder", folder_digest(folder))
        object.__setattr__(self, "_folder", folder)

    def widths(self, pooling: str = "mean") -> dict[str, int]:
        """The psi's own."""
        return self.psi.widths(pooling)

    def statistics(self, image: Tensor, pooling: str = "mean") -> dict[str, Tensor]:
        """The psi's statistics ``(B, C)`` float32 of what is left of the pictures.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1]; H and W are multiples of the autoencoder's factor.
            pooling: see the psi.
        """
        folder: str = self._folder  # type: ignore[attr-defined]
        autoencoder = frozen_autoencoder(folder, self.autoencoder, image.device)
        latents = latents_of(autoencoder.encode(image.float() * 2 - 1))
        restored = (autoencoder.decode(latents).sample + 1) / 2
        return self.psi.statistics(restored.clamp(0, 1), pooling)
