"""From features to a score: heads that are fitted in seconds on pooled features.

All share one interface, `Head`: `fit` chooses on validation, `predict` is differentiable in the
features, `save_head` and `load_head` keep a fitted head as safetensors and JSON.
"""

from __future__ import annotations

from latentiqa.heads.base import Head
from latentiqa.heads.identity import IdentityHead
from latentiqa.heads.mlp import MLPHead
from latentiqa.heads.pooled import PooledHead
from latentiqa.heads.quadratic import QuadraticRidgeHead
from latentiqa.heads.ridge import RidgeHead
from latentiqa.heads.saving import load_head, save_head

__all__ = [
    "Head",
    "IdentityHead",
    "MLPHead",
    "PooledHead",
    "QuadraticRidgeHead",
    "RidgeHead",
    "load_head",
    "save_head",
]
