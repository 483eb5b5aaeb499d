"""A small page of three models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from latentiqa.comparison.page import Options, write_page

MODELS = ("best", "middle", "worst")
"""In the order of their quality: less and less blurred."""


@pytest.fixture
def make_page(tmp_path) -> Callable[..., Path]:
    """Write a page of noise that each model blurs more than the one before; its folder."""

    def make(count: int = 2, size: int = 64, suffix: str = "", **options) -> Path:
        shown = {}
        for i in range(count):
            seeds = np.random.default_rng(i).integers(0, 256, (size // 4, size // 4, 3), np.uint8)
            picture = Image.fromarray(seeds).resize((size, size), Image.Resampling.BICUBIC)
            name = f"picture {i}{suffix}"
            folder = tmp_path / "made" / str(i)
            folder.mkdir(parents=True)
            picture.save(folder / "input.png")
            for blur, model in enumerate(MODELS, 1):
                picture.filter(ImageFilter.GaussianBlur(blur)).save(folder / f"{model}.png")
            results = {model + suffix: folder / f"{model}.png" for model in MODELS}
            shown[name] = (folder / "input.png", results)
        write_page(tmp_path / "page", shown, Options(**options))
        return tmp_path / "page"

    return make
