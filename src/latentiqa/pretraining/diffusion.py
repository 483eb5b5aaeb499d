"""Stage 2: the text-conditioned denoiser on the autoencoder's latents.

    z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) e
    L = E_{z_0, t, e} w(t) || target - f_theta(z_t, t, c) ||^2

The target is the noise e (DDPM, Ho et al., NeurIPS 2020, eq. 14) or v = sqrt(abar) e -
sqrt(1 - abar) z_0 (Salimans and Ho, ICLR 2022); w is 1 or min-SNR-gamma's (Hang et al., ICCV 2023).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from latentiqa.backbones.addresses import layer_channels, layer_modules
from latentiqa.backbones.ldm import latents_of, load_autoencoder, save_pipeline
from latentiqa.backbones.stable_diffusion import StableDiffusion
from latentiqa.backbones.taps import tapped_forward
from latentiqa.data.captions import corpus
from latentiqa.errors import ConfigError, check_integer
from latentiqa.pretraining.alignment import Alignment
from latentiqa.pretraining.base import Optimizer, Pretraining, weights_from
from latentiqa.pretraining.grids import save_grid
from latentiqa.pretraining.magnitude import log_magnitude
from latentiqa.pretraining.recognition import Recognition
from latentiqa.pretraining.sampling import sample
from latentiqa.pretraining.tokenizer import train_tokenizer

PROMPTS = (
    "",
    "a sharp photo, excellent quality",
    "a very blurry photo, bad quality",
    "a very noisy photo, bad quality",
)
"""What the sample grids show, a row each."""


def snr_weight(abar: Tensor, gamma: float | None, prediction_type: str) -> Tensor:
    """Weight of each sample's loss: min-SNR-gamma, or 1.

    ``SNR = abar / (1 - abar)``; ``min(SNR, gamma) / SNR`` for epsilon, ``min(SNR, gamma) /
    (SNR + 1)`` for v (Hang et al., ICCV 2023, section 3.4).

    Args:
        abar: cumulative alphas ``(B,)``.
        gamma: usually 5; ``None`` weighs all alike.
        prediction_type: ``epsilon`` or ``v_prediction``.

    Returns:
        ``(B,)``.

    Example:
        >>> snr_weight(torch.tensor([0.5, 0.99]), 5.0, "epsilon").round(decimals=3)
        tensor([1.0000, 0.0510])
    """
    if gamma is None:
        return torch.ones_like(abar)
    snr = abar / (1 - abar)
    return snr.clamp_max(gamma) / (snr + 1 if prediction_type == "v_prediction" else snr)


def frozen_autoencoder(folder: str | Path) -> Any:
    """The first stage's autoencoder.

    Raises:
        ConfigError: it cannot be loaded.
    """
    expected = "the autoencoder/ folder of a run with stage=autoencoder"
    with weights_from("stage.autoencoder_folder", folder, expected):
        loaded = load_autoencoder(folder, use_safetensors=True, local_files_only=True)
    return loaded.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def make_tokenizer(start: str | None, vocabulary: int, max_length: int) -> CLIPTokenizer:
    """The tokenizer of the pipeline that is started from, or a new one for the captions."""
    if start is not None:
        return CLIPTokenizer.from_pretrained(start, subfolder="tokenizer", local_files_only=True)
    with tempfile.TemporaryDirectory() as folder:
        return train_tokenizer(corpus(), folder, vocab_size=vocabulary, max_length=max_length)


def make_denoiser(
    start: str | None,
    unet: Mapping[str, Any],
    text_encoder: Mapping[str, Any],
    tokenizer: CLIPTokenizer,
    latent_channels: int,
) -> Denoiser:
    """New models, or those of the pipeline that is started from."""
    if start is not None:
        weights: Any = {"use_safetensors": True, "local_files_only": True}
        return Denoiser(
            UNet2DConditionModel.from_pretrained(start, subfolder="unet", **weights),
            CLIPTextModel.from_pretrained(start, subfolder="text_encoder", **weights).float(),
        )
    # Any: transformers types its tokens' ids as almost anything.
    vocabulary: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text_config = CLIPTextConfig(**vocabulary, **text_encoder)
    return Denoiser(
        UNet2DConditionModel(
            in_channels=latent_channels,
            out_channels=latent_channels,
            cross_attention_dim=text_config.hidden_size,
            **unet,
        ),
        CLIPTextModel(text_config),
    )


class Denoiser(nn.Module):
    """U-Net and text encoder, trained together.

    Args:
        unet: predicts noise or v of latents, given the hidden states of a caption.
        text_encoder: gives those hidden states.
    """

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet: Any = unet
        self.text_encoder: Any = text_encoder
        # Convolutions on CPUs and tensor cores want the channels last.
        self.unet.to(memory_format=torch.channels_last)

    def context(self, tokens: Tensor) -> Tensor:
        """Hidden states ``(B, L, D)`` of token ids ``(B, L)``."""
        return self.text_encoder(tokens)[0]


class DiffusionTraining(Pretraining):
    """Trains a `UNet2DConditionModel` and, along with it, a small CLIP text encoder.

    Args:
        autoencoder_folder: what the first stage left; stays frozen.
        unet: config of the U-Net; its latents' channels and text width are filled in.
        text_encoder: config of the `CLIPTextModel`; its vocabulary is filled in.
        scheduler: config of the `DDIMScheduler`: noise schedule and prediction type.
        optimizer: see `Pretraining`.
        vocabulary: size of the tokenizer that is trained on the captions.
        max_length: tokens of a caption at most.
        start: a pipeline folder whose U-Net, text encoder and tokenizer training starts from.
        alignment: see `Alignment`; or none.
        recognition: see `Recognition`; or none.
        denoising: weight of the denoising loss. 0 learns what alignment and recognition teach
            and nothing else, at the price of the layers up to the last that they read.
        magnitude: weight of the penalty on maps far from unit magnitude, see `log_magnitude`; 0
            for none.
        draws: noisy versions of each crop in a step: encoding a crop costs more than another
            draw of timestep and noise.
        caption_dropout: probability that a crop's caption is "", the unconditional prompt. At 1
            the text encoder stays as it is.
        timestep_power: timesteps are ``T u^power``, u uniform; above 1 small ones come more
            often, which is where quality is read.
        min_snr_gamma: see `snr_weight`.
        schedule: see `Pretraining`.
        warmup_steps: see `Pretraining`.
        ema_decay: see `Pretraining`.
        seed: see `Pretraining`.
        grids: folder of the sample grids.

    Raises:
        ConfigError: a value is outside its range, or there is nothing to learn.
    """

    alphas_cumprod: Tensor

    def __init__(
        self,
        autoencoder_folder: str,
        unet: Mapping[str, Any],
        text_encoder: Mapping[str, Any],
        scheduler: Mapping[str, Any],
        optimizer: Optimizer,
        vocabulary: int = 1024,
        max_length: int = 48,
        start: str | None = None,
        alignment: Alignment | None = None,
        recognition: Recognition | None = None,
        denoising: float = 1.0,
        magnitude: float = 0.0,
        draws: int = 1,
        caption_dropout: float = 0.1,
        timestep_power: float = 1.0,
        min_snr_gamma: float | None = None,
        schedule: str = "constant_with_warmup",
        warmup_steps: int = 500,
        ema_decay: float = 0.999,
        seed: int = 0,
        grids: str | Path | None = None,
    ) -> None:
        check_integer("stage.draws", draws, 1)
        if not 0 <= caption_dropout <= 1:
            raise ConfigError(f"stage.caption_dropout={caption_dropout}: expected a probability.")
        if denoising < 0 or not (denoising or alignment or recognition):
            raise ConfigError(
                f"stage.denoising={denoising}: expected a weight > 0, or 0 with stage.alignment or "
                "stage.recognition."
            )
        if magnitude < 0:
            raise ConfigError(f"stage.magnitude={magnitude}: expected a weight >= 0.")
        if timestep_power <= 0:
            raise ConfigError(f"stage.timestep_power={timestep_power}: expected a value > 0.")
        autoencoder = frozen_autoencoder(autoencoder_folder)
        channels = autoencoder.config.latent_channels
        with weights_from("stage.start", start or "null", "a pipeline/ folder of this stage"):
            tokenizer = make_tokenizer(start, vocabulary, max_length)
            denoiser = make_denoiser(start, unet, text_encoder, tokenizer, channels)
        if caption_dropout == 1:
            # There are no words to learn, and from "" alone it learns to say nothing.
            denoiser.text_encoder.requires_grad_(False)
        super().__init__(
            denoiser,
            optimizer,
            schedule,
            warmup_steps,
            ema_decay,
            seed,
        )
        self.tokenizer: Any = tokenizer
        self.autoencoder: Any = autoencoder
        self.scheduler: Any = DDIMScheduler.from_config(dict(scheduler))
        self.prediction_type = self.scheduler.config.prediction_type
        self.register_buffer("alphas_cumprod", self.scheduler.alphas_cumprod, persistent=False)
        self.alignment = alignment
        self.recognition = recognition
        if alignment is not None:
            alignment.connect(self.channels_of("stage.alignment.pairs", alignment.layers))
        if recognition is not None:
            recognition.connect(self.channels_of("stage.recognition.layers", recognition.layers))
        self.denoising = denoising
        self.magnitude = magnitude
        self.draws = draws
        self.caption_dropout = caption_dropout
        self.timestep_power = timestep_power
        self.min_snr_gamma = min_snr_gamma
        self.crop_size = 256
        self.grids = None if grids is None else Path(grids)

    def channels_of(self, key: str, layers: Iterable[str]) -> dict[str, int]:
        """Channels of U-Net layers.

        Raises:
            ConfigError: an address is not known; ``key`` of the config gave it.
        """
        modules = layer_modules(self.trained.unet)
        if unknown := set(layers) - set(modules):
            raise ConfigError(
                f"{key}: the U-Net has no layer {', '.join(sorted(unknown))}; expected some of "
                f"{', '.join(modules)}."
            )
        return {layer: layer_channels(modules[layer]) for layer in layers}

    def tapped(self) -> list[str]:
        """Layers whose maps a step reads; for their magnitude, all that run."""
        taps = [] if self.alignment is None else list(self.alignment.layers)
        taps += [] if self.recognition is None else self.recognition.layers
        if not self.magnitude:
            return taps
        layers = list(layer_modules(self.trained.unet))
        return layers if self.denoising else layers[: 1 + max(map(layers.index, taps))]

    def encode(self, image: Tensor) -> Tensor:
        """Scaled latents of pictures in [0, 1], the mode of the posterior, without gradient."""
        with torch.no_grad():
            x = (image * 2 - 1).contiguous(memory_format=torch.channels_last)
            latents = latents_of(self.autoencoder.encode(x))
        return latents.float() * self.autoencoder.config.scaling_factor

    def describe(self, image: Tensor) -> dict[str, Any]:
        """What training sees of pictures; depends on frozen models alone.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1].

        Returns:
            ``latents``, see `encode`; ``targets`` of the alignment, empty without one.
        """
        targets = {} if self.alignment is None else self.alignment.encode(image)
        return {"latents": self.encode(image), "targets": targets}

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """Token ids ``(B, max_length)``."""
        padded = self.tokenizer(
            list(captions),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return padded.input_ids.to(self.device)

    def noised(
        self, z0: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Noise latents to timesteps drawn at random.

        Args:
            z0: scaled latents ``(B, C, h, w)``.
            generator: draws timesteps and noise, on the CPU.

        Returns:
            ``z_t``, its timesteps ``(B,)``, the target, and the weights of the losses ``(B,)``.
        """
        u = torch.rand(len(z0), generator=generator)
        t = (u**self.timestep_power * len(self.alphas_cumprod)).long().to(self.device)
        noise = torch.randn(z0.shape, generator=generator).to(z0)
        abar = self.alphas_cumprod[t].view(-1, 1, 1, 1)
        target = noise
        if self.prediction_type == "v_prediction":
            target = abar.sqrt() * noise - (1 - abar).sqrt() * z0
        z_t = abar.sqrt() * z0 + (1 - abar).sqrt() * noise
        z_t = z_t.contiguous(memory_format=torch.channels_last)
        return z_t, t, target, snr_weight(abar.flatten(), self.min_snr_gamma, self.prediction_type)

    def losses(
        self,
        model: Denoiser,
        batch: Mapping[str, Any],
        generator: torch.Generator,
        draws: int,
    ) -> dict[str, Tensor]:
        """The terms of the loss of a batch, each crop noised ``draws`` times.

        Args:
            model: the trained one or its average.
            batch: ``image`` ``(B, 3, H, W)`` in [0, 1], or what `describe` says of it; ``caption``
                and ``levels`` ``(B, K)``.
            generator: draws dropped captions, timesteps and noise, on the CPU.
            draws: noisy versions a crop.

        Returns:
            ``loss``; of ``diffusion``, unweighted, ``alignment``, ``recognition`` and
            ``magnitude`` those that are trained. Scalars.
        """
        seen = batch if "latents" in batch else self.describe(batch["image"])
        z0, levels = seen["latents"].float(), batch["levels"]
        dropped = torch.rand(len(z0), generator=generator) < self.caption_dropout
        captions = [
            "" if drop else text
            for text, drop in zip(batch["caption"], dropped.tolist(), strict=True)
        ]
        context = model.context(self.tokens(captions)).repeat(draws, 1, 1)
        z_t, t, target, weight = self.noised(z0.repeat(draws, 1, 1, 1), generator)
        output, maps = tapped_forward(
            layer_modules(model.unet),
            self.tapped(),
            lambda: model.unet(z_t, t, encoder_hidden_states=context).sample,
            need_output=self.denoising > 0,
        )
        losses, total = {}, torch.zeros((), device=z0.device)
        if output is not None:
            error = (output.float() - target).square().mean(dim=(1, 2, 3))
            losses["diffusion"] = error.mean()
            total = total + self.denoising * (weight * error).mean()
        if self.alignment is not None:
            losses["alignment"] = self.alignment(maps, seen["targets"])
            total = total + self.alignment.weight * losses["alignment"]
        if self.recognition is not None:
            losses["recognition"] = self.recognition(maps, levels.repeat(draws, 1))
            total = total + self.recognition.weight * losses["recognition"]
        if self.magnitude:
            losses["magnitude"] = log_magnitude(maps.values())
            total = total + self.magnitude * losses["magnitude"]
        return {"loss": total, **losses}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss of one batch."""
        losses = self.losses(self.trained, batch, self.generator(batch_idx), self.draws)
        for name, value in losses.items():
            self.log(f"train/{name}", value.detach(), batch_size=len(batch["caption"]))
        return losses["loss"]

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Loss on held-out crops with the averaged weights, the same noise every time."""
        self.crop_size = batch["image"].shape[-1]
        generator = torch.Generator().manual_seed(batch_idx)
        losses = self.losses(self.average, batch, generator, draws=1)
        for name, value in losses.items():
            self.log(f"val/{name}", value, batch_size=len(batch["caption"]), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """A grid of samples, a row for each of `PROMPTS`, of a model that learns to denoise."""
        if self.grids is None or not self.denoising or not self.trainer.is_global_zero:
            return
        backbone = self.backbone()
        options = {"number": 6, "size": self.crop_size, "steps": 20}
        rows = [sample(backbone, prompt, **options) for prompt in PROMPTS]
        save_grid(self.grids / f"samples-{self.global_step:06d}.png", rows)

    def backbone(self) -> StableDiffusion:
        """The averaged model as the rest of the house knows it; shares its weights."""
        return StableDiffusion(
            vae=self.autoencoder,
            unet=self.average.unet,
            text_encoder=self.average.text_encoder,
            tokenizer=self.tokenizer,
            scheduler=self.scheduler,
        )

    def models(self) -> dict[str, nn.Module]:
        """U-Net and text encoder."""
        return {"unet": self.trained.unet, "text_encoder": self.trained.text_encoder}

    def export(self, folder: Path) -> None:
        """Write ``pipeline/``, float16, with averaged weights, in diffusers' format."""
        save_pipeline(
            folder / "pipeline",
            self.autoencoder,
            self.average.unet,
            self.average.text_encoder,
            self.tokenizer,
            self.scheduler,
            torch.float16,
        )
