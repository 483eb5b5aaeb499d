"""What finished runs and stored features are found by: it stays as it is when options are added."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from command_line import composed
from omegaconf import DictConfig

from latentiqa.commands.launch import build
from latentiqa.commands.parts import plain
from latentiqa.hyperfeatures.extraction import open_store
from latentiqa.methods.lgdm import LGDM
from latentiqa.runs import signature

SIGNATURES = {
    "demo": "9bd122f14709",
    "lgdm_biq2021": "4e52a1a6480f",
    "lgdm_tiny": "70ea9811dc54",
    "lgdm_tiny_256_pmg": "e4427f5f37c9",
    "psi_efficientnet": "633ea261e063",
    "tiny_scorer": "282156ec58f5",
}
HEADS = {"mlp": "f20356e6a4e0", "linear": "3670fbccb51e"}
"""Of the demo with another head, from before these heads had a choice of losses."""
STORES = {"lgdm_tiny": "51d27965b991", "lgdm_tiny_256_pmg": "06f226d005a6"}


def recipe(experiment: str, *more: str) -> DictConfig:
    # A dataset is known by its content, and a path must be there.
    dataset = ["dataset=csv", "dataset.path=scores.csv"]
    return composed("train", f"experiment={experiment}", *dataset, "+choices={}", *more)


@pytest.mark.parametrize("experiment", SIGNATURES)
def test_signatures_of_runs(experiment):
    values = plain(recipe(experiment))
    assert signature(values, dataset="d", split="s") == SIGNATURES[experiment]


@pytest.mark.parametrize("head", HEADS)
def test_signatures_of_runs_with_heads_that_are_trained(head):
    values = plain(recipe("demo", f"head={head}"))
    assert signature(values, dataset="d", split="s") == HEADS[head]
    values = plain(recipe("demo", f"head={head}", "+head.losses.fidelity=0.5"))
    assert signature(values, dataset="d", split="s") != HEADS[head]


@pytest.mark.parametrize("experiment", STORES)
def test_addresses_of_features(experiment, tmp_path):
    config = recipe(experiment)
    backbone = SimpleNamespace(expand=list, identity="weights", dtype=torch.float32)
    parts = (build(config[key]) for key in ("timesteps", "layers", "guidance"))
    lgdm = LGDM(backbone, *parts, prompt=config.prompt, seed=config.seed)
    assert open_store(tmp_path, lgdm, build(config.views)).key == STORES[experiment]
