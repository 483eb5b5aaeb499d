"""GenzIQA as one model: prompts, a diffusion model, and a score read off its attention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from latentiqa.backbones.addresses import Layers, expand_cross_attentions
from latentiqa.backbones.ldm import Context, LatentDiffusion
from latentiqa.errors import ConfigError, check_integer, check_number
from latentiqa.genziqa.attention import Read, pooled, read_attention
from latentiqa.genziqa.prompts import POSITIONS, ContextTokens, Encoded, encode
from latentiqa.genziqa.score import OF_ATTENTION, OF_NOISE, SCORES, Seen
from latentiqa.genziqa.tuning import TUNINGS, tune
from latentiqa.noise import generator_of, image_noise
from latentiqa.recipe import UNRECORDED
from latentiqa.training.rater import BackboneRater, trained_parameters
from latentiqa.trajectory import Timesteps, add_noise, ddim_sigma, ddim_step, tweedie

CHOICES = {
    "score": tuple(SCORES),
    "tuning": TUNINGS,
    "context_position": POSITIONS,
    "tokens": ("all", "text"),
    "layer_weights": ("equal", "learnt"),
    "walk": ("apart", "ddim"),
    "input_range": ("symmetric", "clip"),
    "latents": ("mode", "sample"),
}

COLUMNS = ("name", "score")
"""Of a table of scores, where attributes have columns, too."""

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Of CLIP's pictures; the authors' code normalises by them what the autoencoder sees."""

TIMESTEPS = (9, 21, 33, 45, 57, 69, 81, 93)
"""At which the paper's score is read; their mean is the picture's."""

PER_SCORE = 100.0
"""The paper's scores are from 0 to 100, here they are from 0 to 1."""

Pair = tuple[str, str]


@dataclass(frozen=True)
class Design:
    """What a rater is made of; defaults are the paper's, or the sound way where its code is odd.

    Args:
        pair: the good prompt and the bad one.
        attributes: further pairs by the name of what they tell, such as sharpness; they are scores
            of their own, which `latentiqa score explain=true` shows.
        context: number of learnt context tokens, or the words that they begin as; 0 for none.
        context_position: see `latentiqa.genziqa.prompts.ContextTokens`.
        score: one of `latentiqa.genziqa.score.SCORES`: ``paper``, ``attention`` (without b),
            ``contrast`` (softmax over both prompts), ``bias`` (b alone) or ``loss``.
        layers: whose attention is read, addresses or globs; None for all.
        layer_weights: ``equal``, or ``learnt`` ones that begin there.
        sharpness: lambda of the log-sum-exp over places.
        tokens: which are averaged over: ``all``, with the padding, or those of the ``text``.
        timesteps: that the score is the mean over, falling or rising.
        walk: the picture is noised to each timestep ``apart``, or once, and ``ddim`` steps lead
            from the largest to the smallest.
        eta: 0 is deterministic DDIM, which is Euler's step of the flow, 1 has DDPM's variance.
        train_below: training draws its timesteps from 0 to this, exclusive.
        tuning: what of all cross-attentions is trained: ``lora``, their ``projections``
            themselves, or ``none``.
        lora_rank: rank of LoRA's updates.
        input_range: the autoencoder sees pictures in [-1, 1], ``symmetric``, as it was trained; or
            normalised as CLIP's, ``clip``, as in the authors' code.
        latents: ``mode`` of the autoencoder's posterior, or a ``sample``, as the authors take,
            which is seeded by a picture's name here.

    Raises:
        ConfigError: a value is outside its range.
    """

    pair: Sequence[str] = ("Good Photo.", "Bad Photo.")
    attributes: Mapping[str, Sequence[str]] = field(default_factory=dict, metadata=UNRECORDED)
    context: int | str = 16
    context_position: str = "front"
    score: str = "paper"
    layers: Sequence[str] | None = None
    layer_weights: str = "equal"
    sharpness: float = 0.14
    tokens: str = "all"
    timesteps: Sequence[int] = TIMESTEPS
    walk: str = "apart"
    eta: float = 0.0
    train_below: int = 100
    tuning: str = "lora"
    lora_rank: int = 4
    input_range: str = "symmetric"
    latents: str = "mode"

    def __post_init__(self) -> None:
        for key, choices in CHOICES.items():
            if (value := getattr(self, key)) not in choices:
                raise ConfigError(f"{key}={value!r}: expected one of {', '.join(choices)}.")
        check_pair("pair", self.pair)
        for name, pair in self.attributes.items():
            check_pair(f"attributes.{name}", pair)
            if name in COLUMNS:
                raise ConfigError(f"attributes.{name}: a table of scores has its own {name}.")
        if not isinstance(self.context, str):
            check_integer("context", self.context, 0)
        check_integer("lora_rank", self.lora_rank, 1)
        check_integer("train_below", self.train_below, 1)
        if self.train_below > 1000:
            raise ConfigError(f"train_below={self.train_below}: expected at most 1000.")
        check_number("sharpness", self.sharpness, positive=True)
        if self.layers is not None:
            Layers(self.layers)
        if self.score not in OF_ATTENTION and self.layer_weights == "learnt":
            raise ConfigError(
                f"layer_weights=learnt with score={self.score}, which reads no layer: set equal, "
                f"or a score of {', '.join(sorted(OF_ATTENTION))}."
            )
        if len(set(self.timesteps)) < len(self.timesteps):
            raise ConfigError(f"timesteps={list(self.timesteps)}: expected each once.")
        try:
            _ = self.path
        except ConfigError as error:  # it knows its own group's keys, which are others
            own = str(error).replace("timesteps.values", "timesteps")
            raise ConfigError(own.replace("timesteps.eta", "eta")) from None

    @property
    def path(self) -> Timesteps:
        """The timesteps, falling."""
        return Timesteps(sorted(self.timesteps, reverse=True), eta=self.eta)

    @property
    def is_trained(self) -> bool:
        """Whether there is anything to train; otherwise its scores are zero-shot."""
        return self.context != 0 or self.tuning != "none" or self.layer_weights == "learnt"

    @property
    def reads_attention(self) -> bool:
        """Whether the score has attention in it."""
        return self.score in OF_ATTENTION

    @property
    def needs_noise(self) -> bool:
        """Whether the score has the predicted noise in it."""
        return self.score in OF_NOISE


def check_pair(key: str, pair: Any) -> None:
    """Refuse what is not two different prompts.

    Raises:
        ConfigError: it is something else.
    """
    texts = list(pair) if isinstance(pair, Sequence) and not isinstance(pair, str) else [pair]
    if len(set(texts)) != 2 or not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"{key}={pair!r}: expected two prompts, the good one and the bad one.")


class Look(NamedTuple):
    """One pass over noisy latents under several prompts.

    Attributes:
        read: address -> what was read, ``(P B, ...)``, one prompt after the other.
        predicted: noise ``(P, B, C, h, w)``; None where the pass was cut.
    """

    read: dict[str, Tensor]
    predicted: Tensor | None


class PromptRater(BackboneRater):
    """Scores from the attention to a good and a bad prompt, and from the noise under both.

    It takes the backbone for itself: its cross-attentions are trained in place, the rest of it
    stays frozen.

    Args:
        backbone: any with a text encoder; learnt context needs one of `StableDiffusion`, attention
            to the prompt a U-Net or a PixArt.
        design: what is read and trained.
        seed: seeds the weights that begin at random, and the noise.

    Raises:
        ConfigError: the backbone has not what the design reads or trains.

    Example:
        >>> from latentiqa.backbones.source import BackboneSource
        >>> backbone = BackboneSource("control", "tiny_random", resolution=64).load()
        >>> design = Design(context=4, timesteps=[9, 45], tuning="none")
        >>> rater = PromptRater(backbone, design)
        >>> rater(torch.rand(2, 3, 64, 64), ["a.png", "b.png"]).shape
        torch.Size([2])
    """

    def __init__(self, backbone: LatentDiffusion, design: Design, *, seed: int = 0) -> None:
        super().__init__(backbone, design, seed)
        if design.tuning != "none" and backbone.dtype != torch.float32:
            raise ConfigError(
                f"tuning={design.tuning} with backbone.dtype={backbone.dtype}: small steps vanish "
                "in low precision; set backbone.dtype=float32, and a mixed training.precision."
            )
        self.layers: list[str] = []
        if design.reads_attention:
            self.layers = expand_cross_attentions(design.layers or ["*"], backbone.denoiser)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.context = None
            if design.context != 0:
                self.context = ContextTokens(backbone, design.context, design.context_position)
            last = None if design.needs_noise else self.layers[-1]
            tune(backbone.denoiser, design.tuning, design.lora_rank, last)
        self.layer_logits = None
        if design.layer_weights == "learnt":
            self.layer_logits = nn.Parameter(torch.zeros(len(self.layers)))

    def forward(self, image: Tensor, names: Sequence[str]) -> Tensor:
        """See `Rater.forward`: the mean over the timesteps, each with noise of its own."""
        z0 = self.latents(image, names)
        return self._mean_score(z0, names, self.design.pair, self.design.score)

    def attributes(self, image: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Scores ``(B,)`` from 0 to 1 by each pair of the design's ``attributes``.

        They are contrasts whatever the score is: nobody has told what they are worth.

        Raises:
            ConfigError: no attention is read.
        """
        self.check_reads("attributes")
        z0, pairs = self.latents(image, names), self.design.attributes.items()
        return {name: self._mean_score(z0, names, pair, "contrast") for name, pair in pairs}

    def check_reads(self, what: str) -> None:
        """Refuse what is read off attention where none is read.

        Raises:
            ConfigError: the score is of the noise alone.
        """
        if not self.design.reads_attention:
            raise ConfigError(
                f"{what} of a run with score={self.design.score}: it reads no attention; take one "
                f"with {', '.join(sorted(OF_ATTENTION))}."
            )

    def _mean_score(
        self, z0: Tensor, names: Sequence[str], pair: Sequence[str], score: str
    ) -> Tensor:
        encoded, noise = self.encode_prompts(pair), score in OF_NOISE
        read = self._pool(encoded, len(z0))
        looks = self.looks(z0, names, encoded.context, read, need_noise=noise)
        scores = [self._score(look, noise, score) for _, look, noise in looks]
        return torch.stack(scores).mean(dim=0)

    def training_scores(self, image: Tensor, names: Sequence[str], step: int) -> Tensor:
        """Scores ``(B,)`` at one timestep that is drawn for this step, with fresh noise.

        That all pictures of a step share the timestep is our reading of the paper; so they do
        whatever the number of devices and passes.
        """
        drawn = [f"{name}/step {step}" for name in names]
        generator = generator_of(self.seed, f"step {step}", "timestep")
        t = int(torch.randint(self.design.train_below, (), generator=generator))
        encoded, z0 = self.encode_prompts(self.design.pair), self.latents(image, names)
        noise = self._noise(drawn, t, z0)
        z_t = add_noise(z0, noise, self.backbone.rates(t))
        read = self._pool(encoded, len(z0))
        look = self.look(z_t, t, encoded.context, read, need_noise=self.design.needs_noise)
        return self._score(look, noise, self.design.score)

    def encode_prompts(self, texts: Sequence[str]) -> Encoded:
        """Prompts of the words, with the learnt context if there is one."""
        if self.context is None:
            return encode(self.backbone, texts)
        return self.context.encode(self.backbone, texts)

    def encode(self, image: Tensor, names: Sequence[str]) -> Tensor:
        """See `BackboneRater.encode`."""
        noise = None
        if self.design.latents == "sample":
            shape = self.backbone.latent_shape(*image.shape[-2:])
            drawn = [f"{name}/latents" for name in names]
            noise = image_noise(drawn, 0, shape, seed=self.seed, device=image.device)
        if self.design.input_range == "clip":
            mean, std = (image.new_tensor(x)[:, None, None] for x in (CLIP_MEAN, CLIP_STD))
            # The backbone maps [0, 1] to [-1, 1]: what is to arrive as it is is mapped back first.
            image = ((image - mean) / std + 1) / 2
        return self.backbone.encode(image, noise)

    def looks(
        self,
        z0: Tensor,
        names: Sequence[str],
        context: Context,
        read: Read,
        *,
        need_noise: bool,
    ) -> Iterator[tuple[int, Look, Tensor]]:
        """Noise latents to each timestep, or walk there, and look.

        On a walk all prompts see the same latents: the mean of their predictions leads it, which
        is ours. The noise in latents is then what they are off the picture's own.

        Args:
            z0: scaled latents ``(B, C, h, w)``.
            names: the pictures' names.
            context: of P prompts.
            read: see `latentiqa.genziqa.attention.read_attention`.
            need_noise: whether the predicted noise is wanted at each timestep.

        Yields:
            Timestep, what was seen, and the noise in the latents, ``(B, C, h, w)``.
        """
        path, rates = self.design.path, self.backbone.rates
        if self.design.walk == "apart":
            for t in path.values:
                noise = self._noise(names, t, z0)
                z_t = add_noise(z0, noise, rates(t))
                yield t, self.look(z_t, t, context, read, need_noise=need_noise), noise
            return
        noise, z_t = self._noise(names, path.values[0], z0), z0
        z_t = add_noise(z0, noise, rates(path.values[0]))
        for t, following in zip(path.values, [*path.values[1:], None], strict=True):
            walks_on = following is not None
            look = self.look(z_t, t, context, read, need_noise=need_noise or walks_on)
            yield t, look, (z_t - rates(t).signal * z0) / rates(t).noise
            if following is not None:
                assert look.predicted is not None
                e = look.predicted.mean(dim=0)
                sigma = ddim_sigma(rates(t), rates(following), path.eta)
                fresh = self._noise(names, following, z0) if sigma > 0 else None
                z_t = ddim_step(tweedie(z_t, e, rates(t)), e, rates(following), sigma, fresh)

    def look(self, z_t: Tensor, t: int, context: Context, read: Read, *, need_noise: bool) -> Look:
        """One pass over noisy latents ``(B, C, h, w)``, a copy of them for each prompt.

        Args:
            z_t: noisy latents.
            t: timestep, 0 to 999.
            context: of P prompts, ``(P, ...)``.
            read: see `latentiqa.genziqa.attention.read_attention`.
            need_noise: without it the pass is cut after the last layer that is read.
        """
        backbone, batch = self.backbone, len(z_t)
        prompts = len(next(iter(context.values())))
        own = {k: v.to(backbone.device).repeat_interleave(batch, 0) for k, v in context.items()}
        copies = z_t.repeat(prompts, 1, 1, 1)
        output, seen = read_attention(
            backbone.denoiser,
            self.layers,
            lambda: backbone.denoise(copies.to(backbone.dtype), t, own),
            read,
            need_output=need_noise,
        )
        if output is None:
            return Look(seen, None)
        noise = backbone.process.noise(output.to(z_t.dtype), copies, t)
        return Look(seen, noise.float().unflatten(0, (prompts, batch)))

    def token_weights(self, encoded: Encoded) -> Tensor:
        """How much each token counts, ``(P, K)`` that sum to 1 over K."""
        masked = encoded.context.get("encoder_attention_mask") is not None
        counted = encoded.text.float()
        if self.design.tokens == "all" and not masked:
            width = encoded.context["encoder_hidden_states"].shape[1]
            counted = torch.ones(len(counted), width, device=counted.device)
        return counted / counted.sum(dim=1, keepdim=True)

    @property
    def layer_weights(self) -> Tensor:
        """How much each layer counts, ``(L,)`` that sum to 1."""
        if self.layer_logits is not None:
            return self.layer_logits.softmax(dim=0)
        return torch.full((len(self.layers),), 1 / max(1, len(self.layers)), device=self.device)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.backbone.device

    def parameter_counts(self) -> dict[str, int]:
        """Number of parameters of each part that is trained."""
        counts = {"denoiser": trained_parameters(self.backbone.denoiser)}
        if self.context is not None:
            counts["context"] = trained_parameters(self.context)
        if self.layer_logits is not None:
            counts["layers"] = self.layer_logits.numel()
        return counts

    def _pool(self, encoded: Encoded, batch: int) -> Read:
        weights = self.token_weights(encoded).repeat_interleave(batch, 0)
        return partial(_pooled_mean, sharpness=self.design.sharpness, weights=weights)

    def _score(self, look: Look, noise: Tensor, score: str) -> Tensor:
        # Of what a score does not read there is nothing.
        nothing = noise.new_empty(0)
        read = [look.read[layer].unflatten(0, (2, -1)) for layer in self.layers]
        attention = torch.stack(read) if read else nothing
        predicted = nothing if look.predicted is None else look.predicted
        with torch.autocast(noise.device.type, enabled=False):
            seen = Seen(attention, noise.float(), predicted)
            return SCORES[score](seen, self.layer_weights) / PER_SCORE

    def _noise(self, names: Sequence[str], t: int, z0: Tensor) -> Tensor:
        return image_noise(names, t, z0.shape[1:], seed=self.seed, device=z0.device, dtype=z0.dtype)


def _pooled_mean(query: Tensor, key: Tensor, sharpness: float, weights: Tensor) -> Tensor:
    """Pooled logits, their mean over heads and the weighted tokens, ``(B,)``."""
    return (pooled(query, key, sharpness).mean(dim=1) * weights).sum(dim=1)
