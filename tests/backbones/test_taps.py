from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from latentiqa.backbones.addresses import layer_modules


@pytest.fixture
def latents():
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def n_hooks(unet) -> int:
    return sum(len(module._forward_hooks) for module in unet.modules())


@pytest.mark.parametrize(
    "last", ["down.0.resnet.0", "down.1.attn.1", "mid.resnet.1", "up.1.resnet.2", "up.3.attn.2"]
)
def test_maps_of_a_cut_pass_equal_those_of_the_full_pass(tiny, latents, last):
    context = tiny.context("", 2)
    addresses = list(layer_modules(tiny.unet))
    addresses = addresses[: addresses.index(last) + 1]
    with torch.no_grad():
        _, full = tiny.predict_noise(latents, 50, context, addresses)
        cut = tiny.maps(latents, 50, context, addresses)
    assert list(cut) == addresses
    for address in addresses:
        assert torch.equal(cut[address], full[address])


def test_what_lies_behind_the_last_tap_is_not_computed(tiny, latents):
    ran: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda *_, address=address: ran.append(address))
        for address, module in layer_modules(tiny.unet).items()
    ]
    tiny.maps(latents, 50, tiny.context("", 2), ["up.1.resnet.0", "down.0.resnet.1"])
    for hook in hooks:
        hook.remove()
    assert ran[-1] == "up.1.resnet.0"
    assert "up.1.attn.0" not in ran


def test_a_cut_pass_costs_less(tiny, latents):
    def flops(run) -> int:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    context = tiny.context("", 2)
    full = flops(lambda: tiny.predict_noise(latents, 50, context))
    down = flops(lambda: tiny.maps(latents, 50, context, ["down.3.resnet.1"]))
    almost = flops(lambda: tiny.maps(latents, 50, context, ["up.3.resnet.2"]))
    assert down < 0.4 * full
    assert down < almost < full


def test_taps_change_nothing_and_leave_nothing(tiny, latents):
    context = tiny.context("", 2)
    with torch.no_grad():
        plain, none = tiny.predict_noise(latents, 50, context)
        tapped, maps = tiny.predict_noise(latents, 50, context, ["mid.attn.0", "up.0.resnet.0"])
    assert none == {}
    assert torch.equal(plain, tapped)
    assert n_hooks(tiny.unet) == 0
    kept = weakref.ref(maps.pop("mid.attn.0"))
    gc.collect()
    assert kept() is None


def test_hooks_are_removed_when_the_pass_fails(tiny, latents):
    with pytest.raises(RuntimeError):
        tiny.maps(latents, 50, {"encoder_hidden_states": torch.zeros(2, 77, 3)}, ["up.0.resnet.0"])
    assert n_hooks(tiny.unet) == 0


def test_the_backward_of_a_cut_pass_reaches_the_latents_only(tiny, latents):
    latents.requires_grad_()
    maps = tiny.maps(latents, 50, tiny.context("", 2), ["down.1.resnet.0"])
    maps["down.1.resnet.0"].square().sum().backward()
    assert latents.grad is not None
    assert latents.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in tiny.parameters())
