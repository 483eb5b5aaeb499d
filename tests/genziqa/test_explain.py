from __future__ import annotations

import pytest
import torch

from latentiqa.errors import ConfigError
from latentiqa.genziqa.attention import logits, read_attention
from latentiqa.genziqa.explain import folded, heat_maps, mean_map
from latentiqa.genziqa.rater import Design, PromptRater
from latentiqa.noise import image_noise
from latentiqa.trajectory import add_noise

ZERO_SHOT = {"context": 0, "tuning": "none"}


@torch.no_grad()
@pytest.mark.parametrize("tokens", ["all", "text"])
def test_maps_are_mean_logits_of_each_place(tokens, attentive):
    torch.manual_seed(0)
    image, layers = torch.rand(1, 3, 64, 128), ["down.0.attn.0", "mid.attn.0"]
    design = Design(**ZERO_SHOT, timesteps=[9, 45], layers=layers, score="contrast", tokens=tokens)
    rater = PromptRater(attentive, design)
    good, bad = heat_maps(rater, image, "a.png")
    for prompt, maps in zip(design.pair, (good, bad), strict=True):
        states = attentive.context(prompt)["encoder_hidden_states"]
        z0 = attentive.encode(image)
        z_t = add_noise(z0, image_noise(["a.png"], 45, z0.shape[1:]), attentive.rates(45))
        run = lambda z_t=z_t, states=states: attentive.unet(z_t, 45, states).sample  # noqa: E731
        _, whole = read_attention(attentive.unet, layers, run, logits, need_output=False)
        length = 1 + len(prompt.replace(" ", "")) + 1
        own = slice(1, length) if tokens == "text" else slice(None)
        for layer, shape in zip(layers, ((8, 16), (1, 2)), strict=True):
            expected = whole[layer][0, :, :, own].mean(dim=(0, 2)).view(shape)
            torch.testing.assert_close(maps[45][layer], expected, atol=1e-5, rtol=1e-5)
    assert list(good) == [45, 9]


def test_the_mean_is_of_maps_of_one_size():
    maps = {9: {"a": torch.ones(2, 4), "b": torch.zeros(4, 8)}, 45: {"a": 3 * torch.ones(2, 4)}}
    torch.testing.assert_close(mean_map(maps), torch.full((4, 8), 4 / 3))
    assert folded(torch.rand(3, 32), 16, 32).shape == (3, 4, 8)


@torch.no_grad()
def test_attributes_are_contrasts(rater_of, attentive, pictures):
    image, names = pictures[0][:2], pictures[1][:2]
    pairs = {"sharpness": ["sharp photo", "blurry photo"], "noise": ["clean", "noisy"]}
    rater = rater_of(**ZERO_SHOT, attributes=pairs, layers=["up.*"])
    found = rater.attributes(image, names)
    contrast = Design(
        **ZERO_SHOT,
        pair=pairs["noise"],
        layers=["up.*"],
        score="contrast",
        timesteps=rater.design.timesteps,
    )
    torch.testing.assert_close(found["noise"], PromptRater(attentive, contrast)(image, names))
    assert list(found) == list(pairs)


def test_without_attention_there_is_nothing_to_show(rater_of, pictures):
    rater = rater_of(**ZERO_SHOT, score="loss")
    for ask in (heat_maps, lambda *a: rater.attributes(pictures[0][:1], ["a.png"])):
        with pytest.raises(ConfigError, match="it reads no attention; take one with"):
            ask(rater, pictures[0][:1], "a.png")
