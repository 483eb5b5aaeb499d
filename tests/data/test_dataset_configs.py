from __future__ import annotations

from pathlib import Path

import pytest
from hydra.utils import instantiate
from miniatures import write_biq2021, write_csv, write_image
from omegaconf import MissingMandatoryValue, OmegaConf

from latentiqa.data.demo import PHOTOS

CONFIGS = Path(__file__).parents[2] / "conf" / "dataset"


def load(name: str, **overrides):
    dataset = OmegaConf.merge(OmegaConf.load(CONFIGS / f"{name}.yaml"), overrides)
    # Where the commands have it, beside the key that it reads.
    return OmegaConf.create({"dataset": dataset, "data": {"max_pixels": 1000}}).dataset


def test_csv(tmp_path):
    config = load("csv", path=str(write_csv(tmp_path)), mos_range=[0, 10])
    assert instantiate(config).mos_range == (0, 10)


def test_biq2021(tmp_path):
    assert len(instantiate(load("biq2021", root=str(write_biq2021(tmp_path))))) == 9


def test_demo(tmp_path):
    assert load("demo").photos == list(PHOTOS)
    assert len(instantiate(load("demo", cache_dir=str(tmp_path), photos=["moon"]))) == 21


def test_synthetic(tmp_path):
    write_image(tmp_path / "photos" / "a.png")
    places = {"root": str(tmp_path / "photos"), "output": str(tmp_path / "made")}
    manifest = instantiate(load("synthetic", **places, types=[1, "jpeg"], levels=[2, 5]))
    assert manifest.names == (
        "I01.png",
        *(f"I01_{k}_{v}.png" for k in ("01", "10") for v in ("02", "05")),
    )


@pytest.mark.parametrize("name", ["csv", "biq2021", "synthetic"])
def test_what_only_the_user_knows_must_be_said(name):
    with pytest.raises(MissingMandatoryValue):
        instantiate(load(name))
