"""The teacher: a diffusion model and its adapters, trained as one to rate pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from latentiqa.backbones.addresses import Layers, layer_modules
from latentiqa.backbones.ldm import LatentDiffusion, checkpoint_blocks
from latentiqa.backbones.stable_diffusion import StableDiffusion
from latentiqa.dpiqa.attention import SharedPromptAttention
from latentiqa.dpiqa.decoder import REDUCTION, QualityFeatureDecoder
from latentiqa.dpiqa.image_adapter import ImageAdapter
from latentiqa.dpiqa.prompts import COARSE_DISTORTIONS, FINE_DISTORTIONS, prompt_features, prompts
from latentiqa.dpiqa.text_adapter import TextAdapter
from latentiqa.errors import ConfigError, check_integer
from latentiqa.noise import image_noise
from latentiqa.recipe import UNRECORDED
from latentiqa.training.lora import add_lora
from latentiqa.training.rater import BackboneRater, trained_parameters

CHOICES = {
    "prompts": ("coarse", "fine", "learnt", "none"),
    "tuning": ("full", "lora", "frozen"),
    "input_range": ("symmetric", "unit"),
    "latents": ("mode", "sample"),
}

TIMESTEP = 1
"""At which the U-Net is asked; no noise is added."""

LORA_LAYERS = ["to_q", "to_k", "to_v", "to_out.0"]


@dataclass(frozen=True)
class Design:
    """What a teacher is made of; defaults are the paper's, or the sound way where its code is odd.

    Args:
        prompts: ``coarse`` (the paper's 495), ``fine`` (its code's 1485), ``learnt`` (vectors in
            their place) or ``none`` (the empty prompt).
        learnt: number of vectors with ``prompts=learnt``.
        text_adapter: adapt the features of the prompts; only with coarse or fine ones.
        image_adapter: show the U-Net the picture.
        layers: whose maps are decoded, addresses or globs; None for the outputs of the up blocks.
        tuning: the U-Net is trained in ``full``, by ``lora``, or stays ``frozen``.
        lora_rank: rank of LoRA's updates, of all attention.
        input_range: the autoencoder sees pictures in [-1, 1], ``symmetric``, as it was trained; or
            in [0, 1], ``unit``, as in the authors' code.
        latents: ``mode`` of the autoencoder's posterior, or a ``sample`` that is seeded by a
            picture's name; the authors' code draws a new one each time.
        side: see `QualityFeatureDecoder`, as the following.
        width: see there.
        narrowing: see there.
        checkpointing: the U-Net keeps only its blocks' inputs for the backward pass: less memory,
            the same numbers.

    Raises:
        ConfigError: a value is outside its range.
    """

    prompts: str = "coarse"
    learnt: int = 64
    text_adapter: bool = True
    image_adapter: bool = True
    layers: Sequence[str] | None = None
    tuning: str = "full"
    lora_rank: int = 16
    input_range: str = "symmetric"
    latents: str = "mode"
    side: int = 64
    width: int = 512
    narrowing: Sequence[int] = (128, 32, 8)
    checkpointing: bool = field(default=False, metadata=UNRECORDED)

    def __post_init__(self) -> None:
        for key, choices in CHOICES.items():
            if (value := getattr(self, key)) not in choices:
                raise ConfigError(f"{key}={value!r}: expected one of {', '.join(choices)}.")
        for key in ("text_adapter", "image_adapter", "checkpointing"):
            if not isinstance(value := getattr(self, key), bool):
                raise ConfigError(f"{key}={value!r}: expected true or false.")
        for key, least in (("learnt", 1), ("lora_rank", 1), ("side", 1), ("width", REDUCTION)):
            check_integer(key, getattr(self, key), least)
        if isinstance(self.narrowing, str) or not self.narrowing:
            raise ConfigError(f"narrowing={self.narrowing!r}: expected one or more widths.")
        for width in self.narrowing:
            check_integer("narrowing", width, 1)
        if self.layers is not None:
            Layers(self.layers)

    @property
    def is_trained(self) -> bool:
        """Always: its decoder begins at random."""
        return True


class Teacher(BackboneRater):
    """DP-IQA's teacher: one pass of the U-Net at t = 1, without noise, decoded to a score.

    It takes the backbone for itself: the U-Net is trained in place, the rest of it stays frozen.

    Args:
        backbone: one of `StableDiffusion`.
        design: what is put around it.
        seed: seeds the weights that begin at random, and samples of latents.
        prompts: features ``(K, D)`` of the prompts where they are known, of a teacher that was
            trained; computed otherwise.

    Raises:
        ConfigError: the backbone is of another family, a layer is none of its U-Net's, a U-Net of
            low precision is to be trained, or LoRA's package is missing.

    Example:
        >>> from latentiqa.backbones.source import BackboneSource
        >>> backbone = BackboneSource("control", "tiny_random", resolution=64).load()
        >>> teacher = Teacher(backbone, Design(side=8, width=16, narrowing=(4,)))
        >>> image, names = torch.rand(2, 3, 64, 64), ["a.png", "b.png"]
        >>> teacher(image, names).shape, teacher.quality(image, names).shape
        (torch.Size([2]), torch.Size([2, 4, 8, 8]))
    """

    KEPT = frozenset({"prompts"})

    def __init__(
        self,
        backbone: LatentDiffusion,
        design: Design,
        *,
        seed: int = 0,
        prompts: Tensor | None = None,
    ) -> None:
        super().__init__(backbone, design, seed)
        if not isinstance(backbone, StableDiffusion):
            raise ConfigError(
                f"method=dpiqa with a {type(backbone).__name__}: expected a Stable Diffusion 1 or "
                "2, whose U-Net attends to CLIP's text alone."
            )
        if design.tuning != "frozen" and backbone.dtype != torch.float32:
            raise ConfigError(
                f"tuning={design.tuning} with backbone.dtype={backbone.dtype}: small steps vanish "
                "in low precision; set backbone.dtype=float32, and a mixed training.precision."
            )
        unet = backbone.unet
        self.taps = backbone.expand(block_outputs(unet) if design.layers is None else design.layers)
        unet.set_attn_processor(SharedPromptAttention())
        channels = [backbone.channels(layer) for layer in self.taps]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._embed_prompts(prompts)
            self.image_adapter = (
                ImageAdapter(unet, backbone.vae_scale) if design.image_adapter else None
            )
            self.decoder = QualityFeatureDecoder(
                channels, design.side, design.width, design.narrowing
            )
            _tune(unet, design, self.taps)
        if self.image_adapter is not None:
            self.image_adapter.freeze_behind(self.taps[-1])
        checkpoint_blocks(unet, design.checkpointing)

    def _embed_prompts(self, known: Tensor | None) -> None:
        width = self.backbone.unet.config.cross_attention_dim
        self.text_adapter = None
        match self.design.prompts:
            case "learnt":
                # As the tokens of CLIP begin.
                self.prompts = nn.Parameter(0.02 * torch.randn(self.design.learnt, width))
                return
            case "none" if known is None:
                known = self.backbone.context("")["encoder_hidden_states"][0].float()
            case "coarse" | "fine" as kind:
                if self.design.text_adapter:
                    self.text_adapter = TextAdapter(width)
                if known is None:
                    words = COARSE_DISTORTIONS if kind == "coarse" else FINE_DISTORTIONS
                    known = prompt_features(self.backbone, prompts(words))
        self.register_buffer("prompts", known)

    def forward(self, image: Tensor, names: Sequence[str]) -> Tensor:
        """See `Rater.forward`; names seed samples of latents."""
        return self.score(self.quality(image, names))

    @property
    def quality_shape(self) -> tuple[int, int, int]:
        """See `Rater.quality_shape`."""
        return self.design.narrowing[-1], self.design.side, self.design.side

    def both(self, image: Tensor, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """See `Rater.both`."""
        quality = self.quality(image, names)
        return self.score(quality), quality

    def quality(self, image: Tensor, names: Sequence[str]) -> Tensor:
        """F_quality ``(B, narrowing[-1], side, side)`` of pictures; see `forward`.

        It is what a student learns to see.
        """
        latents = self.latents(image, names)
        maps = self.backbone.maps(latents, TIMESTEP, self._context(image), self.taps)
        return self.decoder([maps[layer].to(image.dtype) for layer in self.taps])

    def encode(self, image: Tensor, names: Sequence[str]) -> Tensor:
        """See `BackboneRater.encode`."""
        noise = None
        if self.design.latents == "sample":
            shape = self.backbone.latent_shape(*image.shape[-2:])
            noise = image_noise(names, TIMESTEP, shape, seed=self.seed, device=image.device)
        # The backbone maps [0, 1] to [-1, 1]: what is to arrive as it is must be mapped back first.
        shown = image if self.design.input_range == "symmetric" else (image + 1) / 2
        return self.backbone.encode(shown, noise)

    def score(self, quality: Tensor) -> Tensor:
        """Scores ``(B,)`` float32 of F_quality."""
        return self.decoder.score(quality)

    def _context(self, image: Tensor) -> dict[str, Any]:
        dtype = self.backbone.dtype
        text = self.prompts[None]
        if self.text_adapter is not None:
            text = self.text_adapter(text)
        context: dict[str, Any] = {"encoder_hidden_states": text.to(dtype)}
        if self.image_adapter is not None:
            maps = [one.to(dtype) for one in self.image_adapter(image)]
            context["down_intrablock_additional_residuals"] = maps
        return context

    def parameter_counts(self) -> dict[str, int]:
        """Number of parameters of each part that is trained."""
        parts = {
            "unet": self.backbone.unet,
            "text_adapter": self.text_adapter,
            "image_adapter": self.image_adapter,
            "decoder": self.decoder,
        }
        counts = {
            name: trained_parameters(part) for name, part in parts.items() if part is not None
        }
        if self.prompts.requires_grad:
            counts["prompts"] = self.prompts.numel()
        return counts


def block_outputs(unet: Any) -> list[str]:
    """Addresses of the last layer of each up block."""
    ups = [address for address in layer_modules(unet) if address.startswith("up.")]
    return list({address.split(".")[1]: address for address in ups}.values())


def _tune(unet: Any, design: Design, taps: Sequence[str]) -> None:
    """Let those weights of the U-Net be trained that the design says and that the taps depend on.

    Weights without a gradient, behind the last tap, would stop DDP.
    """
    if design.tuning == "frozen":
        return
    if design.tuning == "lora":
        add_lora(unet, design.lora_rank, LORA_LAYERS)
    else:
        unet.requires_grad_(True)
    layers = layer_modules(unet)
    order = list(layers)
    behind = [layers[address] for address in order[order.index(taps[-1]) + 1 :]]
    for module in [*behind, unet.conv_norm_out, unet.conv_out]:
        if module is not None:
            module.requires_grad_(False)
