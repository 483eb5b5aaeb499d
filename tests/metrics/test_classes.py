from __future__ import annotations

import pytest
import torch
from torchmetrics import MetricCollection

from latentiqa.errors import DataError
from latentiqa.metrics import functional
from latentiqa.metrics.classes import KRCC, PLCC, RMSE, SRCC, LogisticPLCC

CLASSES = [
    (SRCC, functional.srcc),
    (KRCC, functional.krcc),
    (PLCC, functional.plcc),
    (LogisticPLCC, functional.plcc_logistic),
    (RMSE, functional.rmse),
]


@pytest.fixture
def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pred = torch.rand(23, generator=generator)
    return pred, (pred + 0.5 * torch.rand(23, generator=generator)) / 1.5


@pytest.mark.parametrize(("cls", "function"), CLASSES)
def test_batches_in_any_order_give_the_function_of_all(cls, function, pairs):
    pred, target = pairs
    metric = cls()
    for index in torch.randperm(23, generator=torch.Generator().manual_seed(1)).split(5):
        metric.update(pred[index], target[index], index)
    assert metric.compute().item() == pytest.approx(function(pred, target), abs=1e-6)


@pytest.mark.parametrize(("cls", "function"), CLASSES)
def test_padding_by_repetition_does_not_count(cls, function, pairs):
    pred, target = pairs
    metric = cls()
    index = torch.cat([torch.arange(23), torch.tensor([0, 0, 0, 5])])
    metric.update(pred[index], target[index], index)
    assert metric.compute().item() == pytest.approx(function(pred, target), abs=1e-6)
    assert metric.compute().item() != pytest.approx(function(pred[index], target[index]), abs=1e-4)


@pytest.mark.parametrize(("cls", "function"), CLASSES)
def test_states_gathered_from_two_ranks_are_merged(cls, function, pairs):
    """What a process group hands over: one tensor a state from each rank, padding included."""
    pred, target = pairs
    ranks = [torch.arange(0, 24, 2), torch.cat([torch.arange(1, 23, 2), torch.tensor([0])])]
    other = [pred[ranks[1]], target[ranks[1]], ranks[1]]

    def gather(local, group=None):
        return [local, other.pop(0)]

    metric = cls(dist_sync_fn=gather, distributed_available_fn=lambda: True)
    metric.update(pred[ranks[0]], target[ranks[0]], ranks[0])
    assert metric.compute().item() == pytest.approx(function(pred, target), abs=1e-6)


def test_bfloat16_scores_are_kept_in_float32():
    metric = RMSE()
    pred = torch.tensor([0.5, 0.25], dtype=torch.bfloat16, requires_grad=True)
    metric.update(pred, torch.tensor([0.1001, 0.7]), torch.arange(2))
    expected = functional.rmse([0.5, 0.25], torch.tensor([0.1001, 0.7]))
    assert metric.compute().item() == pytest.approx(expected, abs=1e-6)
    assert metric.compute().dtype == torch.float32


def test_reset_forgets(pairs):
    pred, target = pairs
    metric = SRCC()
    metric.update(-pred, target, torch.arange(23))
    metric.reset()
    metric.update(pred, target, torch.arange(23))
    assert metric.compute().item() == pytest.approx(functional.srcc(pred, target), abs=1e-6)


def test_a_collection_shares_the_states(pairs):
    pred, target = pairs
    collection = MetricCollection([cls() for cls, _ in CLASSES])
    collection.update(pred, target, torch.arange(23))
    values = collection.compute()
    for cls, function in CLASSES:
        assert values[cls.__name__].item() == pytest.approx(function(pred, target), abs=1e-6)


def test_too_few_samples_is_an_error_in_words():
    metric = SRCC()
    metric.update(torch.rand(4), torch.rand(4), torch.tensor([7, 7, 7, 8]))
    with pytest.raises(DataError, match="2 pairs"):
        metric.compute()
