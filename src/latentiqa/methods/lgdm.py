"""LGDM: latent guidance in diffusion models for perceptual evaluations (Saini et al., ICML 2025).

image -> latent -> guided trajectory -> taps -> pooling -> hyperfeatures -> head -> score
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

from latentiqa.backbones.addresses import Layers
from latentiqa.backbones.ldm import LatentDiffusion
from latentiqa.errors import ConfigError, LatentiqaError
from latentiqa.guidance import Guidance, NoGuidance
from latentiqa.heads import Head
from latentiqa.hyperfeatures.pooling import pool, statistics_of
from latentiqa.recipe import recipe_of
from latentiqa.trajectory import Timesteps, trajectory


class LGDM(LightningModule):
    """Hyperfeatures of a frozen latent diffusion model, and a head's scores of them.

    Args:
        backbone: the frozen model.
        timesteps: the trajectory, and where features are read.
        layers: the U-Net layers that are tapped.
        guidance: what corrects each step.
        pooling: ``mean`` or ``mean_std`` of each channel.
        prompt: conditions the U-Net; empty by default, without classifier-free guidance.
        seed: seeds each picture's noise, together with its name and the timestep.
        head: maps hyperfeatures to scores; needed for scores only.

    Raises:
        ConfigError: a layer pattern or the pooling is not known.

    Example:
        >>> from latentiqa.backbones.source import BackboneSource
        >>> backbone = BackboneSource("tiny", "tiny", resolution=64).load()
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
        head: Head | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.timesteps = timesteps
        self.taps = backbone.expand(layers.patterns)
        self.guidance: Guidance = guidance or NoGuidance()
        self.pooling = pooling
        self.statistics = statistics_of(pooling)
        self.prompt = prompt
        self.seed = seed
        self.head = head

    @property
    def widths(self) -> dict[str, int]:
        """Every hyperfeature's name, ``<timestep>/<layer>/<statistic>``, and its length."""
        return {
            f"{t}/{layer}/{statistic}": self.backbone.channels(layer)
            for t in self.timesteps.used
            for layer in self.taps
            for statistic in self.statistics
        }

    def recipe(self) -> dict[str, Any]:
        """All that changes the value of a hyperfeature, layers and statistics apart.

        Those only select; the trajectory changes the values even at timesteps that are not used.
        """
        return {
            "method": "lgdm",
            "backbone": self.backbone.identity,
            "dtype": str(self.backbone.dtype).removeprefix("torch."),
            "timesteps": list(self.timesteps.values),
            "eta": self.timesteps.eta,
            "guidance": recipe_of(self.guidance),
            "prompt": self.prompt,
            "seed": self.seed,
        }

    @torch.no_grad()
    def hyperfeatures(self, image: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Pooled U-Net maps over layers and timesteps of the guided trajectory.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1].
            names: the pictures' names; they seed the noise.

        Returns:
            ``<timestep>/<layer>/<statistic>`` -> ``(B, C)`` float32.

        Raises:
            LatentiqaError: a value is not finite.
        """
        if len(names) != len(image):
            raise ConfigError(f"{len(image)} images but {len(names)} names: expected one each.")
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
            seed=self.seed,
        ):
            if t in self.timesteps.used:
                for layer, value in maps.items():
                    for statistic, pooled in pool(value, self.pooling).items():
                        features[f"{t}/{layer}/{statistic}"] = pooled
        self._check_finite(features, names)
        return features

    def forward(self, image: Tensor, names: Sequence[str]) -> Tensor:
        """Scores ``(B,)``, higher is better.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1].
            names: the pictures' names.

        Raises:
            ConfigError: there is no head.
        """
        if self.head is None:
            raise ConfigError("head: scores need a fitted head; give LGDM(..., head=...).")
        features = self.hyperfeatures(image, names)
        return self.head.predict(torch.cat([features[name] for name in self.widths], dim=1))

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """The batch's hyperfeatures."""
        return self.hyperfeatures(batch["image"], batch["name"])

    def _check_finite(self, features: dict[str, Tensor], names: Sequence[str]) -> None:
        finite = torch.stack([value.isfinite().all(dim=1) for value in features.values()]).all(0)
        if not finite.all():
            bad = [name for name, good in zip(names, finite.tolist(), strict=True) if not good]
            raise LatentiqaError(
                f"hyperfeatures of {', '.join(bad[:3])} are not finite; "
                f"try a wider backbone.dtype than {self.backbone.dtype} or smaller weights."
            )
