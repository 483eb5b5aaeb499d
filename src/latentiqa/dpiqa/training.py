"""The training of DP-IQA's teacher (Fu et al., section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from latentiqa.training import recipe


@dataclass(frozen=True)
class Recipe(recipe.Recipe):
    """The paper's values, milestones as for KonIQ-10k; see `latentiqa.training.recipe.Recipe`."""

    epochs: int = 30
    lr: float = 1e-5
    milestones: Sequence[int] = (5,)
    patience: int = 30
