from __future__ import annotations

from pathlib import Path

from latentiqa.paths import cache_dir


def test_cache_dir_order(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("LATENTIQA_CACHE", "~/own")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_dir() == Path("/home/ada/own")
    monkeypatch.delenv("LATENTIQA_CACHE")
    assert cache_dir() == Path("/xdg/latentiqa")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_dir() == Path("/home/ada/.cache/latentiqa")
