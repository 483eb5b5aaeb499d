"""LGDM: latent guidance in diffusion models for perceptual evaluations (Saini et al., ICML 2025).

image -> latent -> guided trajectory -> taps -> pooling -> hyperfeatures
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from latentiqa.backbones.addresses import Layers
from latentiqa.backbones.ldm import LatentDiffusion
from latentiqa.guidance import Guidance, NoGuidance
from latentiqa.hyperfeatures.pooling import pool_all, pooled_widths
from latentiqa.methods.base import FeatureExtractor
from latentiqa.recipe import recipe_of
from latentiqa.trajectory import Timesteps, trajectory


class LGDM(FeatureExtractor):
    """Hyperfeatures of a frozen latent diffusion model.

    Args:
        backbone: the frozen model.
        timesteps: the trajectory, and where features are read.
        layers: the layers that are tapped.
        guidance: what corrects each step.
        pooling: how maps become features, see `latentiqa.hyperfeatures.pooling.POOLINGS`.
        prompt: conditions the denoiser; empty by default, without classifier-free guidance.
        seed: seeds each picture's noise, together with its name and the timestep.

    Raises:
        ConfigError: a layer pattern or the pooling is not known.

    Example:
        >>> import torch
        >>> from latentiqa.backbones.source import BackboneSource
        >>> backbone = BackboneSource("control", "tiny_random", resolution=64).load()
        >>> lgdm = LGDM(backbone, Timesteps([50, 10]), Layers(["mid.*"]))
        >>> features = lgdm.hyperfeatures(torch.rand(2, 3, 64, 64), ["a.png", "b.png"])
        >>> list(features)[0], features["50/mid.resnet.0/mean"].shape
        ('50/mid.resnet.0/mean', torch.Size([2, 128]))
    """

    def __init__(
        self,
        backbone: LatentDiffusion,
        timesteps: Timesteps,
        layers: Layers,
        guidance: Guidance | None = None,
        pooling: str = "mean",
        prompt: str = "",
        seed: int = 0,
    ) -> None:
        super().__init__("lgdm", pooling)
        self.backbone = backbone
        self.timesteps = timesteps
        self.taps = backbone.expand(layers.patterns)
        self.guidance: Guidance = guidance or NoGuidance()
        self.prompt = prompt
        self.seed = seed

    @property
    def widths(self) -> dict[str, int]:
        """Every hyperfeature's name, ``<timestep>/<layer>/<statistic>``, and its length."""
        channels = {
            f"{t}/{layer}": self.backbone.channels(layer)
            for t in self.timesteps.used
            for layer in self.taps
        }
        return pooled_widths(channels, self.pooling)

    @property
    def differentiable(self) -> bool:
        """Only without guidance: a correction is itself a gradient."""
        return isinstance(self.guidance, NoGuidance)

    def recipe(self) -> dict[str, Any]:
        """All that changes the value of a hyperfeature, layers and statistics apart.

        Those only select; the trajectory changes the values even at timesteps that are not used.
        """
        # Named where they matter only: what was stored before there was a choice stays valid.
        rare: dict[str, Any] = {} if self.timesteps.noised else {"noised": False}
        last = self.timesteps.used[-1]
        if last != self.timesteps.values[-1] and self.guidance.passes(last) > 1:
            # A trajectory that ends there makes one pass of it, not several.
            rare["until"] = last
        return rare | {
            "method": "lgdm",
            "backbone": self.backbone.identity,
            "dtype": str(self.backbone.dtype).removeprefix("torch."),
            "timesteps": list(self.timesteps.values),
            "eta": self.timesteps.eta,
            "guidance": recipe_of(self.guidance),
            "prompt": self.prompt,
            "seed": self.seed,
        }

    def compute(self, image: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Pooled maps over layers and timesteps of the guided trajectory.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1].
            names: the pictures' names; they seed the noise.

        Returns:
            ``<timestep>/<layer>/<statistic>`` -> ``(B, C)`` float32.

        Raises:
            ConfigError: the sides are not what the backbone can halve.
        """
        self.backbone.check_sides(image)
        features: dict[str, Tensor] = {}
        for t, maps in trajectory(
            self.backbone,
            self.backbone.encode(image),
            self.timesteps,
            names=names,
            context=self.backbone.context(self.prompt, len(image)),
            taps=self.taps,
            guide=self.guidance.bind(image, self.backbone),
            through_unet=self.guidance.through_unet,
            passes=self.guidance.passes,
            seed=self.seed,
        ):
            if t in self.timesteps.used:
                named = {f"{t}/{layer}": value for layer, value in maps.items()}
                features |= pool_all(named, self.pooling)
        return features
