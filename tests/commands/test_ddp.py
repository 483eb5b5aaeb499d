"""Several processes give what one gives, and a sweep over them is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
from pathlib import Path

import pytest
from command_line import Outcome, on_csv, places, succeed, type_in
from miniatures import write_csv

DDP = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]


def console_script(*arguments: str) -> Outcome:
    """Type the real command: Lightning starts the further ranks by typing it again."""
    script = Path(sysconfig.get_path("scripts")) / "latentiqa"
    done = subprocess.run(
        [script, *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def extracted_images(home: Path) -> list[tuple[str, str]]:
    """Store and picture, once for each shard that holds the picture."""
    sidecars = [path for path in home.glob("store/*/*.json") if path.name != "recipe.json"]
    return [
        (path.parent.name, image)
        for path in sidecars
        for image in json.loads(path.read_text())["images"]
    ]


@pytest.mark.parametrize(
    "overrides", [[], ["trainer.devices=[0,1]"], ["trainer=ddp"]], ids=" ".join
)
def test_a_sweep_over_several_processes_is_refused(overrides, base, nothing_loaded):
    outcome = type_in("train", "-m", *base, *DDP, *overrides, "guidance=none,pmg")
    assert outcome.status == 1
    assert "a sweep runs one device a job" in outcome.err
    assert "Traceback" not in outcome.err
    assert not outcome.out.endswith("results.json\n")


@pytest.mark.parametrize("devices", ["1", "[0]", "[1]"])
def test_a_sweep_over_one_device_is_not(devices, base, nothing_loaded):
    outcome = type_in("train", "-m", *base, f"trainer.devices={devices}", "seed=1,2")
    assert "a sweep runs one device a job" not in outcome.err


@pytest.mark.slow
def test_two_processes_give_what_one_gives(micro, scores_csv, tmp_path):
    options = [*micro, *on_csv(scores_csv), "features=nss"]
    two = console_script("train", *options, *places(tmp_path / "two"), *DDP, "data.batch_size=4")
    assert two.status == 0, two.err
    assert two.out == f"{two.results_path}\n"
    images = extracted_images(tmp_path / "two")
    assert len(images) == len(set(images)) == two.results["extracted"] == 2 * 24

    one = succeed("train", *options, *places(tmp_path / "one"))
    assert two.results["signature"] == one.results["signature"]
    assert two.results["store_key"] == one.results["store_key"]
    metrics = one.results["metrics"]["test"]
    assert two.results["metrics"]["test"] == pytest.approx(metrics, abs=1e-6)
    for of_two, of_one in zip(two.predictions(), one.predictions(), strict=True):
        assert of_two["name"] == of_one["name"]
        assert float(of_two["pred"]) == pytest.approx(float(of_one["pred"]), abs=1e-6)

    again = console_script("train", *options, *places(tmp_path / "two"), *DDP)
    assert again.status == 0
    assert again.out == two.out


@pytest.mark.slow
def test_fewer_pictures_than_processes(micro, tmp_path):
    """One picture more than last time: a rank without work must neither fail nor hang."""
    table = write_csv(tmp_path / "pictures", 25)
    whole = table.read_text()
    options = [*micro, *on_csv(table), *places(tmp_path)]
    table.write_text(whole.replace("p24.png,24\n", ""))
    assert succeed("train", *options).results["extracted"] == 24
    table.write_text(whole)
    one_more = console_script("train", *options, *DDP)
    assert one_more.status == 0, one_more.err
    assert one_more.results["extracted"] == 1


@pytest.mark.slow
def test_extract_prints_the_store_once(micro, scores_csv, tmp_path):
    outcome = console_script("extract", *micro, *on_csv(scores_csv), *places(tmp_path), *DDP)
    assert outcome.status == 0, outcome.err
    assert len(outcome.out.splitlines()) == 1
    assert Path(outcome.out.strip()).parent == tmp_path / "store"


RATERS = {
    "dpiqa": ["teacher.prompts=learnt", "teacher.side=8", "teacher.width=16"],
    "genziqa": ["rater.context=4", "rater.timesteps=[9]"],
}


@pytest.mark.slow
@pytest.mark.parametrize("method", RATERS)
def test_two_processes_train_a_rater_as_one_does(method, micro_folder, scores_csv, tmp_path):
    """Five validation pictures: one of them comes twice."""
    options = [
        *(f"method={method}", "backbone=folder", f"backbone.source={micro_folder}"),
        *("backbone.resolution=64", *(f"method.{key}" for key in RATERS[method])),
        *("method.training.batch_size=4", "method.training.epochs=2"),
        *("method.training.lr=1e-3", "dataset=csv", f"dataset.path={scores_csv}"),
        "fractions=[0.5,0.21,0.29]",
    ]
    two = console_script("train", *options, *places(tmp_path / "two"), *DDP)
    assert two.status == 0, two.err
    assert two.out == f"{two.results_path}\n"
    one = succeed("train", *options, *places(tmp_path / "one"))
    assert one.results["n"]["val"] == 5
    assert two.results["signature"] == one.results["signature"]
    assert two.results["fit"]["best_step"] == one.results["fit"]["best_step"]
    assert two.results["metrics"]["val"] == one.results["metrics"]["val"]
    for of_two, of_one in zip(two.predictions(), one.predictions(), strict=True):
        assert of_two["name"] == of_one["name"]
        assert float(of_two["pred"]) == pytest.approx(float(of_one["pred"]), abs=1e-3)
