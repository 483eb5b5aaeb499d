from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel

from latentiqa.backbones.addresses import Layers, expand, layer_channels, layer_modules
from latentiqa.errors import ConfigError


@pytest.fixture(scope="module")
def sd15_unet():
    """Stable Diffusion 1.5's own layout, on the meta device: no memory is needed."""
    with torch.device("meta"):
        return UNet2DConditionModel(cross_attention_dim=768)


def test_stable_diffusion_has_twelve_up_resnets_of_10560_channels(sd15_unet):
    up = expand(["up.*.resnet.*"], sd15_unet)
    channels = [layer_channels(layer_modules(sd15_unet)[a]) for a in up]
    assert channels == [1280] * 6 + [640] * 3 + [320] * 3
    assert sum(channels) == 10_560


def test_addresses_name_the_modules_that_they_say(sd15_unet):
    modules = layer_modules(sd15_unet)
    assert modules["up.1.resnet.2"] is sd15_unet.up_blocks[1].resnets[2]
    assert modules["down.0.attn.1"] is sd15_unet.down_blocks[0].attentions[1]
    assert modules["mid.attn.0"] is sd15_unet.mid_block.attentions[0]
    assert modules["down.2.downsample.0"] is sd15_unet.down_blocks[2].downsamplers[0]
    assert modules["up.0.upsample.0"] is sd15_unet.up_blocks[0].upsamplers[0]


def test_order_is_the_order_of_execution(tiny):
    modules = layer_modules(tiny.unet)
    ran: list[str] = []
    hooks = [
        module.register_forward_hook(lambda *_, address=address: ran.append(address))
        for address, module in modules.items()
    ]
    tiny.predict_noise(torch.zeros(1, 4, 8, 8), 1, tiny.context(""))
    for hook in hooks:
        hook.remove()
    assert ran == list(modules)


def test_channels_are_those_of_the_maps(tiny):
    addresses = list(layer_modules(tiny.unet))
    _, maps = tiny.predict_noise(torch.zeros(1, 4, 8, 8), 1, tiny.context(""), addresses)
    assert {a: m.shape[1] for a, m in maps.items()} == {a: tiny.channels(a) for a in addresses}


def test_globs_do_not_repeat_and_keep_the_order_of_execution(tiny):
    expanded = tiny.expand(["up.0.resnet.0", "mid.*", "*.resnet.*"])
    assert len(expanded) == len(set(expanded))
    assert expanded.index("mid.resnet.1") < expanded.index("up.0.resnet.0")
    assert "mid.attn.0" in expanded
    assert "up.1.attn.0" not in expanded


@pytest.mark.parametrize(
    ("patterns", "message"),
    [([], "expected a list"), ("up.*", "expected a list"), (["upp.1"], "'upp.1' names no stage")],
)
def test_bad_patterns_are_refused_before_there_is_a_model(patterns, message):
    with pytest.raises(ConfigError, match=message):
        Layers(patterns)


def test_a_pattern_without_a_match_names_what_there_is(tiny):
    with pytest.raises(ConfigError, match=r"'up.9.\*' matches no layer.*up.3.attn.2"):
        tiny.expand(["up.*", "up.9.*"])
