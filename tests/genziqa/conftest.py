from __future__ import annotations

import pytest
import torch


@pytest.fixture
def micro(micro_folder):
    """The micro backbone in float32, a new one for each test: it is trained in place."""
    from latentiqa.backbones.stable_diffusion import StableDiffusion

    return StableDiffusion.from_folder(micro_folder)


@pytest.fixture
def attentive(micro):
    """The micro backbone with attention that prompts can change."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in micro.unet.named_parameters():
        if "attn2" in name:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return micro


PAIR = ("Good Photo.", "Bad Photo.")


@pytest.fixture
def rater_of(attentive):
    """A small rater on the micro backbone, of a changed design."""
    from latentiqa.genziqa.rater import Design, PromptRater

    def make(**changes):
        return PromptRater(attentive, Design(**{"context": 4, "timesteps": [9, 45]} | changes))

    return make
