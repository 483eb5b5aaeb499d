"""The groups `method` and `features`: psis alone and beside LGDM, each extracted once."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from command_line import Outcome, on_csv, places, succeed, type_in
from miniatures import write_csv, write_image

PSI = ["method=psi", "method.resolution=64", "features=nss"]


@pytest.fixture(scope="module")
def alone(options) -> Outcome:
    """LGDM without anything beside."""
    return succeed("train", *options)


@pytest.fixture(scope="module")
def beside(options, alone) -> Outcome:
    """The same with a psi's features beside, after it."""
    return succeed("train", *options, "features=nss")


@pytest.fixture(scope="module")
def psi(options, beside) -> Outcome:
    """The psi's features alone, after both."""
    return succeed("train", *options, *PSI)


@pytest.fixture
def no_backbone(monkeypatch):
    """Fail the test if a backbone is loaded."""

    def loaded(*_args, **_kwargs):
        raise AssertionError("loads a backbone")

    monkeypatch.setattr("latentiqa.backbones.source.BackboneSource.load", loaded)


def stored(home: Path, key: str) -> set[str]:
    """Names of all features in one store."""
    sidecars = [p for p in (home / "store" / key).glob("*.json") if p.name != "recipe.json"]
    return {name for path in sidecars for name in json.loads(path.read_text())["widths"]}


def extracted(outcome: Outcome) -> dict[str, int]:
    return {name: store["extracted"] for name, store in outcome.results["stores"].items()}


def test_each_source_is_extracted_once_and_shared(alone, beside, psi, house):
    assert extracted(alone) == {"lgdm": 24}
    assert extracted(beside) == {"lgdm": 0, "nss": 24}
    assert extracted(psi) == {"nss": 0}
    assert [outcome.results["extracted"] for outcome in (alone, beside, psi)] == [24, 24, 0]
    keys = {name: store["key"] for name, store in beside.results["stores"].items()}
    assert keys["lgdm"] == alone.results["store_key"] == beside.results["store_key"]
    assert keys["nss"] == psi.results["store_key"] != keys["lgdm"]
    assert stored(house, keys["nss"]) == {"nss/scale0", "nss/scale1"}
    assert all(name.startswith(("60/", "20/")) for name in stored(house, keys["lgdm"]))


def test_features_beside_are_joined_in_the_order_that_the_head_knows(alone, beside, psi):
    outcomes = (alone, psi, beside)
    names = [json.loads((o.folder / "head" / "head.json").read_text()) for o in outcomes]
    of_alone, of_psi, of_both = (name["meta"]["features"] for name in names)
    assert of_both == of_alone + of_psi
    n_alone, n_psi, n_both = (o.results["n_features"] for o in outcomes)
    assert n_psi == 40
    assert n_both == n_alone + n_psi == names[-1]["in_features"]
    predictions = [[row["pred"] for row in outcome.predictions()] for outcome in outcomes]
    assert predictions[0] != predictions[2] != predictions[1]


def test_another_head_extracts_nothing(options, psi, beside, no_backbone):
    again = succeed("train", *options, *PSI, "head=linear", "head.epochs=2")
    assert extracted(again) == {"nss": 0}


def test_another_psi_extracts_only_its_own(options, beside):
    blocks = ["features=nss_efficientnet", "features.efficientnet.blocks=[stem,block.0]"]
    wider = succeed("train", *options, *blocks)
    assert extracted(wider) == {"lgdm": 0, "nss": 0, "efficientnet": 24}
    # Mean and standard deviation of 32 and 16 channels.
    assert wider.results["stores"]["efficientnet"]["n_features"] == 96
    assert wider.results["features"] == "lgdm + nss + efficientnet"


def test_each_has_a_pooling_of_its_own_where_it_is_told(options, beside, house):
    psi = ["features=efficientnet", "features.efficientnet.blocks=[block.0]"]
    pooling = "pooling={lgdm:mean,efficientnet:mean_std_correlation}"
    stores = succeed("train", *options, *psi, pooling).results["stores"]
    assert stores["lgdm"]["extracted"] == 0
    assert stores["lgdm"]["n_features"] < beside.results["stores"]["lgdm"]["n_features"]
    # 16 means and standard deviations, 120 pairs.
    assert stores["efficientnet"]["n_features"] == 152
    names = {f"efficientnet/block.0/{s}" for s in ("mean", "std", "correlation")}
    assert names <= stored(house, stores["efficientnet"]["key"])


def test_a_run_without_diffusion_needs_no_backbone(micro, scores_csv, tmp_path, no_backbone):
    options = [*micro, *on_csv(scores_csv), *places(tmp_path), *PSI]
    outcome = succeed("train", *options)
    results = outcome.results
    assert outcome.folder.name.startswith("psi-")
    assert results["backbone"] is None
    assert results["features"] == "nss"
    assert extracted(outcome) == {"nss": 24}
    assert results["notes"] == []
    config = results["config"]
    unused = ("backbone", "timesteps", "layers", "guidance", "perceptual", "prompt", "seed")
    assert [config[key] for key in unused] == [None] * 7
    assert not set(unused) & config["choices"].keys()
    assert config["choices"]["features"] == "nss"
    assert config["method"] == {"name": "psi", "resolution": 64}


@pytest.mark.parametrize(
    "same",
    [
        ["backbone=sd15"],
        ["timesteps=lgdm"],
        ["layers=all"],
        ["guidance=pmg", "perceptual=nss"],
        ["seed=1", "prompt=sharp"],
    ],
    ids=" ".join,
)
def test_what_only_lgdm_reads_does_not_change_a_psi_run(options, psi, same, nothing_loaded):
    options = [o for o in options if o.partition("=")[0].partition(".")[0] != "backbone"]
    assert succeed("train", *options, *PSI, *same).out == psi.out


def test_latents_alone_need_no_trajectory(options, scores_csv, tmp_path):
    latents = ["method=latents", "features=nss"]
    outcome = succeed("train", *options, *latents)
    results = outcome.results
    assert results["features"] == "latents + nss"
    assert extracted(outcome) == {"latents": 24, "nss": 0}
    assert results["stores"]["latents"]["n_features"] == 2 * 4  # mean_std of 4 channels
    assert results["backbone"].startswith("folder@")
    unused = ("timesteps", "layers", "guidance", "perceptual", "prompt", "seed")
    assert [results["config"][key] for key in unused] == [None] * 6
    assert results["config"]["backbone"]["name"] == "folder"
    same = ["timesteps=lgdm", "layers=all", "guidance=pmg", "seed=1", "prompt=sharp"]
    assert succeed("train", *options, *latents, *same).out == outcome.out
    scored = tmp_path / "scores.csv"
    picture = str(scores_csv.parent / outcome.predictions()[0]["name"])
    told = succeed("score", picture, f"run={outcome.folder}", f"output={scored}")
    assert told.status == 0
    score = float(scored.read_text().rsplit(",", 1)[1])
    assert score == pytest.approx(float(outcome.predictions()[0]["pred"]), rel=1e-4)


@pytest.mark.parametrize(
    "other",
    [
        ["method.resolution=96"],
        ["features.nss.scales=1"],
        ["features=efficientnet"],
        ["pooling=mean"],
        ["views=centre"],
    ],
    ids=" ".join,
)
def test_what_changes_a_psi_run_is_another_run(options, psi, other, nothing_loaded):
    outcome = type_in("train", *options, *PSI, *other)
    assert outcome.status != 0
    assert "touched what must be left alone" in outcome.err


def test_the_resolution_is_the_backbones_unless_it_is_set(options, psi):
    """So that a psi alone and beside LGDM reads the same store."""
    words = [word for word in PSI if not word.startswith("method.resolution")]
    assert succeed("train", *options, *words).out == psi.out


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Pictures that no run has seen, and their table."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(8):
        write_image(folder / f"o{seed}.png", 100 + seed)
    rows = "\n".join(f"o{i}.png,{10 * i}" for i in range(8))
    return write_csv(folder, 0, rows=rows)


@pytest.mark.parametrize("run", ["psi", "beside"])
def test_score_and_evaluate_agree(run, photos, house, tmp_path, request):
    trained: Outcome = request.getfixturevalue(run)
    table = tmp_path / "scores.csv"
    succeed("score", str(photos.parent), f"run={trained.folder}", f"output={table}")
    with table.open(newline="") as file:
        scores = {Path(row["name"]).name: float(row["score"]) for row in csv.DictReader(file)}
    assert len(set(scores.values())) == 8
    evaluated = succeed("evaluate", f"run={trained.folder}", *on_csv(photos), *places(house))
    predictions = {row["name"]: float(row["pred"]) for row in evaluated.predictions("all")}
    assert predictions == pytest.approx(scores, rel=1e-4)
    assert evaluated.results["features"] == trained.results["features"]
    assert evaluated.results["backbone"] == trained.results["backbone"]
    assert evaluated.results["stores"].keys() == trained.results["stores"].keys()
    assert evaluated.results["store_key"] == trained.results["store_key"]


@pytest.mark.parametrize("run", ["psi", "beside"])
def test_scores_are_those_of_the_run(run, scores_csv, tmp_path, request):
    trained: Outcome = request.getfixturevalue(run)
    table = tmp_path / "scores.csv"
    succeed("score", str(scores_csv.parent), f"run={trained.folder}", f"output={table}")
    with table.open(newline="") as file:
        scores = {Path(row["name"]).name: float(row["score"]) for row in csv.DictReader(file)}
    for row in trained.predictions():
        assert scores[row["name"]] == pytest.approx(float(row["pred"]), rel=1e-4)


def test_a_psi_run_scores_without_a_backbone(psi, scores_csv, no_backbone):
    picture = str(scores_csv.parent / "p3.png")
    assert succeed("score", picture, f"run={psi.folder}", "output=null").out.endswith("p3.png\n")


def test_a_head_of_other_features_is_refused(psi, scores_csv, tmp_path):
    copy = shutil.copytree(psi.folder, tmp_path / "copy")
    results = psi.results
    results["config"]["features"]["nss"]["scales"] = 1
    (copy / "results.json").write_text(json.dumps(results))
    outcome = type_in("score", str(scores_csv.parent / "p3.png"), f"run={copy}", "output=null")
    assert outcome.status == 1
    assert "its head was fitted on other features" in outcome.err


def test_extract_fills_every_store_that_train_reads(micro, scores_csv, tmp_path):
    options = [*micro, *on_csv(scores_csv), *places(tmp_path), "guidance=none", "features=nss"]
    folders = [Path(line) for line in succeed("extract", *options).out.splitlines()]
    outcome = succeed("train", *options)
    assert extracted(outcome) == {"lgdm": 0, "nss": 0}
    assert [folder.name for folder in folders] == [
        store["key"] for store in outcome.results["stores"].values()
    ]
    assert all(folder.parent == tmp_path / "store" for folder in folders)


def test_a_table_tells_the_features_apart(alone, beside, psi):
    runs = [str(outcome.results_path) for outcome in (alone, beside, psi)]
    lines = succeed("report", *runs).out.splitlines()
    header, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[:5])
    tables = [dict(zip(header, row, strict=True)) for row in rows]
    assert [row["Features"] for row in tables] == ["lgdm", "lgdm + nss", "nss"]
    assert [row["Backbone"] for row in tables] == ["folder", "folder", "–"]
    assert [row["Guidance"] for row in tables] == ["none", "none", "–"]
