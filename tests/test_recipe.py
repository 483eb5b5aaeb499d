from __future__ import annotations

import pytest

from latentiqa.guidance import PMG, StepSize
from latentiqa.perceptual.sd import BackboneFeatures
from latentiqa.recipe import recipe_of


def test_nested_descriptions_are_plain_data():
    assert recipe_of(PMG(psi=BackboneFeatures(timestep=3))) == {
        "class": "PMG",
        "psi": {"class": "BackboneFeatures", "layers": ["down.*.resnet.*"], "timestep": 3},
        "measurement": {"class": "StepSize", "weight": 0.1, "normalisation": "normalised"},
        "perceptual": {"class": "StepSize", "weight": 0.1, "normalisation": "normalised"},
        "route": "latent",
    }


def test_what_has_no_description_is_refused():
    with pytest.raises(TypeError, match="object has no plain description"):
        recipe_of({"psi": object()})


def test_options_that_came_later_are_described_where_they_change_something():
    """So that what was stored before them keeps its address."""
    described = recipe_of(PMG(repeats=2, measurement=StepSize(window=[90, 10]), checkpointing=True))
    assert described["repeats"] == 2
    assert described["measurement"]["window"] == [90, 10]
    assert not {"measured_in", "decoder", "checkpointing"} & set(described)
