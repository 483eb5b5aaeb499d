"""README says what is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from miniatures import write_image

from latentiqa.commands import VERBS
from latentiqa.commands.search_path import config_folder

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def choices(group: str) -> set[str]:
    folder = ROOT / "sweeps" if group == "sweep" else config_folder("conf")
    return {path.stem for path in (folder / group).glob("*.yaml")}


def test_the_table_of_groups_is_complete():
    rows = re.findall(r"^\| `(\w+)` \| ((?:`\w+` ?)+)\|", README, flags=re.MULTILINE)
    table = {group: set(re.findall(r"`(\w+)`", names)) for group, names in rows}
    folders = {path.name for path in config_folder("conf").iterdir() if path.is_dir()}
    assert set(table) == (folders - {"hydra"}) | {"sweep"}
    assert table == {group: choices(group) for group in table}


def test_studies_are_listed_and_name_their_recipes():
    studies = [path.parent for path in (ROOT / "experiments").glob("*/README.md")]
    index = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| \[`(\w+)`\]", index, flags=re.M)) == {s.name for s in studies}
    for study in studies:
        named = set(re.findall(r"\w+", (study / "README.md").read_text(encoding="utf-8")))
        recipes = {path.stem for path in study.glob("experiment/*.yaml")}
        assert recipes <= named, study


SCORES, PARTS, CALLBACK = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_example_of_scores_runs(embedded, tmp_path, monkeypatch):
    """With a small scorer in the place of the one inside the package."""
    write_image(tmp_path / "photos" / "a.png")
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(SCORES, scope)
    assert list(scope["scores"]) == [str(Path("photos", "a.png"))]
    assert scope["image"].grad.abs().sum() > 0


def test_the_example_of_parts_runs():
    scope: dict = {}
    exec(PARTS, scope)
    assert scope["features"]["10/up.2.resnet.1/mean"].shape == (2, 64)


def test_the_example_of_the_callback_runs():
    scope: dict = {}
    exec(CALLBACK, scope)
    assert scope["made"].size == (256, 256)


def test_commands_name_verbs_that_exist():
    typed = set(re.findall(r"^(?:.*&& )?latentiqa (\w+)", README, flags=re.MULTILINE))
    assert typed
    assert typed <= set(VERBS)


def test_files_that_it_points_to_exist():
    for path in re.findall(r"`((?:src|experiments|conf|sweeps)/[\w/.]+)`", README):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("guidance", ["pmg", "none"])
def test_figures_are_those_of_the_committed_results(guidance):
    row = re.search(rf"^\| `{guidance}`.*", README, flags=re.MULTILINE)
    assert row
    path = ROOT / "experiments" / "lgdm_biq2021" / "results" / guidance / "results.json"
    results = json.loads(path.read_text())
    test = results["metrics"]["test"]
    shown = [f"{test[key]:.3f}"[1:] for key in ("srcc", "plcc", "plcc_logistic")]
    cells = [cell.strip() for cell in row[0].strip("|").split("|")]
    assert cells[1:] == [*shown, f"{results['seconds']:,.0f}"]
