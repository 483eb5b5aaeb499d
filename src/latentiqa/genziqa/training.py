"""The training of GenzIQA (De et al., section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from latentiqa.training import recipe


@dataclass(frozen=True)
class Recipe(recipe.Recipe):
    """The paper's values; see `latentiqa.training.recipe.Recipe`.

    The paper's squared error is of scores from 0 to 100, which counts where the gradient is cut:
    of those from 0 to 1, which are trained here, it is 100^2 times theirs.
    """

    weight_decay: float = 0.01
    clip: float | None = 1.0
    losses: Mapping[str, float] = field(default_factory=lambda: {"mse": 1e4})
