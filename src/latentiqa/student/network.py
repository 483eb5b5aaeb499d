"""The student: a trunk, and from its maps a score and a map of quality."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentiqa.errors import ConfigError, check_integer
from latentiqa.heads.ridge import RidgeHead
from latentiqa.hyperfeatures.pooling import pool, pooled_widths
from latentiqa.student.trunks import Trunk
from latentiqa.training.rater import Rater, trained_parameters

SCORES = ("pooled", "map")

MIDDLE = 0.5
"""Of the scale, where scores begin."""


@dataclass(frozen=True)
class Design:
    """What a student is made of.

    Args:
        trunk: what it sees with.
        score: a linear regression of ``pooled`` maps, which begins as a ridge (`begin`); or an MLP
            of the pixels of the ``map`` of quality, as the paper's student.
        pooling: of each map with score=pooled, see `latentiqa.hyperfeatures.pooling.POOLINGS`.
        width: of both hidden layers with score=map.
        channels: of the map of quality; those of the teacher's.
        side: of the map of quality in pixels.
        batch_statistics: batch norm trains its statistics, and normalises by those of the pass.
            False leaves those of pretraining, which small batches would spoil; a network that
            begins at random needs true.

    Raises:
        ConfigError: a value is outside its range.
    """

    trunk: Trunk
    score: str = "pooled"
    pooling: str = "mean_std"
    width: int = 512
    channels: int = 8
    side: int = 64
    batch_statistics: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.trunk, Trunk):
            raise ConfigError(
                f"student.trunk={self.trunk!r}: expected a LiteTrunk or a TransformersTrunk."
            )
        if self.score not in SCORES:
            raise ConfigError(f"student.score={self.score!r}: expected {' or '.join(SCORES)}.")
        pooled_widths({}, self.pooling)
        for key in ("width", "channels", "side"):
            check_integer(f"student.{key}", getattr(self, key), 1)
        if not isinstance(self.batch_statistics, bool):
            raise ConfigError(
                f"student.batch_statistics={self.batch_statistics!r}: expected true or false."
            )

    @property
    def is_trained(self) -> bool:
        """Always: its head begins at random."""
        return True

    @property
    def begins_as_ridge(self) -> bool:
        """Of maps that stay what they are when training begins, see `latentiqa.student.start`."""
        return self.score == "pooled" and not self.batch_statistics


class QualityMap(nn.Module):
    """F_student: a transposed convolution, and nearest neighbours up to the teacher's size.

    Args:
        before: channels of the trunk's map.
        channels: of the map of quality.
        side: every map is brought to a square of this side.

    Example:
        >>> QualityMap(32, channels=8, side=64)(torch.rand(2, 32, 5, 7)).shape
        torch.Size([2, 8, 64, 64])
    """

    def __init__(self, before: int, channels: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.draw = nn.ConvTranspose2d(before, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, channels, side, side)``, nowhere below 0, of ``(B, before, h, w)``."""
        return F.interpolate(F.relu(self.draw(x)), size=(self.side, self.side))


class Regression(nn.Module):
    """``w . (x - mean) / (scale sqrt(F)) + b`` of F features.

    The root makes one step of Adam move a score about as far however many features there are.

    Args:
        features: their number F.

    Example:
        >>> Regression(5)(torch.rand(2, 5)).shape
        torch.Size([2, 1])
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.linear = nn.Linear(features, 1)
        nn.init.constant_(self.linear.bias, MIDDLE)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 1)`` of ``(B, F)``."""
        return self.linear((x - self.mean) / (self.scale * math.sqrt(x.shape[1])))

    @torch.no_grad()
    def begin(self, ridge: RidgeHead) -> None:
        """Compute from now on what a fitted ridge computes."""
        self.mean.copy_(ridge.standardise.mean)
        self.scale.copy_(ridge.standardise.scale)
        self.linear.weight.copy_(ridge.weight * math.sqrt(len(ridge.weight)))
        self.linear.bias.fill_(ridge.bias)


class Student(Rater):
    """A small network that scores (Fu et al., arXiv 2405.19996, section 3.4, and our own head).

    Stochastic depth and dropout of the trunk are off, so that a training that goes on after it was
    killed computes the same.

    Args:
        design: of it.
        seed: of the weights that begin at random.
        quality: it draws a map of quality, too; one whose score is made of that always does.
        architecture: of the trunk of a trained one, whose weights are to be filled in.

    Example:
        >>> from latentiqa.student.trunks import LiteTrunk
        >>> student = Student(Design(LiteTrunk()), quality=True)
        >>> score, quality = student.both(torch.rand(2, 3, 64, 64))
        >>> score.shape, quality.shape
        (torch.Size([2]), torch.Size([2, 8, 64, 64]))
    """

    def __init__(
        self,
        design: Design,
        *,
        seed: int = 0,
        quality: bool = False,
        architecture: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(None, design, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.trunk = design.trunk.build(architecture)
            # Depthwise convolutions: a fifth less time of a training step on a CPU, and a tenth of
            # a score; GPUs like it, too.
            self.trunk.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
            deepest = self.trunk.channels[-1]
            self.quality = None
            if quality or design.score == "map":
                self.quality = QualityMap(deepest, design.channels, design.side)
            self.regress = self._regression()
        self.train(False)

    def _regression(self) -> nn.Module:
        design = self.design
        if design.score == "pooled":
            channels = {str(i): n for i, n in enumerate(self.trunk.channels)}
            return Regression(sum(pooled_widths(channels, design.pooling).values()))
        last = nn.Linear(design.width, 1)
        nn.init.constant_(last.bias, MIDDLE)
        return nn.Sequential(
            *(nn.Linear(design.channels * design.side**2, design.width), nn.ReLU()),
            *(nn.Linear(design.width, design.width), nn.ReLU()),
            last,
        )

    def train(self, mode: bool = True) -> Student:
        """Of the trunk only batch norm is ever in training mode, and only where that is asked for.

        It alone is trained by the mode; see the class.
        """
        super().train(mode)
        self.trunk.eval()
        if mode and self.design.batch_statistics:
            for module in self.trunk.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.train()
        return self

    def forward(self, image: Tensor, names: Sequence[str] = ()) -> Tensor:
        """See `Rater.forward`; names do not matter, and sides are not smaller than the trunk's."""
        maps = self.trunk(image)
        return self._score(maps, self._draw(maps) if self.design.score == "map" else None)

    @property
    def quality_shape(self) -> tuple[int, int, int] | None:
        """See `Rater.quality_shape`."""
        if self.quality is None:
            return None
        return self.design.channels, self.design.side, self.design.side

    def both(self, image: Tensor, names: Sequence[str] = ()) -> tuple[Tensor, Tensor | None]:
        """See `Rater.both`: the map is F_student."""
        maps = self.trunk(image)
        quality = None if self.quality is None else self._draw(maps)
        return self._score(maps, quality), quality

    def features(self, image: Tensor) -> Tensor:
        """Pooled maps ``(B, F)`` float32, of which score=pooled is a regression."""
        return self._pooled(self.trunk(image))

    def parameter_counts(self) -> dict[str, int]:
        """Number of parameters, in one."""
        return {"student": trained_parameters(self)}

    def trained_state(self) -> dict[str, Tensor]:
        """All of it: nothing else has its weights, nor the statistics of batch norm."""
        return self.state_dict()

    def _pooled(self, maps: Sequence[Tensor]) -> Tensor:
        pooled = [pool(one, self.design.pooling) for one in maps]
        return torch.cat([value for one in pooled for value in one.values()], dim=1)

    def _draw(self, maps: Sequence[Tensor]) -> Tensor:
        assert self.quality is not None
        return self.quality(maps[-1])

    def _score(self, maps: Sequence[Tensor], quality: Tensor | None) -> Tensor:
        # Ties of low precision ruin rank correlations.
        with torch.autocast(maps[-1].device.type, enabled=False):
            if self.design.score == "map":
                assert quality is not None
                x = quality.float().flatten(1)
            else:
                x = self._pooled(maps)
            return self.regress(x).squeeze(1)
