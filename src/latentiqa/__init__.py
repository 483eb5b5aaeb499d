"""No-reference image quality from the features of frozen latent diffusion models.

`score` rates pictures; `load_metric` gives the scorer as a module, `Metric`.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentiqa.metric import Metric, load_metric, score

__all__ = ["Metric", "load_metric", "score"]
__version__ = version("latentiqa")


def __getattr__(name: str) -> Any:
    """Import what needs PyTorch when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from latentiqa import metric

    return getattr(metric, name)


def __dir__() -> list[str]:
    """All names, for completion."""
    return sorted({*globals(), *__all__})
