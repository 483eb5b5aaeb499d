from __future__ import annotations

import torch

from latentiqa.dpiqa.prompts import (
    COARSE_DISTORTIONS,
    FINE_DISTORTIONS,
    QUALITIES,
    SCENES,
    prompt_features,
    prompts,
)
from latentiqa.dpiqa.text_adapter import TextAdapter


def test_words_are_as_many_as_liqe_has_and_none_is_there_twice():
    counts = (len(QUALITIES), len(SCENES), len(COARSE_DISTORTIONS), len(FINE_DISTORTIONS))
    assert counts == (5, 9, 11, 33)
    assert len(set(prompts(COARSE_DISTORTIONS))) == 495
    assert len(set(prompts(FINE_DISTORTIONS))) == 1485


def test_a_feature_is_the_state_at_the_end_of_the_text(micro, monkeypatch):
    """In batches as alone, and as transformers pools it."""
    texts = ["a photo", "a photo of a human", "noise"]
    monkeypatch.setattr("latentiqa.dpiqa.prompts.AT_ONCE", 2)
    features = prompt_features(micro, texts)
    assert features.shape == (3, 64)
    for text, feature in zip(texts, features, strict=True):
        tokens = micro.tokenizer(text, padding="max_length", max_length=77, return_tensors="pt")
        states = micro.text_encoder(tokens.input_ids).last_hidden_state[0]
        end = tokens.input_ids[0].tolist().index(micro.tokenizer.eos_token_id)
        torch.testing.assert_close(feature, states[end], atol=1e-5, rtol=0)


def test_the_text_adapter_leaves_the_prompts_at_first_but_for_gamma():
    torch.manual_seed(0)
    adapter = TextAdapter(64)
    c = torch.randn(1, 30, 64)
    torch.testing.assert_close(adapter(c) - c, 1e-4 * adapter.mlp(c), atol=1e-6, rtol=0)
    adapter.gamma.data.zero_()
    assert torch.equal(adapter(c), c)
    adapter(c).square().sum().backward()
    assert adapter.gamma.grad is not None
    assert adapter.gamma.grad.abs().min() > 0
