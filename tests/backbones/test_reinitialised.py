from __future__ import annotations

import torch

from latentiqa.backbones.reinitialised import reinitialised
from latentiqa.backbones.source import BackboneSource


def test_the_control_is_random_but_for_the_autoencoder(micro64):
    before = {name: value.clone() for name, value in micro64.state_dict().items()}
    state = torch.get_rng_state()
    control = reinitialised(micro64, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert control.vae is micro64.vae
    assert control.dtype == torch.float64
    assert control.scheduler is micro64.scheduler
    assert control.identity != micro64.identity
    assert not any(p.requires_grad for p in control.parameters())
    after = micro64.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    drawn = control.state_dict()
    for part in ("unet.conv_in.weight", "unet.conv_out.weight"):
        assert drawn[part].shape == before[part].shape
        assert not torch.equal(drawn[part], before[part])
    states, own = (m.context("a photo")["encoder_hidden_states"] for m in (control, micro64))
    assert not torch.equal(states, own)
    same, other = (reinitialised(micro64, seed).state_dict() for seed in (1, 2))
    assert all(torch.equal(same[name], value) for name, value in drawn.items())
    assert not torch.equal(other["unet.conv_in.weight"], drawn["unet.conv_in.weight"])


def test_the_source_of_an_untrained_model_loads_the_control(micro_folder):
    trained = BackboneSource("micro", str(micro_folder), 64).load()
    control = BackboneSource("micro", str(micro_folder), 64, untrained=True).load()
    expected = reinitialised(trained)
    drawn = control.state_dict()
    assert all(torch.equal(drawn[name], v) for name, v in expected.state_dict().items())
    assert control.identity == expected.identity != trained.identity
    assert not torch.equal(control.unet.conv_in.weight, trained.unet.conv_in.weight)
