"""`latentiqa train`: results, what makes a run another run, what is computed again and what not."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import on_csv, places, succeed, type_in
from miniatures import (
    recipe,
    recipes,
    write_autoencoder,
    write_biq2021,
    write_csv,
    write_image,
)
from scipy import stats

EXPERIMENTS = recipes("train")


@pytest.fixture
def count_loads(monkeypatch):
    """How often a backbone is loaded."""
    from latentiqa.backbones.source import BackboneSource

    loads, load = [], BackboneSource.load

    def counted(self, *args, **kwargs):
        loads.append(self.source)
        return load(self, *args, **kwargs)

    monkeypatch.setattr(BackboneSource, "load", counted)
    return loads


def shards(home: Path) -> dict[str, dict]:
    """Sidecars of all shards under a home by name, to tell what was written."""
    return {
        path.name: json.loads(path.read_text())
        for path in home.glob("store/*/*.json")
        if path.name != "recipe.json"
    }


def test_results_hold_all_that_a_reader_needs(trained, micro_folder):
    results = trained.results
    assert results["metrics"]["test"].keys() >= {
        *("srcc", "krcc", "plcc", "plcc_logistic", "rmse", "n")
    }
    assert results["metrics"]["test"]["n"] == results["n"]["test"] == 6
    assert results["signature"] in trained.folder.name
    assert results["config"]["backbone"]["source"] == str(micro_folder)
    assert results["config"]["guidance"]["psi"]["timestep"] == 10
    assert results["versions"].keys() >= {"python", "torch", "lightning", "diffusers", "latentiqa"}
    assert results["git_sha"] is None or len(results["git_sha"].removesuffix("+dirty")) == 40
    assert len(results["split_hash"]) == len(results["store_key"]) == 12
    assert 0 < results["seconds"] < 300
    assert 50 < results["peak_memory_mb"] < 100_000
    assert results["extracted"] == 24
    assert (trained.folder / "config.yaml").is_file()
    split = json.loads((trained.folder / "split.json").read_text())
    assert split["hash"] == results["split_hash"]
    assert [len(split[part]) for part in ("train", "val", "test")] == [12, 6, 6]


def test_only_the_path_is_on_stdout(trained):
    assert trained.out == f"{trained.results_path}\n"
    assert trained.results_path.name == "results.json"


def test_predictions_reproduce_the_metrics(trained):
    rows = trained.predictions()
    names = json.loads((trained.folder / "split.json").read_text())["test"]
    assert [row["name"] for row in rows] == names
    # The miniature's score is the number in the file's name, 0 to 23.
    assert all(row["name"] == f"p{float(row['mos']):.0f}.png" for row in rows)
    assert all(float(row["target"]) == pytest.approx(float(row["mos"]) / 23) for row in rows)
    pred, mos = ([float(row[column]) for row in rows] for column in ("pred", "mos"))
    metrics = trained.results["metrics"]["test"]
    assert metrics["srcc"] == pytest.approx(stats.spearmanr(pred, mos).statistic, abs=1e-9)
    assert metrics["krcc"] == pytest.approx(stats.kendalltau(pred, mos).statistic, abs=1e-9)
    assert metrics["plcc"] == pytest.approx(stats.pearsonr(pred, mos).statistic, abs=1e-9)
    errors = [(p - m / 23) ** 2 for p, m in zip(pred, mos, strict=True)]
    assert metrics["rmse"] == pytest.approx((sum(errors) / len(errors)) ** 0.5, abs=1e-9)


def test_metrics_of_validation_are_those_before_the_refit(trained):
    assert trained.results["metrics"]["val"]["srcc"] == trained.results["fit"]["val_srcc"]


def test_the_second_time_nothing_is_loaded(trained, base, nothing_loaded):
    before = trained.results_path.stat().st_mtime_ns
    again = succeed("train", *base)
    assert again.out == trained.out
    assert again.results_path.stat().st_mtime_ns == before


def test_a_finished_run_is_recognised_without_the_heavy_imports(trained, base):
    code = (
        "import sys; from latentiqa.commands.launch import launch\n"
        f"status = launch('train', {base!r})\n"
        "heavy = {'lightning', 'diffusers', 'transformers', 'wandb'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy or status else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == trained.out


@pytest.mark.parametrize(
    "same",
    [
        ["data.batch_size=3"],
        ["data.shard_size=5"],
        ["data.num_workers=1"],
        ["trainer=gpu"],
        ["trainer=ddp"],
        ["trainer.precision=32"],
        ["logger=none"],
        ["callbacks=none"],
    ],
    ids=" ".join,
)
def test_what_does_not_change_the_numbers_is_the_same_run(trained, base, same, nothing_loaded):
    overrides = [o.replace("trainer.precision", "+trainer.precision") for o in same]
    assert succeed("train", *base, *overrides).out == trained.out


def test_a_moved_dataset_is_the_same_run(trained, base, scores_csv, tmp_path, nothing_loaded):
    moved = shutil.copytree(scores_csv.parent, tmp_path / "elsewhere")
    lines = (moved / "scores.csv").read_text().splitlines()
    # Sorted otherwise, too.
    (moved / "scores.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]))
    moved_to = f"dataset.path={moved / 'scores.csv'}"
    overrides = [moved_to if o.startswith("dataset.path=") else o for o in base]
    assert succeed("train", *overrides).out == trained.out


@pytest.mark.parametrize(
    "other",
    [
        ["seed=1"],
        ["guidance=none"],
        ["guidance.measurement.weight=0.2"],
        ["guidance.route=score"],
        ["perceptual=nss"],
        ["perceptual=none"],
        ["perceptual.timestep=11"],
        ["split=1"],
        ["fractions=[0.4,0.3,0.3]"],
        ["limit=4"],
        ["layers=mid_up"],
        ["pooling=mean"],
        ["timesteps.use=[20]"],
        ["timesteps.eta=0.5"],
        ["backbone.resolution=128"],
        ["backbone.dtype=bfloat16"],
        ["head=mlp"],
        ["head.refit=false"],
        ["prompt=sharp"],
        ["views=centre"],
        ["views=random_crops", "views.crops=2"],
        ["data.flips=true"],
        ["data.max_pixels=1000"],
        ["data.on_error=skip"],
        ["debug=fdr"],
    ],
    ids=" ".join,
)
def test_what_changes_the_numbers_is_another_run(trained, base, other, nothing_loaded, monkeypatch):
    """Told by the folder that it begins to work in, before the sentinel ends it."""
    outcome = type_in("train", *base, *other)
    assert outcome.status != 0
    assert "touched what must be left alone" in outcome.err
    assert trained.results["signature"] not in outcome.err


def test_another_score_or_name_is_another_run(trained, base, scores_csv, tmp_path, nothing_loaded):
    changed = shutil.copytree(scores_csv.parent, tmp_path / "changed") / "scores.csv"
    changed.write_text(changed.read_text().replace("p3.png,3", "p3.png,3.5"))
    overrides = [f"dataset.path={changed}" if "dataset.path" in o else o for o in base]
    assert "touched what must be left alone" in type_in("train", *overrides).err


def test_force_runs_again_from_the_store(trained, base, count_loads):
    before = trained.results_path.stat().st_mtime_ns
    forced = succeed("train", *base, "force=true")
    assert forced.out == trained.out
    assert forced.results_path.stat().st_mtime_ns != before
    assert count_loads
    assert forced.results["extracted"] == 0
    assert forced.results["metrics"] == trained.results["metrics"]


def test_more_layers_extract_only_what_is_new(trained, base, home):
    before = shards(home)
    widened = succeed("train", *base, "layers=mid_up")
    new = [sidecar for name, sidecar in shards(home).items() if name not in before]
    assert widened.results["store_key"] == trained.results["store_key"]
    assert widened.results["n_features"] > trained.results["n_features"]
    assert sum(len(sidecar["images"]) for sidecar in new) == 24
    assert all("/mid." in name for sidecar in new for name in sidecar["widths"])
    assert before.keys() <= shards(home).keys()


@pytest.mark.parametrize("part", [["timesteps.use=[20]"], ["pooling=mean"]], ids=" ".join)
def test_a_part_of_the_features_extracts_nothing(trained, base, part):
    subset = succeed("train", *base, *part)
    assert subset.results["extracted"] == 0
    assert subset.results["store_key"] == trained.results["store_key"]
    assert subset.results["n_features"] == trained.results["n_features"] / 2


@pytest.mark.parametrize("head", ["mlp", "linear"])
def test_every_head_trains(base, head, trained):
    results = succeed("train", *base, f"head={head}", "head.epochs=3").results
    assert results["extracted"] == 0
    assert 1 <= results["fit"]["epochs"] <= 3
    assert results["config"]["choices"]["head"] == head


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_runs(name, micro, tmp_path):
    photos = tmp_path / "photos"
    dataset = {
        # First: a recipe that changes its base's dataset names both.
        "synthetic": [f"dataset.root={photos}", f"dataset.output={tmp_path}", "dataset.types=[7]"],
        "demo": ["dataset.photos=[camera,coffee,moon,rocket]", f"dataset.cache_dir={tmp_path}"],
        "biq2021": [f"dataset.root={write_biq2021(tmp_path / 'biq', train=24, test=6)}"],
    }
    own = next(keys for choice, keys in dataset.items() if f"/dataset: {choice}" in recipe(name))
    if own is dataset["synthetic"]:
        for i in range(10):
            write_image(photos / f"{i}.png", i, (48, 32))
    if name == "autoencoder_detail":
        own.append(f"features.reconstructed.folder={write_autoencoder(tmp_path / 'vae')}")
    if "decoder: tiny" in recipe(name):
        own.append("guidance.decoder=null")  # it is one for other latents than micro's
    outcome = succeed(
        *("train", f"experiment={name}", "debug=fdr", "limit=4", *micro, *own, *places(tmp_path)),
        "timesteps.use=null",  # micro's timesteps are others
    )
    assert outcome.folder.name.startswith(f"{name}-")
    assert max(outcome.results["n"].values()) == 4
    assert outcome.results["config"]["fast_dev_run"] is True


def test_official_split_of_biq2021(micro, tmp_path):
    root = write_biq2021(tmp_path / "biq", train=24, test=4)
    outcome = succeed(
        *("train", *micro, "dataset=biq2021", f"dataset.root={root}", "split=official"),
        *("guidance=none", *places(tmp_path)),
    )
    assert outcome.results["n"] == {"train": 21, "val": 3, "test": 4}
    with (root / "Test (Images and MOS).csv").open(newline="") as file:
        official = {row["Image Name"] for row in csv.DictReader(file)}
    assert {row["name"] for row in outcome.predictions()} == official


def test_a_sweep_makes_a_run_of_each(micro, scores_csv, tmp_path):
    swept = succeed(
        *("train", "-m", *micro, *on_csv(scores_csv), *places(tmp_path)),
        *("guidance=none,pmg", "layers=up,mid_up"),
    )
    results = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/results.json")]
    choices = [
        (r["config"]["choices"]["guidance"], r["config"]["choices"]["layers"]) for r in results
    ]
    assert sorted(choices) == [("none", "mid_up"), ("none", "up"), ("pmg", "mid_up"), ("pmg", "up")]
    assert len({r["store_key"] for r in results}) == 2
    assert swept.results in results
    printed = {line for line in swept.out.splitlines() if line.endswith("results.json")}
    assert printed == {str(path) for path in tmp_path.glob("runs/*/results.json")}


def test_csv_logger(trained):
    with (trained.folder / "logs" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    logged = [float(row["val/srcc"]) for row in rows if row["val/srcc"]]
    assert max(logged) == pytest.approx(trained.results["fit"]["val_srcc"])
    last = [row["test/srcc"] for row in rows if row["test/srcc"]]
    assert [float(value) for value in last] == [
        pytest.approx(trained.results["metrics"]["test"]["srcc"])
    ]


@pytest.fixture
def no_network(monkeypatch):
    """Any connection but to this machine fails the test."""
    import socket

    connect = socket.socket.connect

    def local_only(self, address):
        if isinstance(address, tuple) and address[0] not in {"127.0.0.1", "::1", "localhost"}:
            raise AssertionError(f"connects to {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


def test_wandb_offline(base, trained, tmp_path, no_network):
    import wandb

    base = [*base, f"paths.runs={tmp_path}"]
    outcome = succeed("train", *base, "logger=wandb", "head=linear", "head.epochs=2")
    assert wandb.run is None
    assert list(outcome.folder.glob("wandb/offline-run-*/*.wandb"))
    assert not (Path.cwd() / "wandb").exists()


def test_a_failing_head_leaves_no_open_wandb_run(base, trained, tmp_path, monkeypatch, no_network):
    import wandb

    def fails(*_args, **_kwargs):
        raise RuntimeError("head fails")

    monkeypatch.setattr("latentiqa.heads.base.Head.fit", fails)
    exits = []
    finish = wandb.Run.finish
    monkeypatch.setattr(
        wandb.Run,
        "finish",
        lambda self, exit_code=None: (exits.append(exit_code), finish(self, exit_code)),
    )
    outcome = type_in("train", *base, f"paths.runs={tmp_path}", "logger=wandb")
    assert outcome.status == 1
    assert "head fails" in outcome.err
    assert wandb.run is None
    assert exits == [1]
    assert list(tmp_path.glob("*/wandb/offline-run-*"))
    assert not list(tmp_path.glob("*/results.json"))


@pytest.fixture
def broken_csv(tmp_path) -> Path:
    """As `scores_csv`, with a picture that is cut short and one that is text."""
    (tmp_path / "broken").mkdir()
    table = write_csv(tmp_path / "broken", 24)
    whole = (table.parent / "p5.png").read_bytes()
    (table.parent / "p5.png").write_bytes(whole[: len(whole) // 2])
    (table.parent / "p7.png").write_text("not a picture")
    return table


def test_bad_pictures_stop_the_run_before_extraction(micro, broken_csv, tmp_path, count_loads):
    outcome = type_in("train", *micro, *on_csv(broken_csv), *places(tmp_path))
    assert outcome.status == 1
    assert "2 of 24 pictures cannot be read" in outcome.err
    for name, reason in (("p5.png", "truncated"), ("p7.png", "not a picture")):
        line = next(line for line in outcome.err.splitlines() if name in line)
        assert str(broken_csv.parent / name) in line
        assert reason in line
    assert "data.on_error=skip" in outcome.err
    assert not count_loads


def test_bad_pictures_can_be_left_out(micro, broken_csv, tmp_path):
    outcome = succeed("train", *micro, *on_csv(broken_csv), *places(tmp_path), "data.on_error=skip")
    assert sum(outcome.results["n"].values()) == outcome.results["extracted"] == 22
    assert "p5.png" in outcome.err
    assert "p7.png" in outcome.err
    assert not {"p5.png", "p7.png"} & {row["name"] for row in outcome.predictions()}


def test_one_picture_in_two_parts_is_refused(micro, scores_csv, trained, tmp_path, count_loads):
    split = json.loads((trained.folder / "split.json").read_text())
    copied = shutil.copytree(scores_csv.parent, tmp_path / "copied")
    shutil.copy(copied / split["train"][0], copied / split["test"][0])
    outcome = type_in("train", *micro, *on_csv(copied / "scores.csv"), *places(tmp_path))
    assert outcome.status == 1
    assert "are the same picture" in outcome.err
    assert split["train"][0] in outcome.err
    assert split["test"][0] in outcome.err
    assert not count_loads
