"""The group `views`, mirrored copies and the limit on pixels, through whole commands."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from command_line import Outcome, composed, on_csv, places, succeed, type_in
from miniatures import write_csv, write_image
from omegaconf import OmegaConf

import latentiqa
from latentiqa.commands.trained import PACKAGED
from latentiqa.data.images import read_image
from latentiqa.runs import read_json

CROPS = ["views=grid_crops", "views.crops=2"]


@pytest.fixture(scope="module")
def crops(options) -> Outcome:
    return succeed("train", *options, *CROPS)


@pytest.fixture(scope="module")
def flips(options, crops) -> Outcome:
    """The same on mirrored copies too, after it."""
    return succeed("train", *options, *CROPS, "data.flips=true")


def stored(house: Path, outcome: Outcome) -> dict[str, list[str]]:
    """Suffixes of the keys in a run's store by the picture's name."""
    found: dict[str, list[str]] = {}
    for path in (house / "store" / outcome.results["store_key"]).glob("*.json"):
        if path.name != "recipe.json":
            for key in json.loads(path.read_text())["images"]:
                name, _, suffix = key.split(":", 1)[1].partition("#")
                found.setdefault(name, []).append(suffix)
    return {name: sorted(suffixes) for name, suffixes in found.items()}


def scores_of(run: Outcome, folder: Path, tmp_path: Path) -> dict[str, float]:
    """What `latentiqa score` says, by file name."""
    table = tmp_path / "scores.csv"
    succeed("score", str(folder), f"run={run.folder}", f"output={table}")
    with table.open(newline="") as file:
        return {Path(row["name"]).name: float(row["score"]) for row in csv.DictReader(file)}


def predictions(outcome: Outcome) -> dict[str, float]:
    return {row["name"]: float(row["pred"]) for row in outcome.predictions()}


def test_results_tell_what_is_seen_at_test_time(crops, flips):
    seen = {"class": "GridCrops", "size": 64, "crops": 2, "short_side": None}
    assert crops.results["views"] == flips.results["views"] == seen
    assert crops.results["config"]["views"]["size"] == 64
    assert crops.results["config"]["choices"]["views"] == "grid_crops"
    assert crops.results["config"]["data"]["flips"] is False
    assert flips.results["config"]["data"]["flips"] is True


def test_only_training_pictures_are_mirrored_and_nothing_else_is_extracted_again(
    crops, flips, house
):
    assert crops.results["store_key"] == flips.results["store_key"]
    assert (crops.results["extracted"], flips.results["extracted"]) == (24, 12)
    split = json.loads((flips.folder / "split.json").read_text())
    keys = stored(house, flips)
    assert all(keys[name] == ["0", "1"] for part in ("val", "test") for name in split[part])
    mirrored = ["0", "0#mirrored", "1", "1#mirrored"]
    assert all(keys[name] == mirrored for name in split["train"])
    assert predictions(crops) != predictions(flips)


def test_a_score_is_the_mean_over_the_crops(flips, scores_csv, tmp_path):
    metric, found = latentiqa.load_metric(flips.folder), predictions(flips)
    for name, pred in list(found.items())[:3]:
        image = read_image(scores_csv.parent / name)
        by_hand = [
            metric.scorer(crop[None], [f"{name}#{number}"]).item()
            for number, crop in enumerate(metric.views(image, name))
        ]
        assert len(set(by_hand)) == 2
        assert pred == pytest.approx(sum(by_hand) / 2, rel=1e-4)
    scores = scores_of(flips, scores_csv.parent, tmp_path)
    assert {name: scores[name] for name in found} == pytest.approx(found, rel=1e-4)


def test_evaluate_averages_and_does_not_mirror(flips, options, house):
    own = [o for o in options if not o.startswith(("backbone", "timesteps", "guidance"))]
    again = succeed("evaluate", f"run={flips.folder}", *own, "part=test")
    assert again.results["extracted"] == 0
    assert again.results["views"] == flips.results["views"]
    assert again.results["metrics"]["test"] == flips.results["metrics"]["test"]


def test_extract_takes_the_mirrored_copies_of_train(micro, scores_csv, tmp_path):
    few = [*micro, *on_csv(scores_csv), *places(tmp_path), "guidance=none", "limit=3"]
    succeed("extract", *few, "data.flips=true")
    outcome = succeed("train", *few, "data.flips=true")
    assert outcome.results["extracted"] == 0
    keys = stored(tmp_path, outcome)
    split = json.loads((outcome.folder / "split.json").read_text())
    assert {name for name, suffixes in keys.items() if suffixes == ["", "mirrored"]} == {
        *split["train"]
    }
    assert {name for name, suffixes in keys.items() if suffixes == [""]} == {
        *split["val"],
        *split["test"],
    }


@pytest.fixture(scope="module")
def shapes_csv(tmp_path_factory) -> Path:
    """Pictures of several shapes and their scores."""
    table = write_csv(tmp_path_factory.mktemp("shapes"), 16)
    for i, size in enumerate([(150, 70), (150, 70), (66, 140), (70, 66)] * 4):
        write_image(table.parent / f"p{i}.png", 50 + i, size)
    return table


@pytest.mark.parametrize(
    ("own", "seen"),
    [
        (["views=short_side", "guidance=pmg"], {"class": "ShortSide", "size": 64, "multiple": 64}),
        (["views=whole", "guidance=none", "features=nss"], {"class": "Whole", "multiple": 64}),
    ],
    ids=["short_side", "whole"],
)
def test_pictures_need_not_be_square(own, seen, micro, shapes_csv, tmp_path):
    outcome = succeed("train", *micro, *on_csv(shapes_csv), *places(tmp_path), *own)
    assert outcome.results["views"] == seen
    assert outcome.results["extracted"] == 16 * len(outcome.results["stores"])
    # A single view has the picture's plain key.
    assert set(map(tuple, stored(tmp_path, outcome).values())) == {("",)}
    scores, found = scores_of(outcome, shapes_csv.parent, tmp_path), predictions(outcome)
    assert {name: scores[name] for name in found} == pytest.approx(found, rel=1e-4)
    assert len(set(scores.values())) == 16


def test_the_limit_on_pixels_is_one_key_everywhere(micro, scores_csv, trained, tmp_path):
    """The pictures have 24 x 16 pixels."""
    dataset = on_csv(scores_csv)
    photo = write_image(tmp_path / "photos" / "a.png")
    synthetic = [f"dataset.root={photo.parent}", f"dataset.output={tmp_path / 'made'}"]
    commands = {
        "pretrain": [*dataset, *places(tmp_path)],
        "assess": [*micro[:3], *dataset, *places(tmp_path)[:1], f"input={photo}"],
        "split": ["dataset=synthetic", *synthetic, f"paths.splits={tmp_path}"],
        "train": [*micro, *dataset, *places(tmp_path)],
        "extract": [*micro, *dataset, *places(tmp_path)],
        "evaluate": [f"run={trained.folder}", *dataset, *places(tmp_path), "part=test"],
        "score": [str(scores_csv.parent / "p3.png"), f"run={trained.folder}", "output=null"],
        "doctor": dataset[:2],
    }
    for verb, words in commands.items():
        outcome = type_in(verb, *words, "data.max_pixels=383")
        assert outcome.status == 1, verb
        said = " ".join((outcome.out + outcome.err).split())
        assert "refused: 24 x 16 pixels; more than 383 pixels are taken for a decompress" in said
        assert "data.max_pixels" in said
        refused = type_in(verb, *words, "data.max_pixels=0")
        assert "data.max_pixels=0: expected an integer >= 1" in refused.err, verb
    for verb in ("score", "doctor"):
        assert type_in(verb, *commands[verb], "data.max_pixels=384").status == 0


def test_a_run_without_views_is_told(trained, scores_csv, tmp_path):
    copy = shutil.copytree(trained.folder, tmp_path / "copy")
    results = trained.results
    del results["config"]["views"]
    (copy / "results.json").write_text(json.dumps(results))
    outcome = type_in("score", str(scores_csv.parent / "p3.png"), f"run={copy}", "output=null")
    assert outcome.status == 1
    assert "views=null: expected one of the choices in conf/views/" in outcome.err


def test_the_config_of_the_packages_scorer_is_what_its_recipe_gives():
    config = composed("train", "experiment=tiny_scorer_quadratic")
    recipe = OmegaConf.to_container(config, resolve=True)
    assert isinstance(recipe, dict)
    results = read_json(PACKAGED / "lgdm" / "results.json")
    for key in ("method", "views", "data", "pooling", "timesteps", "layers", "features", "head"):
        assert results["config"][key] == recipe[key], key
    assert results["config"]["choices"]["views"] == "square"
    assert results["views"] == {"class": "Square", "size": 512}


def test_the_packages_scorer_scores_as_it_did_when_it_was_shipped():
    image = torch.rand(2, 3, 300, 200, generator=torch.Generator().manual_seed(0))
    scores = latentiqa.load_metric("lgdm")(image)
    assert scores.tolist() == pytest.approx([0.507324, 0.488812], abs=1e-4)
    scores = latentiqa.load_metric("student")(image)
    assert scores.tolist() == pytest.approx([0.434170, 0.420040], abs=1e-3)
