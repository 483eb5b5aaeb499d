from __future__ import annotations

import pytest
import torch
from pipelines import write_pipeline

from latentiqa.backbones.addresses import cross_attentions, expand_cross_attentions, layer_modules
from latentiqa.backbones.source import BackboneSource
from latentiqa.errors import ConfigError
from latentiqa.genziqa import attention
from latentiqa.genziqa.attention import logits, place_means, pooled, read_attention


@pytest.fixture
def seen(tiny):
    """Noisy latents, text, and a pass over them, of the layout of Stable Diffusion."""
    generator = torch.Generator().manual_seed(0)
    z_t = torch.randn(2, 4, 8, 8, generator=generator)
    text = torch.randn(2, 77, 64, generator=generator)
    return z_t, text, lambda: tiny.unet(z_t, 45, text).sample


def by_hand(unet, run):
    """Logits from what goes into each attention and from its weights alone."""
    found, hooks = {}, []
    for address, module in cross_attentions(unet).items():

        def hook(module, args, kwargs, address=address):
            states, text = args[0], kwargs["encoder_hidden_states"]
            q = states.double() @ module.to_q.weight.double().T
            k = text.double() @ module.to_k.weight.double().T
            b, n, width = q.shape
            d = width // module.heads
            q = q.view(b, n, module.heads, d)
            k = k.view(b, -1, module.heads, d)
            found[address] = torch.einsum("bnhd,bkhd->bhnk", q, k) / d**0.5

        hooks.append(module.register_forward_pre_hook(hook, with_kwargs=True))
    output = run()
    for hook in hooks:
        hook.remove()
    return output, found


@torch.no_grad()
def test_logits_of_every_layer_are_those_of_the_weights(tiny, seen):
    run = seen[2]
    plain, expected = by_hand(tiny.unet, run)
    layers = list(cross_attentions(tiny.unet))
    output, read = read_attention(tiny.unet, layers, run, logits, need_output=True)
    assert len(layers) == 16
    assert list(read) == list(expected)
    assert torch.equal(output, plain)  # the block goes on as it would have
    for layer in layers:
        assert read[layer].dtype == torch.float32
        assert read[layer].shape[:2] + read[layer].shape[3:] == (2, 2, 77)
        torch.testing.assert_close(read[layer].double(), expected[layer], atol=1e-5, rtol=0)
    spread = torch.stack([one.std() for one in expected.values()])
    assert spread.min() > 1e-2  # so that 1e-5 says something


@torch.no_grad()
def test_a_low_precision_model_is_pooled_in_float32(tiny, seen):
    run = seen[2]
    layers = ["mid.attn.0"]
    with torch.autocast("cpu", torch.bfloat16):
        _, low = read_attention(
            tiny.unet, layers, run, lambda q, k: pooled(q, k, 0.14), need_output=False
        )
    _, full = read_attention(
        tiny.unet, layers, run, lambda q, k: pooled(q, k, 0.14), need_output=False
    )
    assert low["mid.attn.0"].dtype == torch.float32
    torch.testing.assert_close(low["mid.attn.0"], full["mid.attn.0"], atol=0.05, rtol=0.01)


def test_nothing_behind_the_last_layer_that_is_read_is_run(tiny, seen):
    ran = []
    layers = layer_modules(tiny.unet)
    hooks = [
        module.register_forward_pre_hook(lambda _m, _i, address=address: ran.append(address))
        for address, module in layers.items()
    ]
    before = dict(tiny.unet.attn_processors)
    try:
        with torch.no_grad():
            output, read = read_attention(
                tiny.unet, ["up.1.attn.1", "mid.attn.0"], seen[2], logits, need_output=False
            )
    finally:
        for hook in hooks:
            hook.remove()
    assert output is None
    assert list(read) == ["mid.attn.0", "up.1.attn.1"]
    assert ran[-1] == "up.1.attn.1"
    assert tiny.unet.attn_processors == before


def test_pooling_holds_a_part_of_the_logits_and_has_their_gradient(monkeypatch):
    torch.manual_seed(0)
    query, key = (torch.randn(2, 3, n, 4, dtype=torch.float64) for n in (50, 7))
    weight = torch.randn(2, 3, 7, dtype=torch.float64)
    largest = []

    def spied(places, key):
        largest.append(places.shape[2])
        return logits(places, key)

    def gradients(function):
        q, k = query.clone().requires_grad_(), key.clone().requires_grad_()
        s = function(q, k)
        (s * weight).sum().backward()
        return s.detach(), q.grad, k.grad

    whole = gradients(lambda q, k: (2.5 * (q @ k.mT)).logsumexp(dim=2) / 2.5)
    monkeypatch.setattr(attention, "logits", spied)
    monkeypatch.setattr(attention, "QUERIES_AT_ONCE", 16)
    for part, expected in zip(gradients(lambda q, k: pooled(q, k, 2.5)), whole, strict=True):
        torch.testing.assert_close(part, expected)
    assert sorted(largest) == [2, 2, *[16] * 6]  # forward, and again for the gradient


def test_pooling_does_not_overflow():
    query, key = 1e3 * torch.ones(1, 1, 3, 4), torch.ones(1, 1, 2, 4)
    expected = 4e3 + torch.tensor(3.0).log() / 0.5
    torch.testing.assert_close(pooled(query, key, 0.5), expected.expand(1, 1, 2))


def test_a_heat_map_is_a_mean_of_logits():
    torch.manual_seed(0)
    query, key = torch.randn(2, 3, 50, 4), torch.randn(2, 3, 7, 4)
    weights = torch.rand(2, 7).softmax(dim=1)
    expected = torch.einsum("bhnk,bk->bn", logits(query, key), weights) / 3
    torch.testing.assert_close(place_means(query, key, weights), expected)


def test_addresses_of_attention_to_the_prompt(tiny, tmp_path):
    addresses = expand_cross_attentions(["*"], tiny.unet)
    assert addresses[0] == "down.0.attn.0"
    assert addresses == [a for a in layer_modules(tiny.unet) if ".attn." in a]
    assert expand_cross_attentions(["up.2.*", "mid.*"], tiny.unet) == [
        "mid.attn.0",
        *(f"up.2.attn.{i}" for i in range(3)),
    ]
    with pytest.raises(ConfigError, match=r"'up.0.\*' matches no attention to the prompt of this"):
        expand_cross_attentions(["up.0.*"], tiny.unet)
    for family, expected in (("pixart", "block.0"), ("sd3", None), ("ldm", None)):
        write_pipeline(family, tmp_path / family)
        denoiser = BackboneSource(family, str(tmp_path / family), resolution=64).load().denoiser
        if expected is None:
            with pytest.raises(ConfigError, match="has no attention to the prompt alone"):
                expand_cross_attentions(["*"], denoiser)
        else:
            assert expand_cross_attentions(["*"], denoiser)[0] == expected
