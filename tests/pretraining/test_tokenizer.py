from __future__ import annotations

import json

import pytest
from transformers import CLIPTokenizer

from latentiqa.backbones.tiny_random import byte_tokenizer
from latentiqa.data.captions import corpus
from latentiqa.errors import ConfigError
from latentiqa.pretraining.tokenizer import train_tokenizer

FOREIGN = ["Été à Zürich", "日本語の写真 😀", "\x00\x7f", "snake_case 3.14 — don't", "ﬁ ß ØÅ"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(corpus(), folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    return CLIPTokenizer.from_pretrained(folder)


def letters_of(text):
    """Spaces aside: around punctuation, CLIP's tokens do not say where they were."""
    return "".join(text.lower().split())


def test_captions_survive(tokenizer):
    for text in corpus():
        ids = tokenizer(text).input_ids
        assert ids[0] == tokenizer.bos_token_id
        assert ids[-1] == tokenizer.eos_token_id
        decoded = tokenizer.decode(ids, skip_special_tokens=True)
        assert letters_of(decoded) == letters_of(text)


def test_captions_are_short(tokenizer):
    lengths = [len(tokenizer(text).input_ids) for text in corpus()]
    assert sum(length < 24 for length in lengths) > 0.95 * len(lengths)
    # Every word of the captions is one token.
    assert tokenizer.tokenize("A slightly blurry photo.") == [
        "a</w>",
        "slightly</w>",
        "blurry</w>",
        "photo</w>",
        ".</w>",
    ]


@pytest.mark.parametrize("text", FOREIGN)
def test_every_text_has_tokens(tokenizer, text):
    ids = tokenizer(text).input_ids
    # The unknown token is the end token.
    assert tokenizer.eos_token_id not in ids[1:-1]
    decoded = tokenizer.decode(ids, skip_special_tokens=True)
    assert letters_of(decoded) == letters_of(text)


def test_layout_is_that_of_clip(folder, tokenizer, tmp_path):
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    merges = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    byte_tokenizer(tmp_path)
    of_bytes = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    *letters, start, end = of_bytes
    merged = [merge.replace(" ", "") for merge in merges]
    assert list(vocabulary) == [*letters, *merged, start, end]
    assert list(vocabulary.values()) == list(range(len(vocabulary)))
    assert len(tokenizer) == len(vocabulary) <= 1024
    assert (tokenizer.bos_token, tokenizer.eos_token) == (start, end)
    assert tokenizer.pad_token == end


def test_prompts_are_cut_and_padded(tokenizer):
    for text in ("good photo", "z q " * 60):
        ids = tokenizer(text, padding="max_length", truncation=True).input_ids
        assert len(ids) == tokenizer.model_max_length == 48


def test_vocabulary_has_its_limit(tmp_path):
    tokenizer = train_tokenizer(corpus(), tmp_path / "small", vocab_size=530, max_length=77)
    assert len(tokenizer) == 530
    assert tokenizer.model_max_length == 77
    assert len(train_tokenizer([], tmp_path / "bytes", vocab_size=514)) == 514


def test_same_texts_same_files(folder, tmp_path):
    """Often: the trainer's own hash maps are in another order each time."""
    for again in range(8):
        train_tokenizer(corpus(), tmp_path / str(again))
        for file in ("vocab.json", "merges.txt", "tokenizer_config.json"):
            assert (tmp_path / str(again) / file).read_bytes() == (folder / file).read_bytes()


def test_arguments_are_checked(tmp_path):
    with pytest.raises(ConfigError, match="vocab_size=513: expected >= 514"):
        train_tokenizer(["a"], tmp_path, vocab_size=513)
    with pytest.raises(ConfigError, match="max_length=2: expected >= 3"):
        train_tokenizer(["a"], tmp_path, max_length=2)
    assert not any(tmp_path.iterdir())
