"""`score`, `evaluate`, `extract`, `doctor`, `report` and the help, with a finished run."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import pytest
from command_line import Outcome, on_csv, places, succeed, type_in
from miniature_datasets import WRITERS
from miniatures import write_biq2021, write_csv, write_image

from latentiqa.commands import VERBS, main
from latentiqa.commands.trained import PACKAGED
from latentiqa.runs import read_json

ODD_NAMES = [
    "plain.png",
    "ss01 (1).png",
    "two  blanks.png",
    "a=b.png",
    "run=x.png",
    "[0].png",
    "it's.png",
    'say "hi".png',
    "comma, and {brace}.png",
    "${oc.env:HOME}.png",
    "back\\slash.png",
    'both \\" and \\${x}.png',
    "50%.png",
    "-dash.png",
    "Übung-夜景.PNG",
    "~home.png",
    "[red]markup.png",
]


@pytest.fixture
def run_of(trained) -> str:
    return f"run={trained.folder}"


def scores_of(table: Path) -> dict[str, float]:
    """Scores by name from a .csv or .json file."""
    if table.suffix == ".json":
        rows = json.loads(table.read_text())["scores"]
    else:
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    return {row["name"]: float(row["score"]) for row in rows}


def test_folders_are_searched_through(run_of, tmp_path):
    for i, name in enumerate(["a.png", "deeper/b.jpg", "deeper/still/c.bmp", ".d.webp"]):
        write_image(tmp_path / "photos" / name, i)
    (tmp_path / "photos" / "notes.txt").write_text("no picture, not asked for")
    table = tmp_path / "out" / "scores.csv"
    outcome = succeed("score", str(tmp_path / "photos"), run_of, f"output={table}")
    assert sorted(Path(name).name for name in scores_of(table)) == [
        ".d.webp",
        "a.png",
        "b.jpg",
        "c.bmp",
    ]
    printed = [line.split("\t") for line in outcome.out.splitlines()]
    assert [float(score) for score, _ in printed] == sorted(
        (round(score, 4) for score in scores_of(table).values()), reverse=True
    )
    assert {name for _, name in printed} == set(scores_of(table))


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_odd_names(run_of, tmp_path, suffix, monkeypatch):
    for i, name in enumerate(ODD_NAMES):
        write_image(tmp_path / "photos" / name, i)
    table = tmp_path / f"scores{suffix}"
    succeed("score", str(tmp_path / "photos"), run_of, f"output={table}")
    in_folder = {Path(name).name: score for name, score in scores_of(table).items()}
    assert in_folder.keys() == set(ODD_NAMES)

    # Each typed by itself, as a shell hands it over; a dash first is every tool's exception.
    typed = [str(tmp_path / "photos" / name) for name in ODD_NAMES]
    succeed("score", *typed, run_of, f"output={table}")
    one_by_one = {Path(name).name: score for name, score in scores_of(table).items()}
    assert one_by_one == pytest.approx(in_folder, rel=1e-5)

    monkeypatch.chdir(tmp_path / "photos")
    here = [name for name in ODD_NAMES if not name.startswith("-")]
    succeed("score", *here, run_of, f"output={table}")
    assert scores_of(table) == pytest.approx({name: in_folder[name] for name in here}, rel=1e-5)


def test_a_score_does_not_depend_on_the_others(run_of, tmp_path):
    for i in range(5):
        write_image(tmp_path / "photos" / f"{i}.png", i, size=(40 + 8 * i, 30))
    table = tmp_path / "scores.csv"
    succeed("score", str(tmp_path / "photos"), run_of, f"output={table}", "batch_size=4")
    together = scores_of(table)
    assert len(set(together.values())) == 5
    for name, score in together.items():
        succeed("score", name, run_of, f"output={table}", "batch_size=1")
        assert scores_of(table) == {name: pytest.approx(score, rel=1e-5)}


def test_scores_are_those_of_the_run(trained, run_of, scores_csv, tmp_path):
    table = tmp_path / "scores.csv"
    succeed("score", str(scores_csv.parent), run_of, f"output={table}")
    scores = {Path(name).name: score for name, score in scores_of(table).items()}
    for row in trained.predictions():
        assert scores[row["name"]] == pytest.approx(float(row["pred"]), rel=1e-4)


def test_the_table_is_sorted_and_complete_without_a_file(run_of, scores_csv, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = succeed("score", str(scores_csv.parent / "p3.png"), run_of, "output=null")
    assert len(outcome.out.splitlines()) == 1
    assert not list(tmp_path.iterdir())
    succeed("score", str(scores_csv.parent / "p3.png"), run_of)
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_unreadable_files_are_listed_and_the_rest_is_scored(run_of, tmp_path, suffix):
    photos = tmp_path / "photos"
    for i in range(3):
        write_image(photos / f"good{i}.png", i)
    (photos / "bad [1].png").write_text("no picture")
    (photos / "empty.jpg").write_bytes(b"")
    table = tmp_path / f"scores{suffix}"
    outcome = type_in("score", str(photos), run_of, f"output={table}")
    assert outcome.status == 1
    assert sorted(Path(name).name for name in scores_of(table)) == [
        f"good{i}.png" for i in range(3)
    ]
    said = outcome.err.replace("\n", "")
    assert "2 of 5 files cannot be read" in " ".join(outcome.err.split())
    assert "bad [1].png: not a picture" in " ".join(said.split())
    assert "empty.jpg" in said
    assert "Traceback" not in outcome.err
    if suffix == ".json":
        unreadable = json.loads(table.read_text())["unreadable"]
        assert {Path(bad["name"]).name for bad in unreadable} == {"bad [1].png", "empty.jpg"}
        assert all(bad["reason"] for bad in unreadable)


def test_a_picture_that_vanishes_while_others_are_scored(run_of, tmp_path, monkeypatch):
    from latentiqa.data import images

    photos = [write_image(tmp_path / "photos" / f"{i}.png", i) for i in range(4)]
    read = images.read_image

    def removed(path, most):
        photos[2].unlink(missing_ok=True)
        return read(path, most)

    monkeypatch.setattr(images, "read_image", removed)
    table = tmp_path / "scores.csv"
    outcome = type_in("score", str(tmp_path / "photos"), run_of, f"output={table}", "batch_size=1")
    assert outcome.status == 1
    assert {Path(name).name for name in scores_of(table)} == {"0.png", "1.png", "3.png"}
    assert "1 of 4 files cannot be read" in outcome.err
    assert "2.png: No such file" in outcome.err


def test_what_stops_it_leaves_the_scores_so_far(run_of, tmp_path, monkeypatch):
    from latentiqa.data import images

    for i in range(4):
        write_image(tmp_path / "photos" / f"{i}.png", i)
    read = images.read_image

    def interrupted(path, most):
        if path.name == "2.png":
            raise KeyboardInterrupt
        return read(path, most)

    monkeypatch.setattr(images, "read_image", interrupted)
    table = tmp_path / "scores.csv"
    with pytest.raises(KeyboardInterrupt):
        type_in("score", str(tmp_path / "photos"), run_of, f"output={table}", "batch_size=1")
    stopped = scores_of(table)
    assert {Path(name).name for name in stopped} == {"0.png", "1.png"}
    monkeypatch.undo()
    succeed("score", str(tmp_path / "photos"), run_of, f"output={table}")
    assert {name: scores_of(table)[name] for name in stopped} == pytest.approx(stopped, rel=1e-4)


def test_a_place_that_cannot_be_written_is_told_first(run_of, tmp_path, nothing_loaded):
    photo = write_image(tmp_path / "a.png", 0)
    (tmp_path / "file").write_text("no folder")
    outcome = type_in("score", str(photo), run_of, f"output={tmp_path / 'file' / 'scores.csv'}")
    assert outcome.status == 1
    assert f"{tmp_path / 'file'}" in outcome.err
    assert "Traceback" not in outcome.err


def test_photos_that_cannot_be_read_are_counted(run_of, tmp_path):
    for name in ("a.png", "b.jfif", "c.avif"):
        write_image(tmp_path / "photos" / name, 0)
    for name in ("d.heic", "e.HEIC", "f.dng", "notes.txt"):
        (tmp_path / "photos" / name).write_bytes(b"not opened")
    outcome = succeed("score", str(tmp_path / "photos"), run_of, "output=null")
    assert len(outcome.out.splitlines()) == 3
    assert "3 photos are left out, which cannot be read (1 .dng, 2 .heic)" in outcome.err


def test_nothing_readable(run_of, tmp_path):
    (tmp_path / "bad.png").write_text("no picture")
    outcome = type_in("score", str(tmp_path / "bad.png"), run_of, "output=null")
    assert outcome.status == 1
    assert "1 of 1 files cannot be read" in " ".join(outcome.err.split())


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["photos", "run=nowhere"], "no results.json there"),
        (["run={run}"], "input is not set"),
        (["photos", "run={run}", "output=scores.xlsx"], "output=scores.xlsx: expected"),
        (["photos", "run={run}", "batch_size=0"], "batch_size=0: expected"),
        (["nowhere.png", "run={run}"], "1 of 1 files cannot be read:"),
        (["empty", "run={run}"], "no pictures there"),
        (["photos", "run={run}", "trainer=gpu"], "no GPU"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_name_the_way_out(wrong, told, trained, scores_csv, tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(scores_csv.parent, tmp_path / "photos")
    (tmp_path / "empty").mkdir()
    outcome = type_in("score", *(word.replace("{run}", str(trained.folder)) for word in wrong))
    assert outcome.status == 1
    assert told in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "scores.csv").exists()


@pytest.mark.parametrize("verb", ["score", "evaluate"])
def test_a_missing_run_is_told_before_pictures_are_read(
    verb, scores_csv, trained, home, tmp_path, nothing_loaded
):
    pictures = {"score": [str(scores_csv.parent)], "evaluate": on_csv(scores_csv)}[verb]
    outcome = type_in(verb, *pictures, f"run={tmp_path}", f"paths.runs={home / 'runs'}")
    assert outcome.status == 1
    assert f"run={tmp_path}: no results.json there" in outcome.err
    assert str(trained.folder) in outcome.err
    assert "latentiqa train experiment=demo" in outcome.err


def test_without_a_run_the_scorer_inside_the_package_is_taken(embedded, scores_csv, tmp_path):
    table = tmp_path / "scores.csv"
    outcome = succeed("score", str(scores_csv.parent), f"output={table}")
    test = json.loads((embedded / "results.json").read_text())["metrics"]["test"]
    assert (
        "embedded scorer: LGDM on folder + nss, ridge; trained on 18 photos of scores "
        f"(seed-0 split); test SRCC {test['srcc']:.3f}, PLCC {test['plcc']:.3f}\n"
    ) in outcome.err
    chosen = tmp_path / "chosen.csv"
    as_any_run = shutil.copytree(embedded, tmp_path / "copy")
    other = succeed("score", str(scores_csv.parent), f"run={as_any_run}", f"output={chosen}")
    assert scores_of(table) == scores_of(chosen)
    assert f"head {as_any_run} trained on 18 photos of scores (" in other.err
    assert "embedded" not in other.err


def test_results_and_head_are_all_that_scoring_reads(embedded, scores_csv, tmp_path, monkeypatch):
    whole = succeed("score", str(scores_csv.parent / "p3.png"), "output=null")
    folder = tmp_path / "scorers" / "student"
    shutil.copytree(embedded / "head", folder / "head")
    shutil.copy(embedded / "results.json", folder)
    monkeypatch.setattr("latentiqa.commands.trained.PACKAGED", folder.parent)
    assert succeed("score", str(scores_csv.parent / "p3.png"), "output=null").out == whole.out


def test_a_package_without_a_scorer_says_so(scores_csv, tmp_path, monkeypatch, nothing_loaded):
    monkeypatch.setattr("latentiqa.commands.trained.PACKAGED", tmp_path / "scorers")
    outcome = type_in("score", str(scores_csv.parent))
    assert outcome.status == 1
    assert "model=student: expected none, which is what this installation carries" in outcome.err
    assert "latentiqa train experiment=demo" in outcome.err
    assert "Traceback" not in outcome.err


def test_a_run_with_an_undefined_correlation_still_scores(trained, scores_csv, tmp_path):
    copy = shutil.copytree(trained.folder, tmp_path / "copy")
    results = trained.results
    results["metrics"]["test"]["srcc"] = None
    (copy / "results.json").write_text(json.dumps(results))
    outcome = succeed("score", str(scores_csv.parent / "p3.png"), f"run={copy}", "output=null")
    assert "Logging error" not in outcome.err
    assert "Traceback" not in outcome.err


def test_a_damaged_head_is_told(trained, scores_csv, tmp_path):
    copy = shutil.copytree(trained.folder, tmp_path / "copy")
    weights = copy / "head" / "head.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    outcome = type_in("score", str(scores_csv.parent / "p3.png"), f"run={copy}", "output=null")
    assert outcome.status == 1
    assert "head.safetensors: damaged" in outcome.err
    assert "Traceback" not in outcome.err


@pytest.fixture(scope="session")
def other_csv(tmp_path_factory) -> Path:
    """Pictures that the run has not seen, on another scale."""
    folder = tmp_path_factory.mktemp("other")
    for seed in range(8):
        write_image(folder / f"o{seed}.png", 100 + seed)
    rows = "\n".join(f"o{i}.png,{10 * i}" for i in range(8))
    return write_csv(folder, 0, rows=rows)


@pytest.fixture(scope="session")
def evaluated(trained, other_csv, home) -> Outcome:
    return succeed("evaluate", *on_evaluate(trained, other_csv, home))


def on_evaluate(trained: Outcome, table: Path, home: Path) -> list[str]:
    return [f"run={trained.folder}", *on_csv(table), *places(home)]


def test_evaluate_on_another_dataset(trained, evaluated, other_csv):
    results = evaluated.results
    assert evaluated.out == f"{evaluated.results_path}\n"
    assert evaluated.folder.parent.parent == trained.folder
    assert results["run"] == trained.results["signature"]
    assert results["metrics"]["test"]["n"] == results["extracted"] == 8
    assert results["store_key"] == trained.results["store_key"]
    assert results.keys() >= {"signature", "git_sha", "versions", "seconds", "peak_memory_mb"}
    rows = evaluated.predictions("all")
    assert sorted(row["name"] for row in rows) == [f"o{i}.png" for i in range(8)]


def test_evaluate_gives_what_score_gives(trained, evaluated, other_csv, tmp_path):
    table = tmp_path / "scores.csv"
    succeed("score", str(other_csv.parent), f"run={trained.folder}", f"output={table}")
    scores = {Path(name).name: score for name, score in scores_of(table).items()}
    predictions = {row["name"]: float(row["pred"]) for row in evaluated.predictions("all")}
    assert predictions == pytest.approx(scores, rel=1e-4)


def test_evaluate_with_the_packages_own_scorer_writes_beside_the_runs(other_csv, tmp_path):
    done = succeed("evaluate", *on_csv(other_csv), *places(tmp_path))
    assert done.results["run"] == read_json(PACKAGED / "student" / "results.json")["signature"]
    assert done.folder.parent == tmp_path / "runs" / "embedded" / "evaluations"
    assert not (PACKAGED / "student" / "evaluations").exists()


def test_evaluate_is_skipped_the_second_time(trained, evaluated, other_csv, home, nothing_loaded):
    assert succeed("evaluate", *on_evaluate(trained, other_csv, home)).out == evaluated.out


def test_a_run_that_is_made_again_has_no_evaluations_of_the_old_one(
    trained, base, other_csv, tmp_path
):
    # `base` ends with the places, of which the later ones count.
    own = [*base, *places(tmp_path)]
    first = succeed("train", *own)
    evaluated = succeed("evaluate", *on_evaluate(first, other_csv, tmp_path))
    assert evaluated.results["trained_n"] == first.results["n"]
    succeed("train", *own, "force=true")
    assert not evaluated.results_path.exists()


def test_evaluate_on_the_runs_own_test_part(trained, scores_csv, home):
    again = succeed("evaluate", *on_evaluate(trained, scores_csv, home), "part=test")
    assert again.results["metrics"]["test"] == trained.results["metrics"]["test"]
    assert again.results["extracted"] == 0
    assert again.predictions() == trained.predictions()


@pytest.mark.parametrize("part", ["all", "train", "val"])
def test_evaluate_refuses_pictures_that_the_head_was_fitted_on(
    trained, scores_csv, tmp_path, home, part
):
    """Under another name and in another folder, too."""
    split = json.loads((trained.folder / "split.json").read_text())
    seen = split["val" if part == "val" else "train"]
    copied = tmp_path / "copied"
    for i, name in enumerate(seen):
        write_image(copied / f"new{i}.png", 200 + i)
        shutil.copy(scores_csv.parent / name, copied / f"again{i}.png")
    rows = [f"{kind}{i}.png,{i}" for i in range(len(seen)) for kind in ("new", "again")]
    table = write_csv(copied, 0, rows="\n".join(rows))
    outcome = type_in("evaluate", *on_evaluate(trained, table, home), "part=all")
    assert outcome.status == 1
    assert f"{len(seen)} of {2 * len(seen)} pictures were in the run's" in outcome.err
    assert "again" in outcome.err


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["part=some"], "part='some': expected one of"),
        (["part=test", "split=official"], "no official split"),
        (["data.on_error=x"], "data.on_error='x'"),
        (["trainer.devices=0", "force=true"], "devices: 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_values_of_evaluate(wrong, told, trained, other_csv, home, nothing_loaded):
    outcome = type_in("evaluate", *on_evaluate(trained, other_csv, home), *wrong)
    assert outcome.status == 1
    assert told in outcome.err
    assert "Traceback" not in outcome.err


def test_extract_fills_the_store_that_train_reads(micro, scores_csv, tmp_path):
    options = [*micro, *on_csv(scores_csv), *places(tmp_path), "guidance=none"]
    extracted = succeed("extract", *options, "layers=all")
    store = Path(extracted.out.strip())
    assert store.parent == tmp_path / "store"
    assert list(store.glob("*.safetensors"))
    assert not (tmp_path / "runs").exists()
    results = succeed("train", *options).results
    assert results["extracted"] == 0
    assert results["store_key"] == store.name


def test_extract_and_train_agree_on_what_limit_means(micro, scores_csv, tmp_path):
    options = [*micro, *on_csv(scores_csv), *places(tmp_path), "guidance=none", "limit=3"]
    succeed("extract", *options)
    assert succeed("train", *options).results["extracted"] == 0


def test_doctor(tmp_path):
    outcome = succeed("doctor", *places(tmp_path))
    for said in ("torch", "diffusers", "cpu", "embedded", "sd15", "GB free", "clip", "arniqa"):
        assert said in outcome.out
    assert not list(tmp_path.iterdir())


def test_doctor_of_a_dataset(tmp_path):
    root = write_biq2021(tmp_path / "biq", train=6, test=3)
    options = ["doctor", "dataset=biq2021", f"dataset.root={root}"]
    outcome = succeed(*options)
    for said in ("9 of 12,000 published", "github.com", "6 train, 3 test", "all 9 pictures"):
        assert said in outcome.out
    train, test = root / "Images" / "ss01 (1).jpg", root / "Images" / "ss03 (9).jpg"
    shutil.copy(train, test)
    (root / "Images" / "ss02 (2).jpg").write_text("no picture")
    outcome = type_in(*options)
    assert outcome.status == 1
    assert "ss01 (1).jpg, ss03 (9).jpg: IN TWO PARTS OF A SPLIT" in outcome.out
    assert "1 pictures cannot be read" in outcome.out
    outcome = type_in("doctor", "dataset=koniq10k", f"dataset.root={tmp_path / 'koniq'}")
    assert outcome.status == 1
    assert "10,073 pictures" in outcome.err
    assert "database.mmsp-kn.de" in outcome.err


def test_pictures_without_scores_are_for_pretraining(tmp_path):
    root = WRITERS["kadis700k"](tmp_path / "kadis")
    outcome = type_in("train", "dataset=kadis700k", f"dataset.root={root}", *places(tmp_path))
    assert outcome.status == 1
    assert "dataset=kadis700k: its pictures have no scores" in outcome.err


def test_report(trained, home, tmp_path):
    table = tmp_path / "table.csv"
    outcome = succeed("report", str(trained.results_path), f"output={table}")
    srcc = trained.results["metrics"]["test"]["srcc"]
    assert "SRCC" in outcome.out
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["SRCC"]) == pytest.approx(srcc, abs=1e-3)


def test_report_over_splits(micro, scores_csv, tmp_path):
    options = [*micro, *on_csv(scores_csv), *places(tmp_path), "guidance=none"]
    values = [
        succeed("train", *options, f"split={n}").results["metrics"]["test"]["srcc"] for n in (0, 1)
    ]
    table = tmp_path / "table.csv"
    columns = ["+columns.Splits=splits", "+columns.Mean=metrics.test.srcc.mean"]
    runs = str(tmp_path / "runs")
    succeed("report", runs, "view=splits", *columns, f"output={table}")
    with table.open(newline="") as file:
        [row] = csv.DictReader(file)
    assert row["Splits"] == "2"
    mean, low, high = (f"{value:.3f}" for value in (sum(values) / 2, *sorted(values)))
    assert row["SRCC"] == f"{mean} [{low}, {high}]"
    assert float(row["Mean"]) == pytest.approx(sum(values) / 2, abs=1e-3)


def type_as_shell(monkeypatch, capsys, *arguments: str) -> Outcome:
    monkeypatch.setattr(sys, "argv", ["latentiqa", *arguments])
    status = 0
    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
        print(end.code if isinstance(end.code, str) else "", file=sys.stderr)
    captured = capsys.readouterr()
    return Outcome(status or 0, captured.out, captured.err)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], *([v, "--help"] for v in VERBS)])
def test_help_shows_what_to_type(arguments, monkeypatch, capsys):
    outcome = type_as_shell(monkeypatch, capsys, *arguments)
    assert outcome.status == 0
    verb = arguments[0] if arguments and arguments[0] in VERBS else ""
    examples = [
        line for line in outcome.out.splitlines() if line.startswith(f"  latentiqa {verb}".rstrip())
    ]
    assert len(examples) >= 2
    if not verb:
        assert all(verb in outcome.out for verb in VERBS)


@pytest.mark.parametrize("typed", ["trian", "--verbose", "experiment=demo"])
def test_an_unknown_verb(typed, monkeypatch, capsys):
    outcome = type_as_shell(monkeypatch, capsys, typed)
    assert outcome.status != 0
    assert typed in outcome.err
    assert "train" in outcome.err
    assert not outcome.out
