"""`latentiqa train method=genziqa`: trained, and zero-shot."""

from __future__ import annotations

import csv
import json
import shutil

import pytest
import torch
from command_line import Outcome, on_csv, places, succeed, type_in
from miniatures import write_csv, write_image
from PIL import Image
from safetensors.torch import load_file

import latentiqa

RATER = "method.rater"
ZERO_SHOT = [f"{RATER}.context=0", f"{RATER}.tuning=none"]


@pytest.fixture(scope="module")
def rater(micro_folder, scores_csv) -> list[str]:
    return [
        *("method=genziqa", "backbone=folder", f"backbone.source={micro_folder}"),
        *("backbone.resolution=64", f"{RATER}.timesteps=[9,45]", f"{RATER}.context=4"),
        *("method.training.batch_size=4", "method.training.epochs=2", "method.training.lr=1e-2"),
        "method.training.checkpoint_every=1",
        *on_csv(scores_csv),
    ]


@pytest.fixture(scope="module")
def genziqa(rater, tmp_path_factory) -> Outcome:
    return succeed("train", *rater, *places(tmp_path_factory.mktemp("genziqa")))


@pytest.fixture(scope="module")
def zero_shot(rater, tmp_path_factory) -> Outcome:
    options = [*rater, *ZERO_SHOT, f"{RATER}.score=loss"]
    return succeed("train", *options, *places(tmp_path_factory.mktemp("zero_shot")))


def test_a_run_is_like_any_other(genziqa, rater, nothing_loaded):
    results = genziqa.results
    assert results["features"] == "genziqa"
    assert results["zero_shot"] is False
    assert results["fit"]["steps"] == 6
    assert results["fit"]["parameters"].keys() == {"denoiser", "context"}
    assert results["config"]["layers"] is results["config"]["head"] is None
    weights = load_file(genziqa.folder / "rater" / "rater.safetensors")
    assert sum(w.numel() for w in weights.values()) == sum(results["fit"]["parameters"].values())
    assert all("lora" in name or name == "context.vectors" for name in weights)
    again = succeed("train", *rater, *places(genziqa.folder.parents[1]))
    assert again.results_path == genziqa.results_path


def test_it_scores_as_it_was_tested(genziqa, scores_csv):
    rows = genziqa.predictions()
    paths = [scores_csv.parent / row["name"] for row in rows]
    scores = latentiqa.score(paths, run=genziqa.folder)
    assert scores == pytest.approx([float(row["pred"]) for row in rows], abs=1e-5)
    metric = latentiqa.load_metric(genziqa.folder, differentiable=True)
    assert repr(metric).startswith("Metric(GenzIQA on folder; trained on 18 photos of scores")
    image = torch.rand(2, 3, 48, 80, requires_grad=True)
    metric(image).sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


def test_a_killed_training_goes_on_to_the_same_numbers(genziqa, rater, tmp_path, monkeypatch):
    from latentiqa.training.module import RaterTraining

    step, passes = RaterTraining.training_step, []

    def killed(self, *args):
        passes.append(args)
        if len(passes) > 4:
            raise RuntimeError("killed")
        return step(self, *args)

    monkeypatch.setattr(RaterTraining, "training_step", killed)
    assert type_in("train", *rater, *places(tmp_path)).status == 1
    monkeypatch.setattr(RaterTraining, "training_step", step)
    resumed = succeed("train", *rater, *places(tmp_path))
    assert "going on from" in resumed.err
    assert resumed.results["metrics"] == genziqa.results["metrics"]
    weights = [run.folder / "rater" / "rater.safetensors" for run in (resumed, genziqa)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_zero_shot_scores_are_of_nobody_s_training(zero_shot, scores_csv, tmp_path, monkeypatch):
    results = zero_shot.results
    assert results["zero_shot"] is True
    assert "parameters" not in results["fit"]
    assert not (zero_shot.folder / "rater").exists()
    assert not json.loads((zero_shot.folder / "head" / "head.json").read_text())["meta"][
        "seen_images"
    ]
    metric = latentiqa.load_metric(zero_shot.folder)
    assert "trained on no rated photos" in repr(metric)
    # Its own training part is as good a test as any other.
    everywhere = succeed(
        "evaluate", f"run={zero_shot.folder}", *on_csv(scores_csv), *places(tmp_path)
    )
    assert everywhere.results["metrics"]["test"]["n"] == 24


def test_both_are_evaluated_elsewhere_and_listed_side_by_side(genziqa, zero_shot, tmp_path):
    table = write_csv(tmp_path / "others", 5)
    for i in range(5):
        write_image(tmp_path / "others" / f"p{i}.png", seed=100 + i)
    found = [
        succeed("evaluate", f"run={run.folder}", *on_csv(table), *places(tmp_path)).results_path
        for run in (genziqa, zero_shot)
    ]
    runs = [str(path) for path in [*found, genziqa.results_path, zero_shot.results_path]]
    listed = succeed("report", *runs, "view=matrix", f"output={tmp_path / 'matrix.csv'}")
    lines = (tmp_path / "matrix.csv").read_text().splitlines()
    assert listed.status == 0
    assert lines[0].startswith("Run,Trained on,")
    rows = [line.split(",") for line in lines if line.startswith("genziqa")]
    assert sorted(row[1] for row in rows) == sorted([genziqa.results["dataset"], "–"])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["features=nss"], "method=genziqa with features=nss: it gives the scores itself"),
        ([f"{RATER}.score=x"], "score='x': expected one of"),
        (["method.training.clip=0.0"], "clip=0.0: expected a positive number"),
        (["method.training.weight_decay=-1.0"], "weight_decay=-1.0: expected a number >= 0"),
    ],
    ids=str,
)
def test_wrong_values_are_explained_before_anything_is_loaded(
    wrong, told, rater, nothing_loaded, tmp_path
):
    outcome = type_in("train", *rater, *places(tmp_path), *wrong)
    assert outcome.status == 1
    assert told in " ".join(outcome.err.split())
    assert "Traceback" not in outcome.err


def test_scores_are_explained(genziqa, scores_csv, tmp_path):
    same = shutil.copy(scores_csv.parent / "p0.png", tmp_path / "p0.png")
    paths = [scores_csv.parent / "p0.png", same]
    table = tmp_path / "scores.csv"
    options = [f"run={genziqa.folder}", f"output={table}"]
    told = ["explain=true", f"explanations={tmp_path / 'why'}"]
    succeed("score", *map(str, paths), *options, *told)
    with table.open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert list(rows[str(paths[0])])[:3] == ["name", "score", "sharpness"]
    expected = latentiqa.score(paths, run=genziqa.folder)
    assert [float(rows[str(p)]["score"]) for p in paths] == pytest.approx(expected, abs=1e-6)
    for path, folder in zip(paths, ("p0.png", "p0.png-2"), strict=True):
        own = tmp_path / "why" / folder
        assert 0 < float(rows[str(path)]["noise"]) < 1
        for figure in ("summary", "difference", "good", "bad"):
            with Image.open(own / f"{figure}.png") as image:
                assert min(image.size) > 100
        maps = load_file(own / "maps.safetensors")
        assert {key.split("/")[0] for key in maps} == {"good", "bad"}
        # Two timesteps of ten layers, and the mean.
        assert len(maps) == 2 * (2 * 10 + 1)
        assert maps["bad/45/mid.attn.0"].shape == (1, 1)
        assert maps["bad/mean"].shape == (8, 8)


def trained(outcome: Outcome) -> dict[str, torch.Tensor]:
    return load_file(outcome.folder / "rater" / "rater.safetensors")


def test_gradients_are_cut_and_pictures_flipped_as_the_paper_does(genziqa, rater, tmp_path):
    """Both reach the training: seen by the weights, as all else is the same."""
    weights = trained(genziqa)
    flipped = succeed("train", *rater, "data.flips=true", *places(tmp_path))
    assert flipped.results["fit"]["steps"] == genziqa.results["fit"]["steps"]
    seen = trained(flipped)
    assert not any(torch.equal(weights[name], one) for name, one in seen.items())
    # AdamW divides by the gradient's size, until that is far below its epsilon of 1e-8.
    cut = ["method.training.clip=1e-12", "method.training.weight_decay=0"]
    still = trained(succeed("train", *rater, *cut, *places(tmp_path)))
    added = [name for name in weights if "lora_B" in name]  # begins at 0
    assert all(still[name].abs().max() < 1e-5 for name in added)
    assert all(weights[name].abs().max() > 1e-3 for name in added)


def test_attributes_of_ones_own_are_told_by_a_finished_run(genziqa, scores_csv, tmp_path):
    table = tmp_path / "scores.csv"
    typed = ["score", str(scores_csv.parent / "p0.png"), f"run={genziqa.folder}", "explain=true"]
    typed += [f"output={table}", f"explanations={tmp_path}"]
    succeed(*typed, "attributes={colour: [Colourful photo., Dull photo.]}")
    with table.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert list(row) == ["name", "score", "colour"]
    assert 0 < float(row["colour"]) < 1
    unexplained = [key for key in typed if key != "explain=true"]
    outcome = type_in(*unexplained, "attributes={colour: [Colourful photo., Dull photo.]}")
    assert "only explain=true shows them" in outcome.err
    for wrong, told in (("5", "expected pairs of words by name"), ("{a: 5}", "attributes.a=5")):
        outcome = type_in(*typed, f"attributes={wrong}")
        assert outcome.status == 1
        assert told in " ".join(outcome.err.split())


def test_what_has_no_attention_is_not_explained(zero_shot, micro_run, scores_csv, tmp_path):
    for run, told in (
        (zero_shot.folder, "explain=true of a run with score=loss: it reads no attention"),
        (micro_run, "explain=true with a run of LGDM on folder"),
    ):
        outcome = type_in(
            *("score", str(scores_csv.parent), f"run={run}", "explain=true"),
            *("output=null", f"explanations={tmp_path}"),
        )
        assert outcome.status == 1
        assert told in " ".join(outcome.err.split())
