"""A frozen latent diffusion model as one object over diffusers' own classes."""

from __future__ import annotations

import functools
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusionPipeline,
    VQModel,
)
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from latentiqa.backbones.addresses import expand, is_transformer, layer_channels, layer_modules
from latentiqa.backbones.layout import read_index
from latentiqa.backbones.process import Rates, process_of
from latentiqa.backbones.taps import tapped_forward
from latentiqa.errors import ConfigError

AUTOENCODERS = (AutoencoderKL, AutoencoderTiny, VQModel)

FORMERLY = {"Transformer2DModel": "PixArtTransformer2DModel"}
"""Names that folders of older versions of diffusers have for a class."""

Context = dict[str, Tensor]
"""What conditions a denoiser, each tensor ``(B, ...)``: by diffusers' names of the arguments.

``encoder_hidden_states``, the tokens of the prompt, are there wherever there is a text encoder;
``context | {"encoder_hidden_states": learnt}`` puts others in their place.
"""


class LatentDiffusion(nn.Module, ABC):
    """Autoencoder, denoiser, text encoders and noise schedule, all frozen.

    It speaks the house's conventions (images in [0, 1], scaled latents, noise predictions) and
    keeps each model's own (value range, latent scale, what it predicts, how it is told the
    prompt) to itself. A family of models is a subclass that says how a prompt is encoded and how
    its denoiser is called.

    Args:
        scheduler: one of diffusers'; read for its noise schedule and the prediction type only.
        identity: names the weights beyond doubt (hub id and commit, or content hash).
        **parts: the models and tokenizers in `PARTS`.

    Raises:
        ConfigError: parts are missing or too many, or the denoiser predicts something unknown.

    Attributes:
        PARTS: the parts by their names in diffusers' pipeline, with the class of each.
        OPTIONAL: those that may be ``None``.
        DENOISER: which of them denoises.
        PACKAGES: modules that reading the hub's files needs beside this package's own.
    """

    PARTS: ClassVar[dict[str, Any]]
    OPTIONAL: ClassVar[frozenset[str]] = frozenset()
    DENOISER: ClassVar[str] = "unet"
    PACKAGES: ClassVar[tuple[str, ...]] = ()

    # Any: diffusers types what a model returns as a union with a tuple, its config as a dict.
    vae: Any

    def __init__(self, *, scheduler: Any, identity: str = "unnamed", **parts: Any) -> None:
        super().__init__()
        if parts.keys() != self.PARTS.keys():
            raise ConfigError(
                f"{type(self).__name__}: got {', '.join(parts)}; expected {', '.join(self.PARTS)}."
            )
        for name, part in parts.items():
            setattr(self, name, part)
        # Convolutions on CPUs and tensor cores want the channels last, wide pictures most of all.
        self.vae.to(memory_format=torch.channels_last)
        self.scheduler = scheduler
        self.process = process_of(scheduler)
        self.identity = identity
        self._contexts: dict[tuple[str, torch.device, torch.dtype], Context] = {}
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
    ) -> Self:
        """Load a folder in diffusers' pipeline format; safetensors only, no remote code.

        Args:
            folder: holds ``model_index.json``, ``scheduler/`` and a folder for each part.
            variant: file name variant of the weights, for example ``fp16``.
            dtype: floating-point type of the weights.
            identity: see the class.

        Raises:
            ConfigError: a part is of another class than this family's.
        """
        folder = Path(folder)
        _, classes = read_index(folder)
        parts = {}
        for name, kind in cls.PARTS.items():
            if name in cls.OPTIONAL and classes.get(name) is None:
                parts[name] = None
            else:
                _check_class(folder, name, classes.get(name), kind)
                parts[name] = _load_part(kind, folder / name, variant, dtype)
        return cls(**parts, scheduler=_load_scheduler(folder / "scheduler"), identity=identity)

    def parts(self) -> dict[str, Any]:
        """The models and tokenizers by their names in `PARTS`."""
        return {name: getattr(self, name) for name in self.PARTS}

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode whatever the enclosing module does: the model is frozen."""
        return super().train(False)

    @property
    def denoiser(self) -> Any:
        """The U-Net or transformer."""
        return getattr(self, self.DENOISER)

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type that the models compute in."""
        return self.denoiser.dtype

    @property
    def device(self) -> torch.device:
        """Where the models compute."""
        return self.denoiser.device

    @property
    def patch(self) -> int:
        """Side of the square of latents that becomes one token of a transformer."""
        return self.denoiser.config.patch_size

    @property
    def multiple(self) -> int:
        """Sides of pictures are multiples of it: latents are halved in a U-Net, or make tokens."""
        inner = self.patch if is_transformer(self.denoiser) else _scale(self.denoiser)
        return self.vae_scale * inner

    @property
    def vae_scale(self) -> int:
        """How many times smaller the sides of latents are than those of pictures."""
        return _scale(self.vae)

    def check_sides(self, image: Tensor) -> None:
        """Refuse pictures ``(B, 3, H, W)`` that the denoiser cannot halve through all its levels.

        Raises:
            ConfigError: a side is no multiple of `multiple`.
        """
        height, width = image.shape[-2:]
        if height % self.multiple or width % self.multiple:
            raise ConfigError(
                f"pictures of {width} x {height} pixels: {self.identity} takes sides that are "
                f"multiples of {self.multiple}; set views.size or views.multiple to one."
            )

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Shape ``(C, h, w)`` of the latents of a picture."""
        channels = self.vae.config.latent_channels
        return channels, height // self.vae_scale, width // self.vae_scale

    def encode(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        """Map images to scaled latents ``z_0 = s * E(y)``, the mode of the VAE's posterior.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1].
            noise: ``(B, C, h, w)`` standard normal, for a sample of the posterior instead.

        Returns:
            ``(B, C, h, w)`` in the image's dtype.

        Raises:
            ConfigError: a sample is asked of an autoencoder without a posterior.
        """
        latents = latents_of(self.vae.encode((image * 2 - 1).to(self.dtype)), noise)
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        return ((latents - shift) * self.vae.config.scaling_factor).to(image.dtype)

    def decode(self, latents: Tensor) -> Tensor:
        """Map scaled latents to images, ``(B, 3, H, W)``, about [0, 1] but not clipped.

        Clipping would cut the gradient of guidance terms where the estimate overshoots.
        """
        return decode(self.vae, latents)

    def checkpoint(self, enabled: bool) -> None:
        """Let autoencoder and denoiser keep only their blocks' inputs for a backward pass."""
        for model in (self.vae, self.denoiser):
            checkpoint_blocks(model, enabled)

    # What is kept must serve later passes with a graph, whatever surrounds the first one.
    @torch.inference_mode(False)
    @torch.no_grad()
    def context(self, prompt: str, batch_size: int = 1) -> Context:
        """What a prompt tells the denoiser; computed once a prompt.

        Args:
            prompt: any text; ``""`` is the unconditional prompt.
            batch_size: B, the same prompt for each picture.
        """
        key = prompt, self.device, self.dtype
        if key not in self._contexts:
            with torch.autocast(self.device.type, enabled=False):  # whoever is the first to ask
                encoded = self.encode_prompt(prompt)
            self._contexts[key] = {name: x.to(self.dtype) for name, x in encoded.items()}
        return {name: x.expand(batch_size, *x.shape[1:]) for name, x in self._contexts[key].items()}

    @abstractmethod
    def encode_prompt(self, prompt: str) -> Context:
        """Encode one prompt, ``(1, ...)`` each; `context` keeps what comes of it."""

    @abstractmethod
    def denoise(self, z_t: Tensor, t: int, context: Context) -> Tensor:
        """Call the denoiser as its pipeline in diffusers does.

        Args:
            z_t: noisy latents ``(B, C, h, w)`` in the model's dtype.
            t: timestep, 0 to 999.
            context: of `context`.

        Returns:
            Its prediction, ``(B, C, h, w)``.
        """

    def times(self, z_t: Tensor, t: int) -> Tensor:
        """The timestep as transformers are told it, ``(B,)`` float32."""
        return torch.full((len(z_t),), float(t), device=z_t.device)

    def predict_noise(
        self, z_t: Tensor, t: int, context: Context, taps: Sequence[str] = ()
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One pass: the noise in ``z_t`` and the maps of the tapped layers.

        Args:
            z_t: noisy latents ``(B, C, h, w)``.
            t: timestep, 0 to 999.
            context: of `context`.
            taps: exact layer addresses.

        Returns:
            Noise ``(B, C, h, w)`` in the dtype of ``z_t``; address -> map.
        """
        output, maps = self._pass(z_t, t, context, taps, need_output=True)
        assert output is not None
        return self.process.noise(output.to(z_t.dtype), z_t, t), maps

    def maps(self, z_t: Tensor, t: int, context: Context, taps: Sequence[str]) -> dict[str, Tensor]:
        """The maps of the tapped layers alone: the denoiser stops after the last of them."""
        if not taps:
            raise ConfigError("taps: expected at least one layer address.")
        return self._pass(z_t, t, context, taps, need_output=False)[1]

    def _pass(
        self, z_t: Tensor, t: int, context: Context, taps: Sequence[str], need_output: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        output, maps = tapped_forward(
            layer_modules(self.denoiser),
            taps,
            lambda: self.denoise(z_t.to(self.dtype), t, context),
            need_output=need_output,
        )
        if is_transformer(self.denoiser):
            height, width = (side // self.patch for side in z_t.shape[-2:])
            maps = {name: token_map(tokens, height, width) for name, tokens in maps.items()}
        return output, maps

    def rates(self, t: int) -> Rates:
        """How much of ``z_t`` is signal and how much noise at timestep ``t``."""
        return self.process.rates(t)

    def expand(self, patterns: Sequence[str]) -> list[str]:
        """Addresses of this denoiser that the patterns stand for, in the order of execution."""
        return expand(patterns, self.denoiser)

    def channels(self, address: str) -> int:
        """Number of channels of the layer's map."""
        if is_transformer(self.denoiser):
            return self.denoiser.inner_dim
        return layer_channels(layer_modules(self.denoiser)[address])


def token_map(tokens: Tensor, height: int, width: int) -> Tensor:
    """The map that a picture's tokens make.

    Args:
        tokens: ``(B, N, C)``; the last ``height * width`` are the picture's, row by row, what is
            before them is text.
        height: of the map.
        width: of the map.

    Returns:
        ``(B, C, height, width)``.

    Example:
        >>> token_map(torch.arange(10).view(1, 5, 2), 2, 2)[0, 0].tolist()
        [[2, 4], [6, 8]]
    """
    return tokens[:, -height * width :].transpose(1, 2).unflatten(2, (height, width))


def _scale(model: Any) -> int:
    """How many times smaller a side is inside a model that halves it between its levels."""
    return 2 ** (len(model.config.block_out_channels) - 1)


def _check_class(folder: Path, name: str, found: str | None, kind: Any) -> None:
    # What an autoencoder is, its own config says; tokenizers go by more than one name.
    if issubclass(kind, (AutoencoderKL, VQModel, PreTrainedTokenizerBase)) and found:
        return
    if found is None or FORMERLY.get(found, found) != kind.__name__:
        raise ConfigError(
            f"{folder / 'model_index.json'}: {name} is {found or 'absent'}; expected "
            f"{kind.__name__}."
        )


def _load_part(kind: Any, folder: Path, variant: str | None, dtype: torch.dtype) -> Any:
    if issubclass(kind, PreTrainedTokenizerBase):
        return kind.from_pretrained(folder, local_files_only=True)
    weights = {"variant": variant, "use_safetensors": True, "local_files_only": True}
    if issubclass(kind, PreTrainedModel):
        return kind.from_pretrained(folder, dtype=dtype, **weights)
    if issubclass(kind, (AutoencoderKL, VQModel)):
        return load_autoencoder(folder, torch_dtype=dtype, **weights)
    return kind.from_pretrained(folder, torch_dtype=dtype, **weights)


def _load_scheduler(folder: Path) -> Any:
    """Only the schedule of the noise is read, which most schedulers have in common with DDIM's."""
    config: Any = DDIMScheduler.load_config(folder, local_files_only=True)
    name = str(config.get("_class_name"))
    if name.startswith("FlowMatch"):
        return FlowMatchEulerDiscreteScheduler.from_config(config)
    if "beta_schedule" not in config and config.get("trained_betas") is None:
        raise ConfigError(
            f"{folder / 'scheduler_config.json'}: {name} names no beta_schedule; expected a "
            "scheduler of betas, as DDIM's, or of a rectified flow."
        )
    return DDIMScheduler.from_config(config)


def latents_of(encoded: Any, noise: Tensor | None = None) -> Tensor:
    """Latents that an autoencoder's ``encode`` gives, the mode where there is a posterior.

    Args:
        encoded: what ``encode`` returned.
        noise: standard normal, for a sample of the posterior.

    Raises:
        ConfigError: a sample is asked for, and there is no posterior.
    """
    if noise is None:
        return encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
    if hasattr(encoded, "latents"):
        raise ConfigError(
            "latents=sample: this backbone's autoencoder has no posterior to draw from; set mode."
        )
    return encoded.latent_dist.mean + encoded.latent_dist.std * noise.to(encoded.latent_dist.mean)


def decode(vae: Any, latents: Tensor) -> Tensor:
    """Pictures that an autoencoder makes of scaled latents, by its own scale and shift.

    Args:
        vae: one of `AUTOENCODERS`.
        latents: ``(B, C, h, w)``.

    Returns:
        ``(B, 3, H, W)`` in the dtype of the latents, about [0, 1] but not clipped.
    """
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    unscaled = latents / vae.config.scaling_factor + shift
    image = vae.decode(unscaled.to(vae.dtype)).sample
    return ((image + 1) / 2).to(latents.dtype)


def checkpoint_blocks(model: Any, enabled: bool) -> None:
    """Switch gradient checkpointing of a model of diffusers on or off; a `VQModel` has none."""
    if enabled and not isinstance(model, VQModel):
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
    """One of `AUTOENCODERS` in diffusers' format.

    Args:
        folder: holds ``config.json`` and the weights.
        **options: of ``from_pretrained``.

    Raises:
        ConfigError: its config names another class, or latents that are shifted channel by channel.
    """
    config: Any = AutoencoderKL.load_config(folder)
    known = {kind.__name__: kind for kind in AUTOENCODERS}
    if (name := config["_class_name"]) not in known:
        raise ConfigError(
            f"{Path(folder) / 'config.json'}: class {name!r} is not supported; expected one of "
            f"{', '.join(known)}."
        )
    if config.get("latents_mean") is not None:
        raise ConfigError(
            f"{Path(folder) / 'config.json'}: latents_mean is set; expected an autoencoder whose "
            "latents are scaled by scaling_factor and shift_factor alone."
        )
    if known[name] is VQModel and "scaling_factor" not in config:
        # CompVis' own are older than the key and were trained on latents as they are. What
        # diffusers takes in its place is Stable Diffusion's: huggingface/diffusers#6725.
        options["scaling_factor"] = 1.0
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
        vae: as in `StableDiffusion`, like the others; none of them is changed.
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
