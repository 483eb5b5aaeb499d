"""`latentiqa split`, and what runs make of the files that it writes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Outcome, on_csv, places, succeed, type_in
from miniature_datasets import WRITERS
from miniatures import write_csv

from latentiqa.data.splits import Split

DATASETS = sorted(WRITERS.keys() - {"kadis700k", "pipal"})
"""Those whose miniatures have the three contents that a split needs."""
OFFICIAL = {"biq2021", "flive", "koniq10k", "piq23", "uhd_iqa"}
PSI = ["method=psi", "method.resolution=64", "features=nss"]


def on(choice: str, root: Path) -> list[str]:
    return [f"dataset={choice}", f"dataset.root={root}"]


def texts(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("published")
    return {choice: WRITERS[choice](folder / choice) for choice in DATASETS}


@pytest.fixture(scope="module")
def written(roots, tmp_path_factory) -> Path:
    """The splits of all of them."""
    folder = tmp_path_factory.mktemp("splits")
    for choice, root in roots.items():
        succeed("split", *on(choice, root), f"paths.splits={folder}")
    return folder


def test_ten_splits_of_every_dataset_and_its_official_one(written):
    ten = {f"seed-{seed}" for seed in range(10)}
    for choice in DATASETS:
        files = {path.stem: path for path in (written / choice).iterdir()}
        assert files.keys() == ten | ({"official"} if choice in OFFICIAL else set())
        for name, path in files.items():
            split = Split.from_json(path.read_text())
            assert split.kind == name
            assert min(map(len, (split.train, split.val, split.test))) >= 1


def test_another_process_writes_the_same_to_the_bit(written, roots, tmp_path):
    code = (
        "import json, sys; from latentiqa.commands.launch import launch\n"
        "sys.exit(max(launch('split', overrides) for overrides in json.load(sys.stdin)))"
    )
    commands = [[*on(choice, root), f"paths.splits={tmp_path}"] for choice, root in roots.items()]
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(commands),
        env=os.environ | {"PYTHONHASHSEED": "77"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert texts(tmp_path) == texts(written)


def test_typed_again_it_says_that_nothing_has_changed(written, roots):
    before = {path: path.stat().st_mtime_ns for path in (written / "biq2021").iterdir()}
    outcome = succeed("split", *on("biq2021", roots["biq2021"]), f"paths.splits={written}")
    assert outcome.err.count("unchanged") == 11
    assert {path: path.stat().st_mtime_ns for path in before} == before
    printed = [Path(line) for line in outcome.out.splitlines()]
    assert sorted(printed) == sorted(before)
    assert all(Split.from_json(path.read_text()).hash in outcome.err for path in printed)
    assert "pictures, scores 0 to 1 on 0 to 1, higher is better" in " ".join(outcome.err.split())


def test_another_split_is_replaced_only_when_asked(roots, tmp_path):
    command = ["split", *on("bid", roots["bid"]), f"paths.splits={tmp_path}", "seeds=3"]
    succeed(*command)
    before = texts(tmp_path)
    assert before.keys() == {f"bid/seed-{seed}.json" for seed in range(3)}
    (tmp_path / "bid" / "seed-1.json").unlink()
    other = [*command, "fractions=[0.3,0.3,0.4]"]
    outcome = type_in(*other)
    assert outcome.status == 1
    assert not outcome.out
    for said in ("seed-0.json", "seed-2.json", "dataset=bid", "fractions", "force=true"):
        assert said in outcome.err
    del before["bid/seed-1.json"]
    assert texts(tmp_path) == before  # not even what was missing
    outcome = succeed(*other, "force=true")
    assert (outcome.err.count("replaced"), outcome.err.count("written")) == (2, 1)
    assert not set(texts(tmp_path).values()) & set(before.values())


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["seeds=0"], "seeds=0: expected an integer >= 1"),
        (["seeds=x"], "seeds=x: expected an integer >= 1"),
        (["fractions=[0.5,0.5]"], "expected three positive shares"),
        (["fractions=[a,b,c]"], "expected three shares"),
        (["validation_fraction=2"], "validation_fraction=2"),
        (["force=maybe"], "force='maybe'"),
        (["dataset=pipal"], "2 distinct contents cannot make 3 disjoint parts"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_values_are_explained(wrong, told, roots, tmp_path):
    dataset = [] if "dataset=pipal" in wrong else on("bid", roots["bid"])
    if not dataset:
        dataset = [f"dataset.root={WRITERS['pipal'](tmp_path / 'pipal')}"]
    outcome = type_in("split", *dataset, f"paths.splits={tmp_path / 'splits'}", *wrong)
    assert outcome.status == 1
    assert told in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "splits").exists()


# Runs.


@pytest.fixture(scope="module")
def saved(scores_csv, tmp_path_factory) -> Path:
    """The folder with the splits of the dataset that all verbs' tests share."""
    folder = tmp_path_factory.mktemp("saved")
    succeed("split", *on_csv(scores_csv), f"paths.splits={folder}", "seeds=2")
    return folder / "scores"


def begun(outcome: Outcome) -> str:
    """The folder that a run begins to work in, before the sentinel ends it."""
    assert "touched what must be left alone" in outcome.err
    return re.findall(r"\S+-[0-9a-f]{12}(?=: \d+ train)", outcome.err)[0]


def test_the_file_of_a_seed_is_the_run_of_that_seed(trained, base, saved, nothing_loaded):
    """Whatever shares the config would have for another seed."""
    of_file = f"split={saved / 'seed-0.json'}"
    shares = [override for override in base if override.startswith("fractions=")]
    assert shares
    for options in (base, [override for override in base if override not in shares]):
        assert succeed("train", *options, of_file).out == trained.out


def test_limit_takes_the_same_pictures_of_a_file_and_of_its_seed(base, saved, nothing_loaded):
    splits = ("0", saved / "seed-0.json", "1", saved / "seed-1.json")
    zero, zero_file, one, one_file = (
        begun(type_in("train", *base, "limit=4", f"split={split}")) for split in splits
    )
    assert zero == zero_file != one == one_file


def test_a_sweep_over_files(scores_csv, saved, tmp_path):
    files = [saved / f"seed-{seed}.json" for seed in range(2)]
    splits = f"split={','.join(map(str, files))}"
    succeed("train", "-m", *PSI, *on_csv(scores_csv), *places(tmp_path), splits)
    found = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/results.json")]
    runs = {result["split"]: result for result in found}
    assert runs.keys() == {"seed-0", "seed-1"}
    for seed, file in enumerate(files):
        result = runs[f"seed-{seed}"]
        assert result["split_hash"] == Split.from_json(file.read_text()).hash
        assert result["config"]["split"] == seed
        # What a run leaves is a file of that split, too.
        folder = next(tmp_path.glob(f"runs/*-{result['signature']}"))
        assert (folder / "split.json").read_bytes() == file.read_bytes()


def test_lists_of_ones_own_are_a_run_wherever_their_file_is(scores_csv, tmp_path):
    names = [f"p{i}.png" for i in range(12)]
    split = Split(tuple(names[:6]), tuple(names[6:9]), tuple(names[9:]), "by hand")
    options = [*PSI, *on_csv(scores_csv), *places(tmp_path)]
    (tmp_path / "a.json").write_text(split.to_json())
    first = succeed("train", *options, f"split={tmp_path / 'a.json'}")
    assert first.results["n"] == {"train": 6, "val": 3, "test": 3}
    assert {row["name"] for row in first.predictions()} == set(split.test)
    assert (first.results["split"], first.results["split_hash"]) == ("saved", split.hash)
    assert first.results["config"]["split"] == "saved"
    assert first.results["config"]["fractions"] is None
    moved = (tmp_path / "a.json").rename(tmp_path / "b.json")
    assert succeed("train", *options, f"split={moved}").out == first.out


def test_evaluate_takes_a_file(trained, scores_csv, home, saved):
    options = [f"run={trained.folder}", *on_csv(scores_csv), *places(home), "part=test"]
    seeded = succeed("evaluate", *options)
    assert succeed("evaluate", *options, f"split={saved / 'seed-0.json'}").out == seeded.out
    other = type_in("evaluate", *options, f"split={saved / 'seed-1.json'}")
    assert "were in the run's training or validation part" in other.err


@pytest.mark.parametrize(
    ("test", "told"),
    [
        (["p20.png", "p1.png"], "reference photo0 is in both train and test"),
        (["p20.png", "p0.png"], "picture p0.png is in both train and test"),
        (["p20.png", "gone.png"], "1 names are not in the dataset: gone.png"),
    ],
)
@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_a_leaking_split_is_refused_before_anything_is_computed(
    verb, test, told, trained, tmp_path, nothing_loaded
):
    rows = "\n".join(f"p{i}.png,{i},photo{i // 2}" for i in range(24))
    table = write_csv(tmp_path / "pictures", 24, "path,mos,ref", rows)
    train, val = ([f"p{i}.png" for i in numbers] for numbers in (range(0, 12, 2), (12, 14, 16)))
    file = tmp_path / "mine.json"
    file.write_text(Split(tuple(train), tuple(val), ("p18.png", *test), "by hand").to_json())
    own = {"train": PSI, "evaluate": [f"run={trained.folder}", "part=test"]}[verb]
    outcome = type_in(verb, *own, *on_csv(table), *places(tmp_path), f"split={file}")
    assert outcome.status == 1
    assert f"{file}: scores: {told}" in outcome.err
    assert "`latentiqa split` writes splits of a dataset" in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "runs").exists()


def test_an_edited_file_is_refused(base, saved, tmp_path, nothing_loaded):
    file = tmp_path / "edited.json"
    split = json.loads((saved / "seed-0.json").read_text())
    file.write_text(json.dumps(split | {"test": split["test"][1:]}))
    outcome = type_in("train", *base, f"split={file}")
    assert outcome.status == 1
    assert f"{file}: the lists of this split give the hash" in outcome.err
    assert f"its file says {split['hash']}: it was edited or cut short" in outcome.err
