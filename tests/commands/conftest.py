"""A micro backbone, a small dataset and one finished run, shared by the tests of all verbs."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Outcome, on_csv, places, succeed
from miniatures import write_csv

N_PICTURES = 24


@pytest.fixture(scope="session")
def micro(micro_folder) -> list[str]:
    """The micro backbone on a short trajectory."""
    return [
        "backbone=folder",
        f"backbone.source={micro_folder}",
        "backbone.resolution=64",
        "timesteps.values=[60,20]",
    ]


@pytest.fixture(scope="session")
def scores_csv(tmp_path_factory) -> Path:
    """Twenty-four pictures and their scores."""
    return write_csv(tmp_path_factory.mktemp("pictures"), N_PICTURES)


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """Runs and features of the tests that may share them."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def base(micro, scores_csv, home) -> list[str]:
    """Overrides of the run that most tests start from."""
    return [*micro, *on_csv(scores_csv), *places(home)]


@pytest.fixture(scope="session")
def trained(base) -> Outcome:
    """That run, finished."""
    return succeed("train", *base)


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Path:
    """Runs and features of one file, which knows what is extracted when."""
    return tmp_path_factory.mktemp("house")


@pytest.fixture(scope="module")
def options(micro, scores_csv, house) -> list[str]:
    """Overrides of a run without guidance there."""
    return [*micro, *on_csv(scores_csv), *places(house), "guidance=none"]


@pytest.fixture
def nothing_loaded(monkeypatch):
    """Fail the test if a backbone is loaded or a picture is read."""

    def touched(*_args, **_kwargs):
        raise AssertionError("touched what must be left alone")

    monkeypatch.setattr("latentiqa.backbones.source.BackboneSource.load", touched)
    monkeypatch.setattr("latentiqa.backbones.ldm.LatentDiffusion.from_folder", touched)
    monkeypatch.setattr("latentiqa.data.images.inspect_images", touched)
    monkeypatch.setattr("latentiqa.data.images._decode", touched)
