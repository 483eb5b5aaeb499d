from __future__ import annotations

from pathlib import Path

import pytest
from hydra.utils import instantiate
from miniatures import write_biq2021, write_csv
from omegaconf import MissingMandatoryValue, OmegaConf

from latentiqa.data.demo import PHOTOS

CONFIGS = Path(__file__).parents[2] / "conf" / "dataset"


def load(name: str, **overrides):
    return OmegaConf.merge(OmegaConf.load(CONFIGS / f"{name}.yaml"), overrides)


def test_csv(tmp_path):
    config = load("csv", path=str(write_csv(tmp_path)), mos_range=[0, 10])
    assert instantiate(config).mos_range == (0, 10)


def test_biq2021(tmp_path):
    assert len(instantiate(load("biq2021", root=str(write_biq2021(tmp_path))))) == 9


def test_demo(tmp_path):
    assert load("demo").photos == list(PHOTOS)
    assert len(instantiate(load("demo", cache_dir=str(tmp_path), photos=["moon"]))) == 21


@pytest.mark.parametrize("name", ["csv", "biq2021"])
def test_what_only_the_user_knows_must_be_said(name):
    with pytest.raises(MissingMandatoryValue):
        instantiate(load(name))
