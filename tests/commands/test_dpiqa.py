"""`latentiqa train method=dpiqa`: a method that is trained keeps all that the others promise."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from command_line import Outcome, on_csv, places, succeed, type_in
from miniatures import write_csv, write_image

import latentiqa

PASSES = 2
AN_EPOCH = 3  # 12 pictures of training, four a step


@pytest.fixture(scope="module")
def teacher(micro_folder, scores_csv) -> list[str]:
    return [
        *("method=dpiqa", "backbone=folder", f"backbone.source={micro_folder}"),
        *("backbone.resolution=64", "method.teacher.prompts=learnt", "method.teacher.learnt=5"),
        *("method.teacher.side=8", "method.teacher.width=16", "method.teacher.narrowing=[4]"),
        *("method.training.batch_size=4", f"method.training.passes={PASSES}"),
        *("method.training.epochs=3", "method.training.lr=1e-3", "method.training.milestones=[1]"),
        "method.training.checkpoint_every=1",
        *on_csv(scores_csv),
    ]


@pytest.fixture(scope="module")
def dpiqa(teacher, tmp_path_factory) -> Outcome:
    return succeed("train", *teacher, *places(tmp_path_factory.mktemp("dpiqa")))


def curve(outcome: Outcome) -> list[tuple[str, ...]]:
    """What each leg logged, steps of no leg twice where only those that were kept count."""
    rows: dict[tuple[str, str], tuple[str, ...]] = {}
    logs = outcome.folder / "logs"
    legs = sorted(logs.glob("metrics-leg*.csv"), key=lambda path: int(path.stem.split("leg")[1]))
    for path in [*legs, logs / "metrics.csv"]:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                for name in ("train/mse", "val/srcc"):
                    if row.get(name):
                        rows[row["step"], name] = (row["step"], name, row[name])
    return list(rows.values())


def test_a_run_is_like_any_other(dpiqa, teacher, nothing_loaded):
    results = dpiqa.results
    assert results["features"] == "dpiqa"
    assert results["n_features"] == 1
    assert results["n"] == {"train": 12, "val": 6, "test": 6}
    assert results["fit"]["steps"] == 3 * AN_EPOCH
    assert results["fit"]["best_step"] in (AN_EPOCH, 2 * AN_EPOCH, 3 * AN_EPOCH)
    assert results["stores"]["dpiqa"]["extracted"] == 6 + 6  # none of what it was trained on
    assert results["config"]["layers"] is results["config"]["head"] is None
    validated = [float(value) for _, name, value in curve(dpiqa) if name == "val/srcc"]
    assert len(validated) == 3
    assert results["metrics"]["val"]["srcc"] == pytest.approx(max(validated), abs=1e-6)
    assert {row["part"] for row in dpiqa.predictions()} == {"test"}
    assert not (dpiqa.folder / "checkpoints").exists()
    again = succeed("train", *teacher, *places(dpiqa.folder.parents[1]))
    assert again.results_path == dpiqa.results_path


def test_a_picture_is_encoded_once(teacher, tmp_path, monkeypatch):
    from latentiqa.dpiqa.teacher import Teacher

    asked, encode = [], Teacher.encode

    def counting(self, image, names):
        asked.extend(names)
        return encode(self, image, names)

    monkeypatch.setattr(Teacher, "encode", counting)
    monkeypatch.setattr("latentiqa.methods.rated.Rated.compute", lambda *_: pytest.fail("enough"))
    with pytest.raises(pytest.fail.Exception, match="enough"):
        type_in("train", *teacher, *places(tmp_path))
    assert len(asked) == len(set(asked)) == 12 + 6


def test_it_scores_in_the_precision_of_its_training(teacher, tmp_path, scores_csv):
    outcome = succeed("train", *teacher, *places(tmp_path), "method.training.precision=bf16-mixed")
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    metric = latentiqa.load_metric(outcome.folder)
    (rated,) = metric.scorer.extractors
    assert rated.recipe()["precision"] == "bf16-mixed"
    with torch.no_grad():
        scores, names = metric(pictures), ["0", "1"]
        full = rated.rater(pictures, names)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = rated.rater(pictures, names)
        drawn, quality = rated.both(pictures, names)
    assert scores.dtype == quality.dtype == torch.float32
    assert torch.equal(scores, mixed)
    assert torch.equal(drawn, mixed)
    assert not torch.equal(scores, full)
    torch.testing.assert_close(scores, full, rtol=0.05, atol=0.05)


def test_it_scores_as_it_was_tested(dpiqa, scores_csv):
    rows = dpiqa.predictions()
    names = [row["name"] for row in rows]
    scores = latentiqa.score([scores_csv.parent / name for name in names], run=dpiqa.folder)
    assert scores == pytest.approx([float(row["pred"]) for row in rows], abs=1e-5)
    metric = latentiqa.load_metric(dpiqa.folder, differentiable=True)
    assert repr(metric).startswith("Metric(DP-IQA on folder; trained on 18 photos of scores")
    image = torch.rand(2, 3, 48, 80, requires_grad=True)
    metric(image).sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0
    folder = scores_csv.parent
    outcome = succeed("score", str(folder), f"run={dpiqa.folder}", "output=null")
    assert len(outcome.out.splitlines()) == 24


def test_it_is_evaluated_elsewhere(dpiqa, tmp_path):
    table = write_csv(tmp_path / "others", 5)
    for i in range(5):
        write_image(tmp_path / "others" / f"p{i}.png", seed=100 + i)
    outcome = succeed("evaluate", f"run={dpiqa.folder}", *on_csv(table), *places(tmp_path))
    assert outcome.results["metrics"]["test"]["n"] == 5


@pytest.mark.parametrize(
    "batch", [PASSES * AN_EPOCH + 3, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 5, 6))]
)
def test_a_killed_training_goes_on_to_the_same_numbers(
    batch, dpiqa, teacher, tmp_path, monkeypatch
):
    """Killed after so many passes: within a step, at one's end, at an epoch's end, in the next."""
    from latentiqa.training.module import RaterTraining

    step, passes = RaterTraining.training_step, []

    def killed(self, *args):
        passes.append(args)
        if len(passes) > batch:
            raise RuntimeError("killed")
        return step(self, *args)

    monkeypatch.setattr(RaterTraining, "training_step", killed)
    outcome = type_in("train", *teacher, *places(tmp_path))
    assert outcome.status == 1
    assert "killed" in outcome.err
    monkeypatch.setattr(RaterTraining, "training_step", step)
    resumed = succeed("train", *teacher, *places(tmp_path))
    assert "going on from" in resumed.err
    assert curve(resumed) == curve(dpiqa)
    assert resumed.results["metrics"] == dpiqa.results["metrics"]
    assert resumed.results["fit"]["best_step"] == dpiqa.results["fit"]["best_step"]
    weights = [run.folder / "teacher" / "teacher.safetensors" for run in (resumed, dpiqa)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_finished_training_is_not_repeated(dpiqa, teacher, tmp_path, monkeypatch):
    """Killed between training and testing."""
    home = tmp_path / "runs" / dpiqa.folder.name
    home.mkdir(parents=True)
    (dpiqa.folder / "teacher").rename(home / "teacher")
    try:
        monkeypatch.setattr("lightning.Trainer.fit", None)
        again = succeed("train", *teacher, *places(tmp_path))
    finally:
        (home / "teacher").rename(dpiqa.folder / "teacher")
    assert again.results["metrics"] == dpiqa.results["metrics"]
    assert again.results["fit"]["best_step"] == dpiqa.results["fit"]["best_step"]


def test_training_sees_no_picture_of_the_test_part(dpiqa, teacher, tmp_path, monkeypatch):
    from latentiqa.data import datamodule

    seen: set[str] = set()
    read = datamodule.read_image

    def spied(path, *args):
        if not list(tmp_path.glob("runs/*/teacher/teacher.json")):
            seen.add(path.name)
        return read(path, *args)

    monkeypatch.setattr(datamodule, "read_image", spied)
    outcome = succeed("train", *teacher, *places(tmp_path), "fast_dev_run=true")
    split = json.loads((outcome.folder / "split.json").read_text())
    assert set(split["val"]) <= seen <= {*split["train"], *split["val"]}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["features=nss"], "method=dpiqa with features=nss: it gives the scores itself"),
        (["method.teacher.prompts=x"], "prompts='x': expected one of"),
        (["method.training.losses.mse=-1"], "expected weights >= 0"),
        (["method.training.lr=x"], "lr=x: expected a positive number"),
    ],
    ids=str,
)
def test_wrong_values_are_explained_before_anything_is_loaded(
    wrong, told, teacher, nothing_loaded, tmp_path
):
    outcome = type_in("train", *teacher, *places(tmp_path), *wrong)
    assert outcome.status == 1
    assert told in " ".join(outcome.err.split())
    assert "Traceback" not in outcome.err


def test_extract_has_nothing_to_extract(teacher, tmp_path):
    outcome = type_in("extract", *teacher, *places(tmp_path))
    assert outcome.status == 1
    assert "method=dpiqa is trained before it is run" in outcome.err
