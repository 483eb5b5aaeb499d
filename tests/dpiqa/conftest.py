from __future__ import annotations

import pytest
import torch

from latentiqa.dpiqa.teacher import Design, Teacher


@pytest.fixture
def micro(micro_folder):
    """The micro backbone in float32, a new one for each test: a teacher trains it in place."""
    from latentiqa.backbones.stable_diffusion import StableDiffusion

    return StableDiffusion.from_folder(micro_folder)


@pytest.fixture
def teacher_of(micro):
    """A small teacher on the micro backbone, of a changed design."""

    def make(**changes):
        small = {"prompts": "learnt", "learnt": 5, "side": 8, "width": 16, "narrowing": (4,)}
        return Teacher(micro, Design(**small | changes))

    return make


@pytest.fixture
def attentive(micro):
    """The micro backbone with maps and attention of a size that prompts can change."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in micro.unet.named_parameters():
        if "attn2" in name:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return micro


@pytest.fixture(autouse=True)
def one_thread():
    """More would wait for each other on the micro model."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
