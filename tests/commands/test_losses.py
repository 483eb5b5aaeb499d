"""The loss of pairs by config, in each method that is trained."""

from __future__ import annotations

import pytest
from command_line import on_csv, places, succeed

from latentiqa import losses

NET = "{model_type:convnext,hidden_sizes:[8,8,16,16],depths:[1,1,1,1]}"
METHODS = {
    "dpiqa": [
        *("train", "method=dpiqa", "method.teacher.prompts=none", "method.teacher.side=8"),
        *("method.teacher.width=16", "method.teacher.narrowing=[4]"),
        *("method.training.batch_size=4", "+method.training.losses.fidelity=0.5"),
    ],
    "genziqa": [
        *("train", "method=genziqa", "method.rater.tuning=none", "method.rater.context=2"),
        *("method.rater.timesteps=[9]", "method.training.batch_size=4"),
        "+method.training.losses.fidelity=0.5",
    ],
    "student": [
        *("distill", "teacher=null", "student=convnext", "student.trunk.source=null"),
        *(f"student.trunk.config={NET}", "student.width=8", "student.channels=4"),
        *("student.side=8", "method.resolution=64", "training.batch_size=4", "terms.score=0.0"),
        "+training.losses.fidelity=0.5",
    ],
    "head": [
        *("train", "guidance=none", "timesteps.values=[20]", "head=mlp", "head.hidden=[4]"),
        "+head.losses.fidelity=0.5",
    ],
}


@pytest.mark.parametrize("method", METHODS)
def test_fidelity_is_a_loss_of_each_method(method, scores_csv, micro_folder, tmp_path, monkeypatch):
    seen = []

    def watched(pred, target):
        seen.append(len(pred))
        return losses.fidelity(pred, target)

    monkeypatch.setitem(losses.LOSSES, "fidelity", watched)
    backbone = ["backbone=folder", f"backbone.source={micro_folder}", "backbone.resolution=64"]
    verb, *options = METHODS[method]
    outcome = succeed(
        *(verb, *options, *(backbone if method != "student" else [])),
        *("fast_dev_run=true", *on_csv(scores_csv), *places(tmp_path)),
    )
    config = outcome.results["config"]
    match method:
        case "head":
            recipe = config["head"]
        case "student":
            recipe = config["training"]
        case _:
            recipe = config["method"]["training"]
    assert recipe["losses"].keys() == {"mse", "fidelity"}
    assert seen
    assert min(seen) > 1  # pairs
