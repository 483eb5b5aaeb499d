"""torchmetrics classes over `latentiqa.metrics.functional`, right under distributed evaluation.

A distributed sampler pads the last round by repeating images. Each class therefore takes the index
of every sample, gathers (pred, target, index) from all ranks and counts each index once.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from latentiqa.metrics import functional


class PairMetric(Metric, ABC):
    """A function of all (pred, target) pairs of an evaluation, each sample counted once.

    Subclasses name the function. Scores are kept in float32 whatever the model's precision.

    Example:
        >>> metric = SRCC()
        >>> metric.update(torch.tensor([0.1, 0.3, 0.2]), torch.arange(3.0), torch.tensor([0, 1, 2]))
        >>> metric.update(torch.tensor([0.1]), torch.tensor([0.0]), torch.tensor([0]))  # padding
        >>> metric.compute()
        tensor(0.5000)
    """

    is_differentiable = False
    full_state_update = False
    function: Callable[[Any, Any], float]

    pred: list[Tensor]
    target: list[Tensor]
    index: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for state in ("pred", "target", "index"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, pred: Tensor, target: Tensor, index: Tensor) -> None:
        """Add a batch.

        Args:
            pred: (B,) predicted scores.
            target: (B,) human scores mapped to [0, 1].
            index: (B,) int64 position of each sample in its manifest.
        """
        self.pred.append(pred.detach().float())
        self.target.append(target.detach().float())
        self.index.append(index)

    def compute(self) -> Tensor:
        """The value over all ranks, duplicate indices dropped.

        Raises:
            DataError: see the function; raised for too few samples and for ``nan`` predictions.
        """
        _, first = np.unique(dim_zero_cat(self.index).cpu().numpy(), return_index=True)
        pred = dim_zero_cat(self.pred).cpu().numpy()[first]
        target = dim_zero_cat(self.target).cpu().numpy()[first]
        return torch.tensor(type(self).function(pred, target), device=self.device)


class SRCC(PairMetric):
    """`functional.srcc` of all samples.

    Example:
        >>> metric = SRCC()
        >>> metric.update(torch.tensor([0.1, 0.2, 0.9]), torch.arange(3.0), torch.arange(3))
        >>> metric.compute()
        tensor(1.)
    """

    higher_is_better = True
    function = staticmethod(functional.srcc)


class KRCC(PairMetric):
    """`functional.krcc` of all samples.

    Example:
        >>> metric = KRCC()
        >>> metric.update(torch.tensor([0.9, 0.2, 0.1]), torch.arange(3.0), torch.arange(3))
        >>> metric.compute()
        tensor(-1.)
    """

    higher_is_better = True
    function = staticmethod(functional.krcc)


class PLCC(PairMetric):
    """`functional.plcc` of all samples.

    Example:
        >>> metric = PLCC()
        >>> metric.update(torch.tensor([0.0, 0.5, 1.0]), torch.arange(3.0), torch.arange(3))
        >>> metric.compute()
        tensor(1.)
    """

    higher_is_better = True
    function = staticmethod(functional.plcc)


class LogisticPLCC(PairMetric):
    """`functional.plcc_logistic` of all samples.

    Example:
        >>> metric = LogisticPLCC()
        >>> pred = torch.linspace(-1, 1, 50)
        >>> metric.update(pred, torch.sigmoid(5 * pred), torch.arange(50))
        >>> metric.compute()
        tensor(1.)
    """

    higher_is_better = True
    function = staticmethod(functional.plcc_logistic)


class RMSE(PairMetric):
    """`functional.rmse` of all samples.

    Example:
        >>> metric = RMSE()
        >>> metric.update(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.5]), torch.arange(2))
        >>> metric.compute()
        tensor(0.5000)
    """

    higher_is_better = False
    function = staticmethod(functional.rmse)
