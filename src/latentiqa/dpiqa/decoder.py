"""From the U-Net's maps to a map of quality, and from it to a score."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

REDUCTION = 16
"""How many times narrower the inside of a squeeze-and-excitation is."""


class SqueezeExcitation(nn.Module):
    """A gain in (0, 1) for each channel, from all channels' means (Hu et al., CVPR 2018).

    Args:
        channels: C, at least `REDUCTION`.

    Example:
        >>> x = torch.ones(1, 32, 2, 2)
        >>> bool((SqueezeExcitation(32)(x) < x).all())
        True
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = channels // REDUCTION
        self.gains = nn.Sequential(
            nn.Linear(channels, narrow, bias=False),
            nn.ReLU(),
            nn.Linear(narrow, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, h, w)``, each channel times its gain."""
        return x * self.gains(x.mean(dim=(2, 3)))[..., None, None]


class QualityFeatureDecoder(nn.Module):
    """The quality feature decoder (QFD) and the regression after it (Fu et al., section 3.3).

    Each map is brought to one size and width and gated; all of them together are gated once more;
    convolutions of 1 x 1 narrow them to F_quality, which an MLP turns into the score.

    Args:
        channels: of the maps that it takes.
        side: every map is resized to a square of this side, so that pictures of any size and shape
            end in the same number of features.
        width: channels after the 3 x 3 convolutions, and of the MLP's hidden layers.
        narrowing: channels after each 1 x 1 convolution; the last are those of F_quality.

    Example:
        >>> decoder = QualityFeatureDecoder([16, 8], side=4, width=16, narrowing=[8, 2])
        >>> quality = decoder([torch.rand(2, 16, 2, 2), torch.rand(2, 8, 6, 9)])
        >>> quality.shape, decoder.score(quality).shape
        (torch.Size([2, 2, 4, 4]), torch.Size([2]))
    """

    def __init__(
        self,
        channels: Sequence[int],
        side: int = 64,
        width: int = 512,
        narrowing: Sequence[int] = (128, 32, 8),
    ) -> None:
        super().__init__()
        self.side = side
        self.enter = nn.ModuleList(_gated(c, width) for c in channels)
        self.join = _gated(width * len(channels), width)
        layers: list[nn.Module] = []
        for before, after in zip([width, *narrowing], narrowing, strict=False):
            layers += [nn.Conv2d(before, after, 1), nn.ReLU()]
        self.narrow = nn.Sequential(*layers)
        self.regress = nn.Sequential(
            nn.Linear(narrowing[-1] * side**2, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 1),
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """F_quality.

        Args:
            maps: ``(B, C, h, w)`` each, C and their order as told at first.

        Returns:
            ``(B, narrowing[-1], side, side)``, nowhere below 0.
        """
        size = (self.side, self.side)
        resized = [F.interpolate(one, size=size, mode="bicubic") for one in maps]
        entered = [gate(one) for gate, one in zip(self.enter, resized, strict=True)]
        return self.narrow(self.join(torch.cat(entered, dim=1)))

    def score(self, quality: Tensor) -> Tensor:
        """Scores ``(B,)`` of F_quality, float32 even under autocast.

        Ties of low precision ruin rank correlations.
        """
        with torch.autocast(quality.device.type, enabled=False):
            return self.regress(quality.float().flatten(1)).squeeze(1)


def _gated(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), SqueezeExcitation(after))
