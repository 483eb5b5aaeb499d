"""From pictures to scores: feature extractors side by side and a head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from latentiqa.errors import ConfigError
from latentiqa.heads import Head
from latentiqa.methods.base import FeatureExtractor


class Scorer(nn.Module):
    """A fitted head's scores of the features of one or more extractors.

    Args:
        extractors: their features are joined in this order, each in the order of its `widths`.
        head: fitted on features in that order.

    Raises:
        ConfigError: there is no extractor.

    Example:
        >>> from latentiqa.heads import RidgeHead
        >>> from latentiqa.methods.psi import PsiFeatures
        >>> from latentiqa.perceptual.nss import NSS
        >>> image, names = torch.rand(8, 3, 32, 32), [f"{i}.png" for i in range(8)]
        >>> nss, head = PsiFeatures("nss", NSS()), RidgeHead()
        >>> x = torch.cat(list(nss.hyperfeatures(image, names).values()), dim=1)
        >>> _ = head.fit(x, torch.rand(8), x, torch.rand(8))
        >>> Scorer([nss], head)(image, names).shape
        torch.Size([8])
    """

    def __init__(self, extractors: Sequence[FeatureExtractor], head: Head) -> None:
        super().__init__()
        if not extractors:
            raise ConfigError("extractors=[]: expected one or more.")
        # Any: PyTorch types what a list of modules holds as a bare module.
        self.extractors: Any = nn.ModuleList(extractors)
        self.head = head

    def forward(self, image: Tensor, names: Sequence[str]) -> Tensor:
        """Scores ``(B,)``, higher is better.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1]; the scores' gradient reaches it through those
                extractors that are differentiable.
            names: the pictures' names.

        Raises:
            DataError: the head is not fitted, or on other features.
            LatentiqaError: a feature is not finite.
        """
        return self.head.predict(self.features(image, names))

    def features(self, image: Tensor, names: Sequence[str]) -> Tensor:
        """What the head takes, ``(B, F)``; see `forward`."""
        columns = []
        for extractor in self.extractors:
            features = extractor.hyperfeatures(image, names)
            columns += [features[name] for name in extractor.widths]
        return torch.cat(columns, dim=1)
