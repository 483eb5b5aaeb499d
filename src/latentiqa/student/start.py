"""Where a student begins: as a ridge regression of what its trunk sees before it is trained."""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch
from torch import Tensor

from latentiqa.data.datamodule import RatedModule
from latentiqa.heads.ridge import RidgeHead
from latentiqa.student.network import Regression, Student
from latentiqa.student.training import Terms
from latentiqa.training.module import stacks


def begin(student: Student, pictures: RatedModule, terms: Terms) -> dict[str, Any]:
    """Fit the regression of a student with score=pooled, before all of it is trained.

    A head that begins at random first spoils the maps that it is given (Kumar et al., "Fine-tuning
    can distort pretrained features and underperform out-of-distribution", ICLR 2022): linear
    probing, then fine-tuning. Its targets are those that the terms' squared errors have in common:
    the mean of human score and teacher's, weighted. Strength is chosen on validation, which is not
    fitted on.

    Args:
        student: on the device to compute on.
        pictures: each of the training part is seen once.
        terms: of the training to come.

    Returns:
        ``alpha`` and ``val_srcc``.

    Raises:
        DataError: fewer than three pictures of a part, or scores are constant.
    """
    passes = -(-len(pictures.train) // pictures.batch_size)
    x, y = _features(student, islice(pictures.train_dataloader(), passes), terms)
    x_val, y_val = _features(student, pictures.val_dataloader(), Terms())
    ridge = RidgeHead(refit=False)
    report = ridge.fit(x, y, x_val, y_val)
    assert isinstance(student.regress, Regression)
    student.regress.begin(ridge)
    return {key: report[key] for key in ("alpha", "val_srcc")}


@torch.no_grad()
def _features(student: Student, batches: Any, terms: Terms) -> tuple[Tensor, Tensor]:
    device = next(student.parameters()).device
    features, targets = [], []
    for batch in batches:
        features += [student.features(image.to(device)) for image, _ in stacks(batch)]
        targets.append(_target(batch, terms))
    x, y = torch.cat(features), torch.cat(targets).to(device)
    known = y.isfinite()
    return x[known], y[known]


def _target(batch: dict[str, Any], terms: Terms) -> Tensor:
    """``(B,)``, NaN of a picture without any."""
    human, weights = batch["target"], terms.mos * batch["target"].isfinite()
    total = weights * human.nan_to_num()
    if "teacher" in batch and terms.score:
        total, weights = total + terms.score * batch["teacher"], weights + terms.score
    return total / weights
