"""What ships in the package is what a run left, a little smaller."""

from __future__ import annotations

import json

import pytest
import torch
from command_line import on_csv, places, succeed
from miniatures import write_csv
from scripts import script

import latentiqa

SHIP = script("tiny_backbone", "ship")


def test_a_student_ships_with_its_card_and_scores_as_its_run(tmp_path, monkeypatch):
    table = write_csv(tmp_path / "pictures", 12)
    run = succeed(
        *("distill", "teacher=null", "terms.score=0.0", "method.resolution=64"),
        *("fast_dev_run=true", *on_csv(table), *places(tmp_path)),
    ).folder
    monkeypatch.setattr(SHIP, "PACKAGE", tmp_path)
    SHIP.main("scorer", "student", str(run))
    shipped = tmp_path / "scorers" / "student"
    names = {path.name for path in shipped.iterdir()}
    assert names == {"README.md", "head", "predictions.csv", "results.json", "student"}
    size = [(one / "student" / "student.safetensors").stat().st_size for one in (run, shipped)]
    assert size[1] < 0.6 * size[0]
    assert str(tmp_path) not in (shipped / "results.json").read_text()
    card = (shipped / "README.md").read_text()
    assert json.loads((shipped / "student" / "student.json").read_text())["weights"] in card
    assert "no teacher" in card

    monkeypatch.setattr("latentiqa.commands.trained.PACKAGED", shipped.parent)
    image = torch.rand(3, 3, 80, 60, generator=torch.Generator().manual_seed(0))
    expected = latentiqa.load_metric(run)(image).tolist()
    assert latentiqa.load_metric()(image).tolist() == pytest.approx(expected, abs=2e-3)
    assert (
        latentiqa.load_metric("student")(image).tolist() == latentiqa.load_metric()(image).tolist()
    )
