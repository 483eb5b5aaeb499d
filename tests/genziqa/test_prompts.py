from __future__ import annotations

import pytest
import torch

from latentiqa.errors import ConfigError
from latentiqa.genziqa.prompts import SPREAD, ContextTokens, encode

PAIR = ["Good Photo.", "A bad one"]


def states(encoded):
    return encoded.context["encoder_hidden_states"]


@pytest.mark.parametrize(
    ("position", "whole"),
    [("front", "sharp and {}"), ("end", "{} sharp and"), ("middle", "shar {} p and")],
)
def test_context_of_real_words_is_encoded_as_those_words(micro, position, whole):
    """One token a letter here: of eight the middle has four in front, "shar"."""
    words = whole.split("{}")
    vectors = [ContextTokens(micro, part).vectors for part in words if part.strip()]
    tokens = ContextTokens(micro, 8, position)
    tokens.vectors = torch.nn.Parameter(torch.cat(vectors))
    assert len(tokens.vectors) == 8
    with torch.no_grad():
        learnt = tokens.encode(micro, PAIR)
        plain = encode(micro, [whole.format(text) for text in PAIR])
    torch.testing.assert_close(states(learnt), states(plain), atol=1e-6, rtol=0)
    assert torch.equal(learnt.text, plain.text)
    other = encode(micro, PAIR)
    assert (states(other) - states(learnt)).abs().max() > 1e-2


def test_random_context_is_small_shared_and_learns(micro):
    tokens = ContextTokens(micro, 16)
    assert tokens.vectors.shape == (16, 64)
    assert tokens.vectors.std().item() == pytest.approx(SPREAD, rel=0.1)
    encoded = tokens.encode(micro, PAIR)
    assert states(encoded).shape == (2, 77, 64)
    # The start and the context stand before the words: with causal attention they are the same.
    torch.testing.assert_close(states(encoded)[0, :17], states(encoded)[1, :17])
    assert not torch.allclose(states(encoded)[0, 17:], states(encoded)[1, 17:])
    states(encoded).square().sum().backward()
    assert tokens.vectors.grad is not None
    assert (tokens.vectors.grad.abs().sum(dim=1) > 0).all()
    assert all(p.grad is None for p in micro.text_encoder.parameters())
    assert not micro.text_encoder.get_input_embeddings()._forward_hooks


def test_text_is_what_is_said_and_its_end(micro):
    text = encode(micro, ["ab", "abc"]).text
    assert text.shape == (2, 77)
    assert [row.nonzero().flatten().tolist() for row in text] == [[1, 2, 3], [1, 2, 3, 4]]


def test_prompts_that_do_not_fit_are_refused(micro):
    with pytest.raises(ConfigError, match=r"context=70 with .* set context to at most 6[456]"):
        ContextTokens(micro, 70).encode(micro, PAIR)
    with pytest.raises(ConfigError, match="expected words, or a number"):
        ContextTokens(micro, " ")


@pytest.mark.parametrize("family", ["sdxl", "pixart"])
def test_learnt_context_wants_clip_alone(family, tmp_path):
    from pipelines import write_pipeline

    from latentiqa.backbones.source import BackboneSource

    write_pipeline(family, tmp_path / family)
    backbone = BackboneSource(family, str(tmp_path / family), resolution=64).load()
    assert encode(backbone, PAIR).context["encoder_hidden_states"].shape[0] == 2
    with pytest.raises(ConfigError, match="set context=0 for fixed prompts"):
        ContextTokens(backbone, 4)
