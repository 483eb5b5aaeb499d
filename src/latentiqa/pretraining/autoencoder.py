"""Stage 1: the autoencoder between pictures and latents (LDM, Rombach et al., CVPR 2022).

    L = || x - D(E(x)) ||_1 + lambda LPIPS(x, D(E(x))) + beta KL(q(z|x) || N(0, 1))

`AutoencoderTiny` (after O. B. Bohan's TAESD) has no posterior, so no KL term: its decoder bounds
the latents. There is no adversarial term as in the paper: it paints detail that was not in the
picture, and that detail is what quality assessment reads.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor, nn
from torchmetrics.functional.image import peak_signal_noise_ratio

from latentiqa.backbones.ldm import latents_of, load_autoencoder
from latentiqa.pretraining.base import Optimizer, Pretraining, weights_from
from latentiqa.pretraining.grids import save_grid
from latentiqa.pretraining.principal import PrincipalComponents

COMPONENT_CROPS = 256
"""Crops that principal components are found from; patches by the ten thousand."""


def keep_encoder(autoencoder: Any, folder: str) -> None:
    """Put another autoencoder's encoder and its latents' scale into this one, and freeze it.

    Args:
        autoencoder: loses its own encoder.
        folder: the other one, in diffusers' format.

    Raises:
        ValueError: the encoders are not of the same shape.
    """
    other = load_autoencoder(folder, use_safetensors=True, local_files_only=True)
    try:
        autoencoder.encoder.load_state_dict(other.encoder.state_dict())
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    autoencoder.register_to_config(scaling_factor=other.config.scaling_factor)
    autoencoder.encoder.requires_grad_(False)


class AutoencoderTraining(Pretraining):
    """Trains an `AutoencoderKL` or an `AutoencoderTiny` on pictures.

    Args:
        autoencoder: maps pictures in [-1, 1] to latents and back.
        perceptual: a distance of pictures ``(B, 3, H, W)`` in [0, 1], ``(B,)``, frozen; or none.
        optimizer: see `Pretraining`.
        perceptual_weight: lambda.
        principal_weight: of the mean squared distance of the latents to the `PrincipalComponents`
            of their patches, for a first training; 0 leaves the latents free.
        kl_weight: beta; of the divergence's mean over the latents' values. Only of
            `AutoencoderKL`.
        start: folder of an autoencoder whose weights training starts from.
        encoder_folder: an autoencoder whose encoder is taken and stays frozen: the decoder is
            trained alone, and the latents, and a denoiser trained on them, stay what they are.
        schedule: see `Pretraining`.
        warmup_steps: see `Pretraining`.
        ema_decay: see `Pretraining`.
        seed: see `Pretraining`.
        grids: folder of the reconstruction grids.
    """

    def __init__(
        self,
        autoencoder: AutoencoderKL | AutoencoderTiny,
        optimizer: Optimizer,
        perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
        perceptual_weight: float = 1.0,
        principal_weight: float = 0.0,
        kl_weight: float = 1e-4,
        start: str | None = None,
        encoder_folder: str | None = None,
        schedule: str = "cosine",
        warmup_steps: int = 100,
        ema_decay: float = 0.999,
        seed: int = 0,
        grids: str | Path | None = None,
    ) -> None:
        if start is not None:
            with weights_from("stage.start", start, "the autoencoder/ folder of such a run"):
                autoencoder = load_autoencoder(start, use_safetensors=True, local_files_only=True)
        if encoder_folder is not None:
            expected = "the autoencoder/ folder of a run with the same encoder"
            with weights_from("stage.encoder_folder", encoder_folder, expected):
                keep_encoder(autoencoder, encoder_folder)
        # Convolutions on CPUs and tensor cores want the channels last.
        trained: nn.Module = autoencoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(trained, optimizer, schedule, warmup_steps, ema_decay, seed)
        self.perceptual = perceptual
        self.perceptual_weight = perceptual_weight
        self.principal_weight = principal_weight
        self.frozen_encoder = encoder_folder is not None
        self.kl_weight = kl_weight
        self.components: PrincipalComponents | None = None
        self.latent_rms = 1.0
        self.grids = None if grids is None else Path(grids)

    def on_fit_start(self) -> None:
        """Find the principal components; of the same crops in every leg."""
        if self.principal_weight:
            crops: Any = self.trainer.datamodule.train  # type: ignore[attr-defined]
            image = torch.stack([crops[i]["image"] for i in range(COMPONENT_CROPS)])
            with torch.no_grad():
                latents = latents_of(self.trained.encode(image[:1].to(self.device)))
            factor = image.shape[-1] // latents.shape[-1]
            self.components = PrincipalComponents(image, factor, latents.shape[1])

    def losses(
        self, autoencoder: Any, image: Tensor, generator: torch.Generator | None
    ) -> dict[str, Tensor]:
        """The terms of the loss.

        Args:
            autoencoder: the trained model or its average.
            image: ``(B, 3, H, W)`` in [0, 1].
            generator: draws a sample of the posterior, on the CPU; its mode without.

        Returns:
            ``loss``, its terms and ``latent_rms``, scalars; ``reconstruction`` ``(B, 3, H, W)``.
        """
        x = (image * 2 - 1).contiguous(memory_format=torch.channels_last)
        encoded = autoencoder.encode(x)
        terms = {}
        latents = latents_of(encoded)
        if not hasattr(encoded, "latents"):
            posterior = encoded.latent_dist
            # Rescaled from diffusers' sum over a picture's latents to their mean.
            terms["kl"] = posterior.kl().float().mean() / latents[0].numel()
            if generator is not None:
                noise = torch.randn(latents.shape, generator=generator).to(latents)
                latents = latents + posterior.std * noise
        reconstruction = ((autoencoder.decode(latents).sample + 1) / 2).float()
        terms["l1"] = (reconstruction - image).abs().mean()
        loss = terms["l1"] + self.kl_weight * terms.get("kl", 0.0)
        if self.components is not None:
            distance = latents.float() - self.components(image)
            terms["principal"] = distance.square().mean()
            loss = loss + self.principal_weight * terms["principal"]
        if self.perceptual is not None:
            terms["lpips"] = self.perceptual(image, reconstruction).mean()
            loss = loss + self.perceptual_weight * terms["lpips"]
        latent_rms = latents.detach().float().square().mean().sqrt()
        return {
            "loss": loss,
            **terms,
            "latent_rms": latent_rms,
            "reconstruction": reconstruction,
        }

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss of one batch."""
        image = batch["image"]
        losses = self.losses(self.trained, image, self.generator(batch_idx))
        del losses["reconstruction"]
        for name, value in losses.items():
            self.log(f"train/{name}", value.detach(), batch_size=len(image))
        return losses["loss"]

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Loss and PSNR of held-out crops with the averaged weights; a grid of the first batch."""
        image = batch["image"]
        losses = self.losses(self.average, image, generator=None)
        restored = losses.pop("reconstruction").clamp(0, 1)
        # The mean over the pictures: without `dim` it would be that of their joint error.
        losses["psnr"] = peak_signal_noise_ratio(restored, image, data_range=1.0, dim=(1, 2, 3))
        for name, value in losses.items():
            self.log(f"val/{name}", value, batch_size=len(image), sync_dist=True)
        if batch_idx == 0 and self.grids is not None and self.trainer.is_global_zero:
            path = self.grids / f"reconstructions-{self.global_step:06d}.png"
            save_grid(path, [image[:8], restored[:8]])

    def on_validation_epoch_end(self) -> None:
        """Keep the size of the latents, for the export."""
        self.latent_rms = float(self.trainer.callback_metrics["val/latent_rms"])

    def models(self) -> dict[str, nn.Module]:
        """The autoencoder alone."""
        return {"autoencoder": self.trained}

    def export(self, folder: Path) -> None:
        """Write ``autoencoder/``, float32, in diffusers' format.

        Its scaling factor brings latents to unit variance, as Stable Diffusion's 0.18215 does; a
        frozen encoder keeps its own.
        """
        if not self.frozen_encoder:
            self.average.register_to_config(scaling_factor=round(1 / self.latent_rms, 4))
        self.average.save_pretrained(folder / "autoencoder", safe_serialization=True)
