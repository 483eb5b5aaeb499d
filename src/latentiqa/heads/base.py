"""The interface of all heads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from latentiqa.errors import DataError

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger


class Head(nn.Module, ABC):
    """Maps features (N, F) to scores (N,), higher is better.

    Of pictures with K views each, features are (N, K, F): every view of a training picture is an
    example of its own, with the picture's target; a score, on validation too, is the mean over the
    views.

    A fitted head is frozen: `predict` has a gradient with respect to the features alone. It
    computes in float32 or float64 even under autocast, because ties of low precision ruin rank
    correlations.

    A subclass gives `build`, `_fit` and `forward`, and hands its constructor arguments to this one,
    as JSON values, for `save_head`.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.arguments = arguments
        self.in_features: int | None = None

    def fit(
        self,
        x: Tensor,
        y: Tensor,
        x_val: Tensor,
        y_val: Tensor,
        *,
        logger: Logger | Literal[False] | None = None,
        fast_dev_run: bool = False,
    ) -> dict[str, Any]:
        """Fit on training data, choose on validation data.

        Args:
            x: (N, F) or (N, K, F) training features, float32, on the device to fit on.
            y: (N,) training targets in [0, 1], higher is better.
            x_val: (M, F) or (M, K, F) validation features, M >= 3; their K may be another.
            y_val: (M,) validation targets.
            logger: a Lightning logger for the course of the fit; None or False for none.
            fast_dev_run: only one step of those heads that are trained in steps.

        Returns:
            A JSON-able report: ``val_srcc``, ``seconds``, and what was chosen on validation.

        Raises:
            DataError: shapes do not match, a value is not finite, there are fewer than three
                pairs, or the validation SRCC is undefined because scores or targets are constant.
        """
        start = perf_counter()
        _check_pairs("training", x, y)
        _check_pairs("validation", x_val, y_val)
        if x.shape[-1] != x_val.shape[-1]:
            raise DataError(
                f"training has {x.shape[-1]} features an image, validation {x_val.shape[-1]}: "
                "expected the same layers, timesteps and pooling"
            )
        with torch.autocast(x.device.type, enabled=False):
            shown = self._examples(x, y, x_val)
            report = self._fit(*shown, x_val, y_val, logger or None, fast_dev_run)
        self.to(x.device).eval().requires_grad_(False)
        return {**report, "seconds": round(perf_counter() - start, 3)}

    def predict(self, x: Tensor) -> Tensor:
        """Scores (N,) float32 of features (N, F) or (N, K, F), with a gradient to `x`.

        Raises:
            DataError: the head is not fitted, or `x` does not have the features it was fitted on.
        """
        if self.in_features is None:
            raise DataError(f"{type(self).__name__} is not fitted: call fit or load_head first")
        if x.ndim not in (2, 3) or x.shape[-1] != self.in_features:
            raise DataError(
                f"features have shape {tuple(x.shape)}: expected (N, {self.in_features}), "
                f"or (N, K, {self.in_features}) of K views, from the layers, timesteps and pooling "
                "that this head was fitted on"
            )
        self.eval()  # a module around the head may have been put in training mode: no dropout here
        with torch.autocast(x.device.type, enabled=False):
            return averaged(self, x).float()

    def build(self, in_features: int) -> None:
        """Make the tensors for F features, to be filled by a fit or from a file."""
        self.in_features = in_features
        self._build(in_features)

    def _examples(self, x: Tensor, y: Tensor, x_val: Tensor) -> tuple[Tensor, Tensor]:
        """What `_fit` is shown of checked training data, (N', F) and (N',): every view."""
        return examples(x, y)

    @abstractmethod
    def _build(self, in_features: int) -> None:
        """Register parameters and buffers."""

    @abstractmethod
    def _fit(
        self,
        x: Tensor,
        y: Tensor,
        x_val: Tensor,
        y_val: Tensor,
        logger: Logger | None,
        fast_dev_run: bool,
    ) -> dict[str, Any]:
        """Build and fit on checked data; report ``val_srcc`` and the choices.

        Args:
            x: (N, F).
            y: (N,).
            x_val: (M, F) or (M, K, F); its scores are `averaged`.
            y_val: (M,).
            logger: None for none.
            fast_dev_run: see `fit`.
        """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Scores (N,) of features (N, F), in float32 or float64."""


def averaged(score: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What a function says of pictures: the mean of what it says of their views.

    Args:
        score: (N, F) to (N, ...).
        x: (N, F), or (N, K, F) of K views a picture.

    Returns:
        (N, ...).

    Example:
        >>> averaged(lambda x: x.square().sum(dim=1), torch.tensor([[[1.0, 0.0], [2.0, 1.0]]]))
        tensor([3.])
    """
    if x.ndim == 2:
        return score(x)
    return score(x.flatten(0, 1)).unflatten(0, x.shape[:2]).mean(dim=1)


def examples(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Features (N, K, F) and targets (N,) of pictures as those of views, (N K, F) and (N K,)."""
    return (x, y) if x.ndim == 2 else (x.flatten(0, 1), y.repeat_interleave(x.shape[1]))


def _check_pairs(part: str, x: Tensor, y: Tensor) -> None:
    if x.ndim not in (2, 3) or 0 in x.shape[1:] or y.shape != x.shape[:1]:
        raise DataError(
            f"{part} features have shape {tuple(x.shape)} and targets {tuple(y.shape)}: "
            "expected (N, F), or (N, K, F) of K views, and (N,)"
        )
    if len(x) < 3:
        raise DataError(f"{len(x)} {part} images: expected at least 3, use a larger {part} split")
    for name, values in (("features", x), ("targets", y)):
        if bad := int((~torch.isfinite(values.reshape(len(x), -1)).all(dim=1)).sum()):
            raise DataError(
                f"{part} {name} of {bad} of {len(x)} images are not finite: "
                "extract these images again or leave them out"
            )
