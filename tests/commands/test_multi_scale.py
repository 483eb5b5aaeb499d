"""Views at several scales through whole commands, pooled before or after the head."""

from __future__ import annotations

import pytest
import torch
from command_line import Outcome, succeed

import latentiqa

VIEWS = ["views=multi_scale", "views.crops=1", "views.stride=8"]


@pytest.fixture(scope="module")
def after(options) -> Outcome:
    return succeed("train", *options, *VIEWS, "data.flips=true")


@pytest.fixture(scope="module")
def before(options, after) -> Outcome:
    """From the same features, after it."""
    head = ["head=pooled", "head@head.head=quadratic", "head.head.rank=4"]
    return succeed("train", *options, *VIEWS, "data.flips=true", *head)


def test_pooling_before_the_head_needs_no_other_features(before, after):
    seen = {"class": "MultiScale", "size": 64, "crops": 1, "scales": [1.0, 0.75], "stride": 8}
    assert before.results["views"] == after.results["views"] == seen
    assert before.results["store_key"] == after.results["store_key"]
    assert before.results["extracted"] == 0 < after.results["extracted"]
    assert before.results["config"]["choices"]["head"] == "pooled"
    assert before.results["config"]["head"]["head"]["rank"] == 4
    assert before.predictions() != after.predictions()


@pytest.mark.parametrize("pooled", ["before", "after"])
def test_scores_are_those_of_the_test_with_a_gradient(pooled, scores_csv, request):
    run = request.getfixturevalue(pooled)
    rows = run.predictions()
    scores = latentiqa.score([scores_csv.parent / row["name"] for row in rows], run=run.folder)
    assert scores == pytest.approx([float(row["pred"]) for row in rows], abs=1e-4)
    metric = latentiqa.load_metric(run.folder, differentiable=True)
    image = torch.rand(2, 3, 70, 90, requires_grad=True)
    metric(image).sum().backward()
    assert image.grad is not None
    assert (image.grad.abs().amax(dim=(1, 2, 3)) > 0).all()
