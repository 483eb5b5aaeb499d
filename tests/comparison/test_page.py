"""The page's files: whole, by themselves, and telling nothing on the screen."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentiqa.comparison.page import STATIC, Options, degraded, write_page
from latentiqa.errors import ConfigError, DataError

VOID = {"meta", "link", "img", "input", "br"}


class Checked(HTMLParser):
    """Every element is closed, every id stands once."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.files: list[str] = []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.files += [found[key] for key in ("src", "href") if key in found]
        assert not [key for key in found if key.startswith("on")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def study_of(page: Path) -> dict:
    text = (page / "study.js").read_text()
    return json.loads(re.fullmatch(r'"use strict";\nconst STUDY = (.*);\n', text, re.S)[1])


def test_the_page_is_valid_and_needs_nothing_from_elsewhere(make_page):
    page = make_page()
    checked = Checked()
    checked.feed((page / "index.html").read_text())
    assert not checked.open
    assert len(set(checked.ids)) == len(checked.ids)
    own = [file for file in checked.files if file != "data:,"]
    assert {"study.js", "page.css"} <= set(own)
    assert all((page / file).is_file() for file in own)
    for name in (*STATIC, "study.js"):
        assert "//" not in re.sub(r"^\s*//.*| // .*", "", (page / name).read_text(), flags=re.M)
    asked = set(re.findall(r'\$\("([\w-]+)"\)', (page / "page.js").read_text()))
    assert asked <= set(checked.ids)


def test_every_picture_is_there_and_named_by_its_content(make_page):
    page = make_page(title="Which?", trials=3)
    study = study_of(page)
    assert study["title"] == "Which?"
    assert study["trials"] == 3
    assert study["models"] == ["best", "middle", "worst"]
    files = [file for p in study["pictures"] for file in (*p["results"].values(), p["degraded"])]
    files += [p["input"] for p in study["pictures"]]
    assert len(set(files)) == 2 * 5
    assert all(re.fullmatch(r"pictures/[0-9a-f]{16}\.png", file) for file in files)
    assert {f"pictures/{path.name}" for path in (page / "pictures").iterdir()} == set(files)


def test_names_stay_text(make_page):
    suffix = "</script><img src=x> \u2028 é"
    page = make_page(suffix=suffix)
    text = (page / "study.js").read_text()
    assert "<" not in text
    assert text.isascii()
    assert study_of(page)["pictures"][0]["name"] == f"picture 0{suffix}"
    for name in STATIC:
        # Text is put into the page as text alone.
        assert not re.search(
            r"innerHTML|outerHTML|document\.write|eval\(", (page / name).read_text()
        )


def test_a_page_that_is_written_again_loses_what_it_does_not_show(make_page, tmp_path):
    first = study_of(make_page())
    folder = tmp_path / "made" / "0"
    (tmp_path / "page" / "pictures" / "mine.png").write_bytes(b"")
    results = {model: folder / f"{model}.png" for model in ("best", "worst")}
    second = write_page(tmp_path / "page", {"x": (folder / "input.png", results)}, Options())
    assert second != first["study"]
    assert len(list((tmp_path / "page" / "pictures").iterdir())) == 4 + 1
    assert second == write_page(
        tmp_path / "page", {"x": (folder / "input.png", results)}, Options()
    )


def test_a_page_needs_the_same_models_everywhere(make_page, tmp_path):
    make_page()
    path = tmp_path / "made" / "0" / "input.png"
    for shown in ({}, {"x": (path, {"a": path})}):
        with pytest.raises(DataError, match="the same two or more models"):
            write_page(tmp_path / "other", shown, Options())
    for wrong in ({"title": " "}, {"trials": 0}, {"repeats": -1}, {"catch_every": 1.5}):
        with pytest.raises(ConfigError, match=r"page\.\w+="):
            Options(**wrong)


@pytest.mark.parametrize("size", [(48, 64), (1000, 700)])
def test_degraded_pictures_look_worse_at_any_size(size):
    """Seen as large as a thumbnail, too, where a blur of pixels would be gone."""
    coarse = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    image = torch.nn.functional.interpolate(coarse, size, mode="nearest")[0]
    worse = degraded(image)
    assert worse.shape == image.shape

    def thumbnail(x):
        picture = Image.fromarray((x.permute(1, 2, 0).numpy() * 255).astype(np.uint8))
        return np.asarray(picture.resize((96, 96)), dtype=float) / 255

    assert np.abs(thumbnail(worse) - thumbnail(image)).mean() > 0.04
