"""`latentiqa trace`: one picture's trajectory as a table and two figures."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from command_line import succeed, type_in
from miniatures import write_image
from PIL import Image


@pytest.fixture
def photo(tmp_path) -> Path:
    return write_image(tmp_path / "photo.png", size=(64, 64))


def test_a_picture_is_traced_with_and_without_guidance(micro, photo, embedded, tmp_path):
    output = tmp_path / "traced"
    told = succeed("trace", str(photo), *micro, "perceptual=nss", f"output={output}").out
    assert told.split() == [
        str(output / name) for name in ("trace.csv", "trajectory.png", "principal.png")
    ]
    with (output / "trace.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = ["no guidance", "pmg, predicted", "pmg, corrected"]
    assert [(row["trajectory"], row["timestep"]) for row in rows] == [
        (line, t) for line in lines for t in ("60", "20")
    ]
    # Nothing has been corrected yet where both begin.
    first, guided, corrected = rows[0], rows[2], rows[4]
    for key in ("pixels", "latents", "psi", "score"):
        assert float(first[key]) == pytest.approx(float(guided[key]), rel=1e-4)
        assert float(guided[key]) != pytest.approx(float(corrected[key]), rel=1e-6)
    for name in told.split()[1:]:
        with Image.open(name) as image:
            assert image.format == "PNG"
            assert min(image.size) > 200


def test_without_guidance_and_psi_there_is_less_to_tell(micro, photo, micro_run, tmp_path):
    bare = ["guidance=none", "perceptual=none", f"run={micro_run}", f"output={tmp_path}"]
    succeed("trace", str(photo), *micro, *bare)
    with (tmp_path / "trace.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["trajectory", "timestep", "pixels", "latents", "score"]
    assert {row["trajectory"] for row in rows} == {"no guidance"}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["input=nowhere.png"], "expected the file of one picture"),
        (["method=latents"], "no trajectory but lgdm's"),
        (["views=random_crops"], "expected one view"),
        (["timesteps.values=[0]"], "expected a timestep above 0"),
        (["run=nowhere"], "run=nowhere: no results.json there"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_traced_is_told_before_anything_is_loaded(
    wrong, told, photo, embedded, nothing_loaded
):
    given = [] if any(word.startswith("input=") for word in wrong) else [str(photo)]
    outcome = type_in("trace", *given, *wrong)
    assert outcome.status == 1
    assert told in " ".join(outcome.err.split())
    assert "Traceback" not in outcome.err
