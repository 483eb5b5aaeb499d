from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

# Small tensors: on busy cores threads would wait for each other a hundred times longer.
torch.set_num_threads(1)

# Set here rather than in a fixture: the doctests in src/ and libraries that read their environment
# when they are imported must see it too. No test reads or fills the cache of the person who runs
# it, and none reaches for the network.
_CACHE = tempfile.TemporaryDirectory(prefix="latentiqa-tests-")
os.environ |= {"LATENTIQA_CACHE": _CACHE.name, "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}


@pytest.fixture(scope="session")
def tiny():
    """The embedded backbone."""
    from latentiqa.backbones.source import BackboneSource

    return BackboneSource("tiny_random", "tiny_random", resolution=64).load()


@pytest.fixture(scope="session")
def micro_folder(tmp_path_factory) -> Path:
    """A far smaller pipeline folder than the embedded one, for float64 and for whole runs."""
    from latentiqa.backbones.tiny_random import build_random

    folder = tmp_path_factory.mktemp("micro")
    unet = {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4}
    build_random(folder, vae={"block_out_channels": (4, 4, 8, 8)}, unet=unet)
    return folder


@pytest.fixture
def micro64(micro_folder):
    """The micro backbone in float64, for finite differences."""
    from latentiqa.backbones.stable_diffusion import StableDiffusion

    return StableDiffusion.from_folder(micro_folder, dtype=torch.float64)


@pytest.fixture
def pictures():
    """Eight smooth random pictures, (8, 3, 64, 64) in [0, 1], and their names."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(8, 3, 9, 9, generator=generator)
    image = torch.nn.functional.interpolate(coarse, size=64, mode="bicubic").clamp(0, 1)
    return image, [f"photo ({i}).png" for i in range(8)]


@pytest.fixture(scope="session")
def micro_run(micro_folder, tmp_path_factory) -> Path:
    """A finished run that the package might carry: the micro backbone unguided, a psi beside."""
    from command_line import on_csv, places, succeed
    from miniatures import write_csv

    folder = tmp_path_factory.mktemp("micro_run")
    backbone = ["backbone=folder", f"backbone.source={micro_folder}", "backbone.resolution=64"]
    method = ["timesteps.values=[60,20]", "guidance=none", "features=nss"]
    table = write_csv(folder / "pictures", 24)
    return succeed("train", *backbone, *method, *on_csv(table), *places(folder)).folder


@pytest.fixture
def embedded(micro_run, tmp_path_factory, monkeypatch) -> Path:
    """That run in the place of both scorers inside the package."""
    folder = tmp_path_factory.mktemp("scorers")
    for name in ("student", "lgdm"):
        (folder / name).symlink_to(micro_run)
    monkeypatch.setattr("latentiqa.commands.trained.PACKAGED", folder)
    return folder / "student"


@pytest.fixture(scope="session")
def weights_of(tmp_path_factory) -> Callable[[str], Path]:
    """Random weights by the name of the psi, in the form that its authors publish; written once."""
    from miniatures import write_weights

    folder = tmp_path_factory.mktemp("weights")
    return functools.cache(lambda psi: write_weights(psi, folder))
