"""Features of the picture itself, pooled from a psi: no diffusion at all.

The yardsticks that hyperfeatures have to beat, and what goes beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from latentiqa.methods.base import FeatureExtractor
from latentiqa.perceptual import PooledPsi
from latentiqa.recipe import recipe_of


class PsiFeatures(FeatureExtractor):
    """Pooled features of a psi.

    Args:
        name: begins the names of the features.
        psi: what sees the picture.
        pooling: how a psi's maps become features, see `latentiqa.hyperfeatures.pooling.POOLINGS`;
            a psi without maps has statistics of its own.

    Raises:
        ConfigError: the pooling is not known.

    Example:
        >>> import torch
        >>> from latentiqa.perceptual.nss import NSS
        >>> features = PsiFeatures("nss", NSS()).hyperfeatures(torch.rand(1, 3, 32, 32), ["a.png"])
        >>> {name: tuple(value.shape) for name, value in features.items()}
        {'nss/scale0': (1, 20), 'nss/scale1': (1, 20)}
    """

    def __init__(self, name: str, psi: PooledPsi, pooling: str = "mean") -> None:
        super().__init__(name, pooling)
        self.psi = psi

    @property
    def widths(self) -> dict[str, int]:
        """Every feature's name, ``<name>/<the psi's own>``, and its length."""
        return {f"{self.name}/{key}": width for key, width in self.psi.widths(self.pooling).items()}

    def recipe(self) -> dict[str, Any]:
        """The psi; nothing of a diffusion model, so that features are shared by all of them."""
        return {"method": "psi", "psi": recipe_of(self.psi)}

    def compute(self, image: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """The psi's statistics; names of pictures do not matter."""
        statistics = self.psi.statistics(image, self.pooling)
        return {f"{self.name}/{key}": value for key, value in statistics.items()}
