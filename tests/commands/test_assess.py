"""`assess` on the micro backbone: what it writes, and what it leaves closed."""

from __future__ import annotations

import csv
import importlib.util
import re
import shutil
from pathlib import Path

import pytest
from command_line import Outcome, succeed, type_in
from miniatures import write_image
from PIL import Image
from safetensors.torch import load_file, save_file

from latentiqa.data.captions import WORDS

FEW = [
    *("crops.size=64", "crops.number=2", "crops.per_kind=1", "denoising.timesteps=[50,500]"),
    *("captions.timesteps=[300]", "samples.prompts=['',a sharp photo]", "samples.number=3"),
    *("samples.size=64", "samples.steps=2", "data.batch_size=8"),
]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def only_val(tmp_path_factory) -> list[str]:
    """A dataset whose val part alone can be read."""
    folder = tmp_path_factory.mktemp("photos")
    lines = ["path,mos,split"]
    for i, part in enumerate(["train", "train", "val", "val", "test", "test"]):
        photo = write_image(folder / f"{i}.png", seed=i, size=(72, 80))
        lines.append(f"{photo.name},{i},{part}")
        if part != "val":
            photo.write_bytes(b"must not be opened")
    (folder / "scores.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return ["dataset=csv", f"dataset.path={folder / 'scores.csv'}", "split=official"]


@pytest.fixture(scope="module")
def kodak(tmp_path_factory) -> Path:
    """Pictures of several sizes, none of them a multiple of 64."""
    folder = tmp_path_factory.mktemp("kodak")
    for i, size in enumerate([(70, 140), (130, 66)]):
        write_image(folder / f"{i}.png", seed=i, size=size)
    return folder


@pytest.fixture(scope="module")
def options(micro_folder, only_val, tmp_path_factory) -> list[str]:
    backbone = ["backbone=folder", f"backbone.source={micro_folder}", "backbone.resolution=64"]
    return [*backbone, *only_val, *FEW, f"paths.runs={tmp_path_factory.mktemp('runs')}"]


@pytest.fixture(scope="module")
def assessed(options, kodak) -> Outcome:
    return succeed("assess", str(kodak), *options)


def test_results(assessed):
    results = assessed.results
    assert results["kind"] == "assess"
    assert assessed.folder.name == f"assess-{results['signature']}"
    metrics = results["metrics"]
    assert metrics["reconstruction"]["n"] == 2
    assert 0 < metrics["reconstruction"]["psnr"] < 30  # noise through a random autoencoder
    assert metrics["denoising"]["timesteps"] == [50, 500]
    assert metrics["denoising"]["n"] == 4
    # Both models are random here, with different weights.
    assert metrics["denoising"]["trained"] != metrics["denoising"]["random"]
    assert metrics["denoising"]["random"] == pytest.approx([1, 1], abs=0.5)
    assert results["n"] == {"pictures": 2, "photos": 2}
    assert results["dataset_fingerprint"]
    assert results["split"] == "official"
    assert set(results["stages"]) == {
        *("load", "inspect", "reconstruction", "crops", "denoising", "captions", "samples")
    }
    assert sum(results["stages"].values()) == pytest.approx(results["seconds"], abs=0.1)


def test_tables_say_what_the_results_say(assessed):
    metrics = assessed.results["metrics"]
    denoising = table(assessed.folder / "denoising.csv")
    assert [row["timestep"] for row in denoising] == ["50", "500"]
    for key in ("trained", "random", "linear"):
        assert [float(row[key]) for row in denoising] == metrics["denoising"][key]
    captions = table(assessed.folder / "captions.csv")
    assert [float(row["share"]) for row in captions] == [
        row["share"] for row in metrics["captions"]
    ]
    rows = {(row["crops"], row["wrong"]): int(row["n"]) for row in captions}
    assert len(rows) == len(captions)
    several = {"degraded": ("another", "clean", "none"), "as they are": ("degraded",)}
    assert rows == {
        **{(crops, wrong): 2 for crops, names in several.items() for wrong in names},
        **{("all kinds", wrong): len(WORDS) for wrong in ("another", "kind", "none")},
        **{(kind, wrong): 1 for kind in WORDS for wrong in ("another", "kind", "none")},
    }


def test_pictures(assessed):
    with Image.open(assessed.folder / "samples.png") as grid:
        assert grid.size == (3 * 64 + 2 * 2, 2 * 64 + 2)
    with Image.open(assessed.folder / "reconstruction.png") as grid:
        assert grid.size == (2 * 64 + 2, 2 * 64 + 2)
    for name in ("denoising.png", "captions.png"):
        with Image.open(assessed.folder / name) as figure:
            assert figure.format == "PNG"


def test_a_finished_assessment_is_shown_again(assessed, options, kodak, tmp_path, monkeypatch):
    monkeypatch.setattr("latentiqa.pretraining.assessment.denoising_errors", None)
    moved = shutil.copytree(kodak, tmp_path / "elsewhere")
    again = succeed("assess", f"input={moved}", *options, "data.batch_size=4")
    assert again.results_path == assessed.results_path
    assert "is finished" in again.err
    assert "as they are" in again.err


def test_pictures_are_read_under_the_limit_on_pixels_of_the_run(options, kodak, monkeypatch):
    def read(path, max_pixels):
        raise AssertionError(f"{path.parent.name} under {max_pixels}")

    monkeypatch.setattr("latentiqa.data.images.read_image", read)
    monkeypatch.setattr("latentiqa.data.crops.read_image", read)
    limit = "data.max_pixels=130000000"
    assert f"{kodak.name} under 130000000" in type_in("assess", str(kodak), *options, limit).err
    assert re.search(r"photos\d* under 130000000", type_in("assess", *options, limit).err)


def test_weights_are_known_by_content(assessed, options, micro_folder, tmp_path):
    """A pipeline that was trained further in the same place is another backbone."""
    folder = shutil.copytree(micro_folder, tmp_path / "pipeline")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["conv_out.bias"] = weights["conv_out.bias"] + 1
    save_file(weights, file)
    other = succeed("assess", *options, f"backbone.source={folder}")
    assert other.results_path != assessed.results_path
    metrics = other.results["metrics"]
    assert metrics["reconstruction"] is None
    assert not (other.folder / "reconstruction.png").exists()
    # One more in every value of the noise: about one more in its squared error.
    before = assessed.results["metrics"]["denoising"]
    assert metrics["denoising"]["trained"][0] > before["trained"][0] + 0.5
    assert metrics["denoising"]["random"] == before["random"]


def test_without_lpips(assessed, options, kodak, tmp_path, monkeypatch):
    find = importlib.util.find_spec

    def find_others(name: str, *arguments):
        return None if name == "stlpips_pytorch" else find(name, *arguments)

    monkeypatch.setattr("importlib.util.find_spec", find_others)
    outcome = succeed("assess", str(kodak), *options, f"paths.runs={tmp_path}")
    assert "pip install" in outcome.err
    measured = outcome.results["metrics"]["reconstruction"]
    assert measured["lpips_alex"] is None
    assert measured["lpips_vgg"] is None
    assert measured["psnr"] == assessed.results["metrics"]["reconstruction"]["psnr"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("crops.number=0", "crops.number=0: expected an integer >= 1"),
        ("crops.per_kind=x", "crops.per_kind=x: expected an integer >= 1"),
        ("crops.size=100", "crops.size=100: expected a positive multiple of 64"),
        ("samples.size=32", "samples.size=32: expected a positive multiple of 64"),
        ("samples.prompts=[]", "samples.prompts=[]: expected one or more texts"),
        ("denoising.timesteps=[1000]", "expected one or more integers in 0..999"),
        ("captions.timesteps=[]", "expected one or more integers in 0..999"),
        ("input=nowhere.png", "nowhere.png: No such file"),
        ("data.on_error=x", "data.on_error='x': expected 'stop' or 'skip'"),
    ],
)
def test_wrong_values_end_before_anything_is_loaded(wrong, told, options, monkeypatch):
    monkeypatch.setattr("latentiqa.backbones.source.BackboneSource.load", None)
    outcome = type_in("assess", *options, wrong)
    assert outcome.status == 1
    assert told in " ".join(outcome.err.split())
    assert "Traceback" not in outcome.err


def test_pictures_too_small_to_reconstruct(options, tmp_path):
    small = write_image(tmp_path / "small.png", size=(63, 200))
    outcome = type_in("assess", str(small), *options)
    assert outcome.status == 1
    assert "63 x 200 pixels; expected sides of 64 or more" in " ".join(outcome.err.split())
