from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch

from latentiqa import precision
from latentiqa.backbones.source import BackboneSource
from latentiqa.precision import MIXED, slowdown, warn_if_slow


@pytest.fixture(autouse=True)
def first_time():
    """It is told once a process."""
    warn_if_slow.cache_clear()
    yield
    warn_if_slow.cache_clear()


@pytest.fixture
def emulated(monkeypatch):
    """A CPU without instructions for low precision."""
    monkeypatch.setattr(precision, "slowdown", lambda dtype: 95.4)


def test_a_cpu_that_emulates_says_so_once(emulated, caplog):
    for _ in range(2):
        warn_if_slow(torch.bfloat16, "cpu")
    assert caplog.text.count("bfloat16 on this CPU: a convolution takes 95 times as long") == 1
    assert "backbone.dtype=float32" in caplog.text


@pytest.mark.parametrize(
    ("dtype", "device"),
    [(torch.bfloat16, "cuda"), (torch.float32, "cpu"), (MIXED.get("32-true"), "cpu")],
)
def test_others_say_nothing(dtype, device, emulated, caplog):
    warn_if_slow(dtype, device)
    assert not caplog.text


def test_a_cpu_that_is_fast_enough_says_nothing(monkeypatch, caplog):
    monkeypatch.setattr(precision, "slowdown", lambda dtype: 2.0)
    warn_if_slow(torch.bfloat16, "cpu")
    assert not caplog.text


def test_the_slowdown_is_measured(monkeypatch):
    def seconds(dtype):
        return {torch.float32: 0.5, torch.bfloat16: 3.0}[dtype]

    monkeypatch.setattr(precision, "_seconds", seconds)
    assert slowdown(torch.bfloat16) == 6


def test_measuring_leaves_random_numbers_alone():
    state = torch.get_rng_state()
    slowdown(torch.bfloat16)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_backbone_in_low_precision_says_so(emulated, micro_folder, caplog):
    source = BackboneSource("micro", str(micro_folder), resolution=64)
    with caplog.at_level(logging.WARNING):
        source.load()
        assert not caplog.text
        replace(source, dtype="bfloat16").load()
    assert "bfloat16 on this CPU" in caplog.text
