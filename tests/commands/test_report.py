"""`latentiqa report` in its views, on results as `train` and `evaluate` leave them."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path

import pytest
from command_line import Outcome, on_csv, places, succeed, type_in
from finished_runs import change, write_evaluation, write_run
from miniature_datasets import WRITERS
from miniatures import write_csv
from PIL import Image

from latentiqa.commands.report import VIEWS

KINDS = ["blur", "jpeg"] * 20


@pytest.fixture
def runs(tmp_path) -> Path:
    """Two methods on three splits, each evaluated on another dataset."""
    for name in ("lgdm", "nss"):
        for split in range(3):
            seed = split + 10 * len(name)
            attributes = {"distortion": KINDS}
            run = write_run(tmp_path / "runs", name, split=split, seed=seed, attributes=attributes)
            write_evaluation(run, seed=seed, pictures=40, attributes=attributes)
    return tmp_path / "runs"


def table_of(*arguments: str, output: Path) -> list[dict[str, str]]:
    succeed("report", *arguments, f"output={output}")
    lines = [line for line in output.read_text().splitlines() if not line.startswith("# ")]
    return list(csv.DictReader(io.StringIO("\n".join(lines))))


def test_matrix(runs, tmp_path):
    rows = table_of(str(runs), "view=matrix", "metric=plcc", output=tmp_path / "m.csv")
    assert {row["Run"]: row["Splits"] for row in rows} == {"lgdm": "3", "nss": "3"}
    assert all(row["koniq10k"].endswith("*") for row in rows)
    assert [row["all synthetic"] for row in rows] == [row["kadid10k"] for row in rows]


def test_matrix_with_kinds_from_the_command_line(runs, tmp_path):
    rows = table_of(
        str(runs), "view=matrix", "+kinds.kadid10k=generated", output=tmp_path / "m.csv"
    )
    assert "all generated" in rows[0]
    assert "all synthetic" not in rows[0]


def test_breakdown(runs, tmp_path):
    output = tmp_path / "b.csv"
    rows = table_of(str(runs), "view=breakdown", "ranges=4", output=output)
    groups = ["all", "distortion blur", "distortion jpeg"]
    groups += [f"quality {n} of 4" for n in range(1, 5)]
    assert [row["Group"] for row in rows[:7]] == groups
    assert len(rows) == 7 * 2 * 2
    rows = table_of(str(runs), "view=breakdown", "by=distortion", output=output)
    assert [row["Group"] for row in rows[:3]] == groups[:3]


# Layers are of one run, of whose dataset there is no word.
@pytest.mark.parametrize("view", sorted(set(VIEWS) - {"layers"}))
def test_results_from_before_they_said_their_datasets_kind(runs, tmp_path, view):
    before = succeed("report", str(runs), f"view={view}").out
    for path in runs.rglob("results.json"):
        change(path.parent, dataset_kind=...)
    after = succeed("report", str(runs), f"view={view}").out
    if view == "matrix":
        assert re.search("their results do not say a kind: k.*10k, k.*10k$", after, re.MULTILINE)
        assert "all synthetic" not in after
        told = ["+kinds.koniq10k=authentic", "+kinds.kadid10k=synthetic"]
        after = succeed("report", str(runs), "view=matrix", *told).out
    assert after == before


@pytest.mark.parametrize("suffix", ["md", "csv", "tex"])
def test_compare(runs, tmp_path, suffix):
    output = tmp_path / f"c.{suffix}"
    printed = succeed("report", str(runs), "view=compare", f"output={output}").out
    for text in (printed, output.read_text()):
        assert text.count("corrected t") >= 3  # on two datasets, and what it is
        assert "null: " in text
    if suffix == "md":
        assert output.read_text() == printed


def test_seeds(runs, tmp_path):
    output = tmp_path / "s.csv"
    rows = table_of(str(runs), "view=seeds", "+columns.Std=metrics.test.srcc.std", output=output)
    assert [row["Seeds"] for row in rows] == ["1"] * 12  # splits and evaluations stay apart
    for row in rows:
        mean, low, high = (float(x.strip("[],")) for x in row["SRCC"].split())
        assert low < mean < high
        assert row["Noise"] == row["SRCC of seeds"] == row["Std"] == "–"
    assert "# seeds: the head is fitted anew" in output.read_text()


def test_differences_from_a_recipe(tmp_path):
    for name, noise in {"plain": 0.5, "guided": 0.1}.items():
        write_run(tmp_path / name, name, noise=noise)
    keys = ("view=seeds", "against=plain", "columns=null", "+columns.Run=name")
    guided, plain = table_of(str(tmp_path), *keys, output=tmp_path / "s.csv")
    mean, low, high = (float(x.strip("[],")) for x in guided["Against plain"].split())
    assert 0 < low < mean < high
    assert guided["Seed by seed"] == f"{mean:+.3f}"
    assert plain == {"Run": "plain", "Seeds": "1"} | dict.fromkeys([*plain][2:], "–")
    assert (
        "no result is of this name; there are" in fails(str(tmp_path), *keys[:1], "against=x").err
    )


def test_layers(trained, tmp_path, nothing_loaded):
    """From the store, and nothing that the test part has anything to do with."""
    output, figure = tmp_path / "layers.csv", tmp_path / "layers.png"
    moved = shutil.copytree(trained.folder, tmp_path / "moved")
    (moved / "predictions.csv").unlink()
    rows = table_of(str(moved), "view=layers", f"figure={figure}", output=output)
    layers = [row["Layer"] for row in rows]
    assert layers[0] == "up.0.resnet.0"
    assert len(set(layers)) == 8
    assert all(-1 <= float(row[t]) <= 1 for row in rows for t in ("t=60", "t=20"))
    with Image.open(figure) as image:
        assert image.format == "PNG"
        assert min(image.size) > 300


def test_layers_of_what_has_none_are_refused(trained, runs, tmp_path):
    assert "6 runs of train: expected one" in fails(str(runs), "view=layers").err
    assert "with method=lgdm" in fails(str(next(runs.iterdir())), "view=layers").err
    assert "with view=layers" in fails(str(runs), "figure=a.png").err
    assert "ending in .png" in fails(str(runs), "view=layers", "figure=a.pdf").err
    moved = shutil.copytree(trained.folder, tmp_path / "moved")
    config = json.loads((moved / "results.json").read_text())["config"]
    change(moved, config=config | {"paths": {"store": "gone"}})
    assert "features are not there" in fails(str(moved), "view=layers").err


def fails(*arguments: str) -> Outcome:
    outcome = type_in("report", *arguments)
    assert outcome.status == 1
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    return outcome


def test_faults_are_told(runs, tmp_path):
    [first, *_] = sorted(runs.rglob("predictions.csv"))
    first.unlink()
    assert f"{first}: no such file" in fails(str(runs), "view=breakdown").err
    assert "view=odd: expected one of runs, splits, seeds" in fails(str(runs), "view=odd").err
    assert "ranges=x: expected an integer" in fails(str(runs), "view=breakdown", "ranges=x").err
    assert "no figure scrc" in fails(str(runs), "view=matrix", "metric=scrc").err
    results = first.with_name("results.json")
    results.write_text("{")
    assert f"{results}: broken JSON" in fails(str(runs), "view=matrix").err


def test_what_train_and_evaluate_write(micro, tmp_path):
    """From pictures to the matrix and the breakdown, with nothing written by hand."""
    kinds = ["blur", "jpeg"] * 12
    # The first ones have the pixels of the miniature below, and a run must not have seen those.
    rows = "\n".join(f"p{i}.png,{i},{kind},x" for i, kind in enumerate(kinds, 6))
    table = write_csv(tmp_path / "pictures", 30, header="path,mos,distortion,pred", rows=rows)
    trained = succeed("train", *micro, *on_csv(table), *places(tmp_path), "guidance=none", "name=x")
    assert trained.results["dataset_kind"] is None
    assert {row["distortion"] for row in trained.predictions()} == {"blur", "jpeg"}
    # The dataset's own column of that name gave way.
    assert all(float(row["pred"]) < 100 for row in trained.predictions())

    kadid = ["dataset=kadid10k", f"dataset.root={WRITERS['kadid10k'](tmp_path / 'kadid10k')}"]
    evaluated = succeed("evaluate", f"run={trained.folder}", *kadid, *places(tmp_path))
    results = evaluated.results
    assert results["dataset_kind"] == "synthetic"
    assert results["trained_fingerprint"] == trained.results["dataset_fingerprint"]
    assert results["trained_split_hash"] == trained.results["split_hash"]
    assert all(row["distortion"] and row["level"] for row in evaluated.predictions("all"))

    output, runs = tmp_path / "table.csv", str(tmp_path / "runs")
    [row] = table_of(runs, "view=matrix", output=output)
    own, cross = (result["metrics"]["test"]["srcc"] for result in (trained.results, results))
    assert (row["Run"], row["scores"]) == ("x", f"{own:.3f}*")
    assert row["kadid10k"] == row["all synthetic"] == f"{cross:.3f}"
    groups = table_of(runs, "view=breakdown", "by=distortion", output=output)
    for dataset, n in (("scores", 6), ("kadid10k", 6)):
        counts = {r["Group"]: int(r["n"]) for r in groups if r["Dataset"] == dataset}
        assert counts.pop("all") == sum(counts.values()) == n
