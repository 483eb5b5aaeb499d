"""`latentiqa distill`: what any teacher says is learnt, once, and the run is like any other."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from command_line import Outcome, on_csv, places, succeed, type_in
from miniatures import write_biq2021, write_image

import latentiqa

CONVNEXT = "{model_type:convnext,hidden_sizes:[8,8,16,16],depths:[1,1,1,1]}"

SMALL = [
    *("student=convnext", "student.trunk.source=null", f"student.trunk.config={CONVNEXT}"),
    *("student.width=8", "student.channels=4", "student.side=8", "method.resolution=64"),
    *("training.batch_size=4", "training.epochs=3", "training.lr=1e-3", "training.milestones=[1]"),
    "training.checkpoint_every=1",
]


@pytest.fixture(scope="module")
def teacher(micro_folder, scores_csv, tmp_path_factory) -> Outcome:
    """A run of method=dpiqa, which draws maps of quality."""
    return succeed(
        *("train", "method=dpiqa", "backbone=folder", f"backbone.source={micro_folder}"),
        *("backbone.resolution=64", "method.teacher.prompts=none", "method.teacher.side=8"),
        *("method.teacher.width=16", "method.teacher.narrowing=[4]", "method.training.epochs=1"),
        *("method.training.batch_size=6", *on_csv(scores_csv)),
        *places(tmp_path_factory.mktemp("teacher")),
    )


@pytest.fixture(scope="module")
def more(tmp_path_factory):
    """Pictures without scores."""
    folder = tmp_path_factory.mktemp("more")
    for i in range(4):
        write_image(folder / f"{i}.png", seed=100 + i)
    return folder


@pytest.fixture(scope="module")
def lesson(teacher, scores_csv, more) -> list[str]:
    return [
        *SMALL,
        *(f"teacher={teacher.folder}", "terms.map=1.0", "augment=random_crops"),
        *("augment.size=12", "augment.crops=2", *on_csv(scores_csv)),
        *("dataset@unlabelled=folder", f"unlabelled.root={more}"),
    ]


@pytest.fixture(scope="module")
def distilled(tmp_path_factory):
    return tmp_path_factory.mktemp("distil")


@pytest.fixture(scope="module")
def student(lesson, distilled) -> Outcome:
    return succeed("distill", *lesson, *places(distilled))


def curve(outcome: Outcome) -> dict[tuple[str, str], str]:
    """What was logged at each step, of the last leg that came there."""
    logs = outcome.folder / "logs"
    legs = sorted(logs.glob("metrics-leg*.csv"), key=lambda path: int(path.stem.split("leg")[1]))
    found = {}
    for path in [*legs, logs / "metrics.csv"]:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                found |= {
                    (row["step"], name): value
                    for name, value in row.items()
                    if value and name.startswith(("train/", "val/srcc"))
                }
    return found


def test_a_student_s_run_is_like_any_other(student, lesson, distilled, teacher, nothing_loaded):
    results = student.results
    assert results["features"] == "student"
    assert results["n"] == {"train": 12, "val": 6, "test": 6}
    fit = results["fit"]
    assert fit["pictures"] == {"labelled": 12, "all": 16}
    assert fit["steps"] == 3 * 4
    [told] = fit["teachers"]
    assert told["method"] == "DP-IQA on folder"
    assert told["slope"] > 0
    names = {name for _, name in curve(student)}
    assert names == {"train/mse", "train/teacher/mse", "train/map", "val/srcc"}
    assert {row["part"] for row in student.predictions()} == {"test"}
    again = succeed("distill", *lesson, *places(distilled))
    assert again.results_path == student.results_path


def test_it_scores_as_it_was_tested(student, scores_csv):
    rows = student.predictions()
    paths = [scores_csv.parent / row["name"] for row in rows]
    scores = latentiqa.score(paths, run=student.folder)
    assert scores == pytest.approx([float(row["pred"]) for row in rows], abs=1e-5)
    metric = latentiqa.load_metric(student.folder, differentiable=True)
    assert repr(metric).startswith("Metric(student convnext; trained on 18 photos of scores")
    image = torch.rand(2, 3, 48, 80, requires_grad=True)
    metric(image).sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


def test_it_scores_in_float32_whatever_it_was_trained_in(lesson, tmp_path):
    """As what is exported of it does."""
    outcome = succeed(
        "distill", *lesson, *places(tmp_path), "training.precision=bf16-mixed", "training.epochs=1"
    )
    (rated,) = latentiqa.load_metric(outcome.folder).scorer.extractors
    pictures = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        scores = rated.compute(pictures, ["0", "1"])["student/score"].squeeze(1)
        assert torch.equal(scores, rated.rater(pictures, ["0", "1"]))


@pytest.mark.parametrize("known", [None, -1.0])
def test_the_beginning_is_kept_where_training_makes_nothing_better(
    known, scores_csv, tmp_path, monkeypatch
):
    """Steps too small to change anything; the other beginning is said to be the worst there is."""
    from latentiqa.student import start

    begin = start.begin
    if known is not None:
        monkeypatch.setattr(start, "begin", lambda *args: begin(*args) | {"val_srcc": known})
    alone = ["teacher=null", "terms.score=0.0", "training.lr=1e-12"]
    outcome = succeed("distill", *SMALL, *alone, *on_csv(scores_csv), *places(tmp_path))
    fit = outcome.results["fit"]
    assert fit["steps"] == 9
    assert (fit["best_step"] == 0) == (known is None)
    assert (fit["best_epoch"] == 0) == (known is None)
    assert ("nothing better than the beginning" in outcome.err) == (known is None)
    assert not (outcome.folder / "checkpoints").exists()


def test_teacher_and_student_are_shown_the_same_augmented_picture(
    student, lesson, tmp_path, monkeypatch
):
    from latentiqa.student import teachers, training

    asked: dict[str, torch.Tensor] = {}
    compute, step = teachers.TeacherOutputs.compute, training.StudentTraining.training_step
    shown: dict[str, torch.Tensor] = {}

    def spied(self, image, names):
        asked.update(zip(names, image.clone(), strict=True))
        return compute(self, image, names)

    def stepped(self, batch, *args):
        shown.update(zip(batch["name"], torch.cat(batch["image"]), strict=True))
        return step(self, batch, *args)

    monkeypatch.setattr(teachers.TeacherOutputs, "compute", spied)
    monkeypatch.setattr(training.StudentTraining, "training_step", stepped)
    succeed("distill", *lesson, *places(tmp_path), "training.epochs=1")
    # Two crops of 16 pictures, and their mirrored copies, each asked once; one of each is shown.
    assert len(asked) == 16 * 4
    assert len(shown) == len({name.split("#")[0] for name in shown}) == 16
    assert sum(name.startswith("unlabelled/") for name in asked) == 4 * 4
    from latentiqa.data.views import Square

    for name, picture in shown.items():
        assert asked[name].shape == (3, 12, 12)
        torch.testing.assert_close(Square(64)(asked[name])[0], picture, atol=1e-5, rtol=0)


def test_a_killed_distillation_goes_on_to_the_same_numbers_without_the_teacher(
    student, lesson, tmp_path, monkeypatch
):
    from latentiqa.student.teachers import TeacherOutputs
    from latentiqa.student.training import StudentTraining

    step, passes = StudentTraining.training_step, []

    def killed(self, *args):
        passes.append(args)
        if len(passes) > 6:  # within the second epoch
            raise RuntimeError("killed")
        return step(self, *args)

    monkeypatch.setattr(StudentTraining, "training_step", killed)
    outcome = type_in("distill", *lesson, *places(tmp_path))
    assert outcome.status == 1
    assert "killed" in outcome.err
    monkeypatch.setattr(StudentTraining, "training_step", step)
    monkeypatch.setattr(TeacherOutputs, "compute", None)  # all it says is in the store
    resumed = succeed("distill", *lesson, *places(tmp_path))
    assert "going on from" in resumed.err
    assert curve(resumed) == curve(student)
    assert resumed.results["metrics"] == student.results["metrics"]
    weights = [run.folder / "student" / "student.safetensors" for run in (resumed, student)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.slow
def test_an_ensemble_of_any_runs_teaches_its_mean(student, teacher, trained, scores_csv, tmp_path):
    """A guided LGDM with its head, and a student."""
    outcome = succeed(
        *("distill", *SMALL, *on_csv(scores_csv), *places(tmp_path), "training.epochs=1"),
        f"teacher=[{trained.folder},{student.folder}]",
    )
    told = outcome.results["fit"]["teachers"]
    assert [one["method"] for one in told] == ["LGDM on folder, ridge", "student convnext"]
    assert "the teacher's map of quality is not learnt" in outcome.err


def test_the_scorer_inside_the_package_is_the_default_teacher(embedded, scores_csv, tmp_path):
    outcome = succeed(
        *("distill", *SMALL, *on_csv(scores_csv), *places(tmp_path), "training.epochs=1")
    )
    [told] = outcome.results["fit"]["teachers"]
    assert told["name"] == json.loads((embedded / "results.json").read_text())["name"]


def test_a_teacher_that_knows_the_test_part_is_refused(teacher, scores_csv, tmp_path):
    outcome = type_in(
        *("distill", *SMALL, *on_csv(scores_csv), *places(tmp_path), "split=1"),
        *(f"teacher={teacher.folder}", "fast_dev_run=true"),
    )
    assert outcome.status == 1
    assert "pictures of the test part were in its training or validation part" in outcome.err


def test_a_student_has_seen_what_its_teacher_and_its_unlabelled_pictures_were(student, teacher):
    """The teacher's parts are the student's here, so that four pictures are more."""
    from latentiqa.heads import load_head

    seen, before = (
        set(load_head(run.folder / "head")[1]["seen_images"]) for run in (student, teacher)
    )
    assert before < seen
    assert len(seen - before) == 4
    assert "seen_images" not in student.results["fit"]


def test_unlabelled_pictures_of_the_dataset_are_refused(teacher, scores_csv, tmp_path):
    outcome = type_in(
        *("distill", *SMALL, *on_csv(scores_csv), *places(tmp_path), "fast_dev_run=true"),
        *(f"teacher={teacher.folder}", "dataset@unlabelled=folder"),
        f"unlabelled.root={scores_csv.parent}",
    )
    assert outcome.status == 1
    assert "are the same picture to the byte" in outcome.err


def test_a_map_of_another_shape_is_told(teacher, scores_csv, tmp_path):
    outcome = type_in(
        *("distill", *SMALL, *on_csv(scores_csv), *places(tmp_path), "student.side=16"),
        *(f"teacher={teacher.folder}", "terms.map=1.0"),
    )
    assert outcome.status == 1
    assert "set student.channels=4 and student.side=8" in " ".join(outcome.err.split())


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["teacher=null"], "teacher=null with terms.score=1.0 and terms.map=0.0: set both to 0.0"),
        (["terms.score=0.0"], "nothing is learnt from the teacher; set teacher=null"),
        (["terms.map=1.0"], "terms.map=1.0 with 0 teachers that draw a map of quality: expected"),
        (["terms.mos=x"], "terms.mos='x': expected a weight >= 0"),
        (["teacher=nowhere"], "run=nowhere: no results.json there"),
        (["views=random_crops"], "views with 5 views of a picture: expected one"),
        (["augment.multiple=0"], "views.multiple=0: expected"),
        (["student.score=x"], "student.score='x'"),
        (["training.lr=x"], "lr=x: expected a positive number"),
        (
            ["teacher=null", "terms.score=0.0", "dataset@unlabelled=folder", "unlabelled.root=."],
            "dataset@unlabelled with teacher=null: nothing says what these",
        ),
        (["dataset@unlabelled=folder", "unlabelled.root=nowhere"], "nowhere: no such folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_values_are_explained_before_anything_is_loaded(
    wrong, told, embedded, scores_csv, nothing_loaded, tmp_path, monkeypatch
):
    monkeypatch.chdir(scores_csv.parent)
    outcome = type_in("distill", *SMALL, *on_csv(scores_csv), *places(tmp_path), *wrong)
    assert outcome.status == 1
    assert told in " ".join(outcome.err.split())
    assert "Traceback" not in outcome.err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dpiqa_student", "dpiqa_student_mos", "dpiqa_student_scorer"])
def test_recipes_of_students_run(name, teacher, scores_csv, tmp_path):
    root = write_biq2021(tmp_path / "biq", train=24, test=6)
    own = [] if name == "dpiqa_student_mos" else [f"teacher={teacher.folder}"]
    outcome = succeed(
        *("distill", f"experiment={name}", "debug=fdr", "limit=4", f"dataset.root={root}"),
        *(*own, *SMALL, *places(tmp_path)),
    )
    assert outcome.folder.name.startswith(f"{name}-")
    assert outcome.results["split"] == "official"
    assert len(outcome.results["fit"]["teachers"]) == len(own)
