from __future__ import annotations

import pytest

from latentiqa.guidance import PMG, StepSize
from latentiqa.perceptual.sd import BackboneFeatures
from latentiqa.recipe import recipe_of


def test_nested_descriptions_are_plain_data():
    size = {"class": "StepSize", "weight": 0.1, "normalisation": "normalised"}
    size |= {"schedule": "constant", "window": [90, 10]}
    pmg = PMG(BackboneFeatures(timestep=3), StepSize(window=[90, 10]), StepSize(window=(90, 10)))
    assert recipe_of(pmg) == {
        "class": "PMG",
        "decoder": None,
        "psi": {"class": "BackboneFeatures", "layers": ["down.*.resnet.*"], "timestep": 3},
        "measurement": size,
        "perceptual": size,
        "route": "latent",
        "measured_in": "pixels",
        "measurement_distance": "squared",
        "perceptual_distance": "squared",
        "repeats": 1,
    }


def test_what_has_no_description_is_refused():
    with pytest.raises(TypeError, match="object has no plain description"):
        recipe_of({"psi": object()})


def test_what_changes_no_result_is_no_part_of_the_description():
    assert recipe_of(PMG(checkpointing=True)) == recipe_of(PMG())
