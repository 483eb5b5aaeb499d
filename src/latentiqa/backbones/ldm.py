"""A frozen latent diffusion model as one object over diffusers' own classes."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from latentiqa.backbones.addresses import expand, layer_channels, layer_modules
from latentiqa.backbones.taps import tapped_forward
from latentiqa.errors import ConfigError


class LatentDiffusion(nn.Module):
    """VAE, denoising U-Net, text encoder and noise schedule, all frozen.

    It speaks the house's conventions (images in [0, 1], scaled latents, noise predictions) and
    keeps each model's own (value range, latent scale, epsilon or v prediction) to itself.

    Args:
        vae: maps images in [-1, 1] to latents and back.
        unet: predicts the noise (or v) of a noisy latent.
        text_encoder: CLIP text model whose hidden states condition the U-Net.
        tokenizer: its tokenizer.
        scheduler: read for ``alphas_cumprod`` and the prediction type only.
        identity: names the weights beyond doubt (hub id and commit, or content hash).

    Raises:
        ConfigError: the prediction type is neither ``epsilon`` nor ``v_prediction``.
    """

    alphas_cumprod: Tensor

    def __init__(
        self,
        vae: AutoencoderKL | AutoencoderTiny,
        unet: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        scheduler: Any,
        identity: str = "unnamed",
    ) -> None:
        super().__init__()
        # Any: diffusers types what a model returns as a union with a tuple, its config as a dict.
        self.vae: Any = vae
        self.unet: Any = unet
        self.text_encoder = text_encoder
        self.tokenizer = tokenizer
        self.prediction_type = scheduler.config.prediction_type
        self.identity = identity
        if self.prediction_type not in {"epsilon", "v_prediction"}:
            raise ConfigError(
                f"scheduler.prediction_type={self.prediction_type!r}: expected 'epsilon' or "
                "'v_prediction'."
            )
        self.register_buffer("alphas_cumprod", scheduler.alphas_cumprod.double(), persistent=False)
        self._contexts: dict[str, Tensor] = {}
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        variant: str | None = None,
        dtype: torch.dtype = torch.float32,
        identity: str = "unnamed",
    ) -> LatentDiffusion:
        """Load a folder in diffusers' pipeline format; safetensors only, no remote code.

        Args:
            folder: holds ``vae/ unet/ text_encoder/ tokenizer/ scheduler/``.
            variant: file name variant of the weights, for example ``fp16``.
            dtype: floating-point type of the weights.
            identity: see the class.
        """
        folder = Path(folder)
        weights: dict[str, Any] = {
            "variant": variant,
            "use_safetensors": True,
            "local_files_only": True,
        }
        return cls(
            load_autoencoder(folder / "vae", torch_dtype=dtype, **weights),
            UNet2DConditionModel.from_pretrained(
                folder, subfolder="unet", torch_dtype=dtype, **weights
            ),
            CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", dtype=dtype, **weights),
            CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer", local_files_only=True),
            DDIMScheduler.from_pretrained(folder, subfolder="scheduler", local_files_only=True),
            identity=identity,
        )

    def train(self, mode: bool = True) -> LatentDiffusion:
        """Stay in evaluation mode whatever the enclosing module does: the model is frozen."""
        return super().train(False)

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type that the models compute in."""
        return self.unet.dtype

    @property
    def device(self) -> torch.device:
        """Where the models compute."""
        return self.unet.device

    @property
    def multiple(self) -> int:
        """Sides of pictures are multiples of it: the latents halve through the whole U-Net."""
        stages = (self.vae.config.block_out_channels, self.unet.config.block_out_channels)
        return 2 ** sum(len(widths) - 1 for widths in stages)

    def encode(self, image: Tensor) -> Tensor:
        """Map images to scaled latents ``z_0 = s * E(y)``, the mode of the VAE's posterior.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1].

        Returns:
            ``(B, C, h, w)`` in the image's dtype.
        """
        latents = latents_of(self.vae.encode((image * 2 - 1).to(self.dtype)))
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        return ((latents - shift) * self.vae.config.scaling_factor).to(image.dtype)

    def decode(self, latents: Tensor) -> Tensor:
        """Map scaled latents to images, ``(B, 3, H, W)``, about [0, 1] but not clipped.

        Clipping would cut the gradient of guidance terms where the estimate overshoots.
        """
        return decode(self.vae, latents)

    def checkpoint(self, enabled: bool) -> None:
        """Let the VAE's and the U-Net's blocks keep only their inputs for a backward pass."""
        for model in (self.vae, self.unet):
            checkpoint_blocks(model, enabled)

    # What is kept must serve later passes with a graph, whatever surrounds the first one.
    @torch.inference_mode(False)
    @torch.no_grad()
    def context(self, prompt: str, batch_size: int = 1) -> Tensor:
        """Hidden states of the text encoder for a prompt, ``(B, 77, D)``; computed once a prompt.

        Args:
            prompt: any text; ``""`` is the unconditional prompt.
            batch_size: B, the same prompt for each picture.
        """
        known = self._contexts.get(prompt)
        if known is None or known.device != self.unet.device or known.dtype != self.dtype:
            tokens = self.tokenizer(
                prompt,
                padding="max_length",
                max_length=self.tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            )
            known = self.text_encoder(tokens.input_ids.to(self.unet.device))[0].to(self.dtype)
            self._contexts[prompt] = known
        return known.expand(batch_size, -1, -1)

    def predict_noise(
        self, z_t: Tensor, t: int, context: Tensor, taps: Sequence[str] = ()
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One U-Net pass: the noise in ``z_t`` and the maps of the tapped layers.

        A v-prediction is turned to noise: ``e = sqrt(abar) v + sqrt(1 - abar) z_t``
        (Salimans and Ho, ICLR 2022, appendix D).

        Args:
            z_t: noisy latents ``(B, C, h, w)``.
            t: timestep, 0 to 999.
            context: ``(B, 77, D)``.
            taps: exact layer addresses.

        Returns:
            Noise ``(B, C, h, w)`` in the dtype of ``z_t``; address -> map.
        """
        output, maps = tapped_forward(
            self.unet, taps, lambda: self._unet(z_t, t, context), need_output=True
        )
        assert output is not None
        output = output.to(z_t.dtype)
        if self.prediction_type == "v_prediction":
            abar = self.alpha_bar(t)
            output = abar**0.5 * output + (1 - abar) ** 0.5 * z_t
        return output, maps

    def maps(self, z_t: Tensor, t: int, context: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
        """The maps of the tapped layers alone: the U-Net stops after the last of them."""
        if not taps:
            raise ConfigError("taps: expected at least one layer address.")
        return tapped_forward(
            self.unet, taps, lambda: self._unet(z_t, t, context), need_output=False
        )[1]

    def _unet(self, z_t: Tensor, t: int, context: Tensor) -> Tensor:
        return self.unet(z_t.to(self.dtype), t, encoder_hidden_states=context).sample

    def alpha_bar(self, t: int) -> float:
        """Cumulative alpha of timestep ``t``: the share of signal in ``z_t``'s variance."""
        return float(self.alphas_cumprod[t])

    def expand(self, patterns: Sequence[str]) -> list[str]:
        """Addresses of this U-Net that the patterns stand for, in the order of execution."""
        return expand(patterns, self.unet)

    def channels(self, address: str) -> int:
        """Number of channels of the layer's map."""
        return layer_channels(layer_modules(self.unet)[address])


def latents_of(encoded: Any) -> Tensor:
    """Latents that an autoencoder's ``encode`` gives, the mode where there is a posterior."""
    return encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()


def decode(vae: Any, latents: Tensor) -> Tensor:
    """Pictures that an autoencoder makes of scaled latents, by its own scale and shift.

    Args:
        vae: an `AutoencoderKL` or `AutoencoderTiny`.
        latents: ``(B, C, h, w)``.

    Returns:
        ``(B, 3, H, W)`` in the dtype of the latents, about [0, 1] but not clipped.
    """
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    unscaled = latents / vae.config.scaling_factor + shift
    image = vae.decode(unscaled.to(vae.dtype)).sample
    return ((image + 1) / 2).to(latents.dtype)


def checkpoint_blocks(model: Any, enabled: bool) -> None:
    """Switch gradient checkpointing of a model of diffusers on or off."""
    if enabled:
        model.enable_gradient_checkpointing()
    elif model.is_gradient_checkpointing:
        model.disable_gradient_checkpointing()


@functools.cache
def frozen_autoencoder(
    folder: str, content: str, device: torch.device, dtype: torch.dtype = torch.float32
) -> Any:
    """An autoencoder on this disk, frozen; loaded once for each content, device and dtype.

    Args:
        folder: see `load_autoencoder`.
        content: hash of the folder's files.
        device: where it computes.
        dtype: what it computes in.
    """
    with torch.inference_mode(False):
        loaded = load_autoencoder(folder, use_safetensors=True, local_files_only=True)
        return loaded.eval().requires_grad_(False).to(device, dtype)


def load_autoencoder(folder: str | Path, **options: Any) -> Any:
    """An `AutoencoderKL` or `AutoencoderTiny` in diffusers' format.

    Args:
        folder: holds ``config.json`` and the weights.
        **options: of ``from_pretrained``.

    Raises:
        ConfigError: its config names another class.
    """
    config: Any = AutoencoderKL.load_config(folder)
    known = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}
    if (name := config["_class_name"]) not in known:
        raise ConfigError(
            f"{Path(folder) / 'config.json'}: class {name!r} is not supported; expected one of "
            f"{', '.join(known)}."
        )
    return known[name].from_pretrained(folder, **options)


def save_pipeline(
    folder: str | Path,
    vae: Any,
    unet: Any,
    text_encoder: Any,
    tokenizer: Any,
    scheduler: Any,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a folder that `StableDiffusionPipeline.from_pretrained` loads, in safetensors.

    The tokenizer is written in CLIP's own files too, which transformers before 5 reads.

    Args:
        folder: where to.
        vae: as in `LatentDiffusion`, like the others; none of them is changed.
        unet: see there.
        text_encoder: see there.
        tokenizer: see there.
        scheduler: see there.
        dtype: floating-point type of the weights in the files.
    """
    pipeline: Any = StableDiffusionPipeline  # its annotations forbid the None that it accepts
    pipeline(
        vae=deepcopy(vae).to(dtype),
        unet=deepcopy(unet).to(dtype),
        text_encoder=deepcopy(text_encoder).to(dtype),
        tokenizer=tokenizer,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)
    # Where parts were loaded from is a path of this machine.
    for path in Path(folder).glob("*/config.json"):
        described = json.loads(path.read_text(encoding="utf-8"))
        if described.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    # Loaded without a dtype, transformers' models take the one of their config, diffusers' float32.
    config = Path(folder) / "text_encoder" / "config.json"
    described = json.loads(config.read_text(encoding="utf-8")) | {"dtype": "float32"}
    config.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    # Merges are pairs, or in files of older versions "a b".
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    target = Path(folder) / "tokenizer"
    (target / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    (target / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
