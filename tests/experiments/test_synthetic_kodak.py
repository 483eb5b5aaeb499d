from __future__ import annotations

import numpy as np
import pytest
from miniatures import write_image
from PIL import Image
from scripts import script

from latentiqa.data.distortions import to_bytes
from latentiqa.data.kadid import distort
from latentiqa.errors import ConfigError

SHEET = script("synthetic_kodak", "contact_sheet")
GAP, HEADER, LABEL_WIDTH = SHEET.GAP, SHEET.HEADER, SHEET.LABEL_WIDTH


def test_a_cell_is_the_middle_of_the_distorted_picture():
    picture = np.random.default_rng(0).random((160, 128, 3), dtype=np.float32)
    sheet = np.asarray(SHEET.contact_sheet(picture, tile=16, seed=3))
    assert sheet.shape == (HEADER + 25 * (16 + GAP), LABEL_WIDTH + 6 * (16 + GAP), 3)
    top = 64 + 8, 48 + 8
    middle = np.s_[top[0] : top[0] + 16, top[1] : top[1] + 16]
    cell = sheet[HEADER : HEADER + 16, LABEL_WIDTH : LABEL_WIDTH + 16]
    assert np.array_equal(cell, to_bytes(picture)[middle])
    darkest = sheet[HEADER + 16 * (16 + GAP) :, LABEL_WIDTH + 5 * (16 + GAP) :][:16, :16]
    square = picture[64:96, 48:80]
    assert np.array_equal(darkest, to_bytes(distort(square, 17, 5, 3)[8:24, 8:24]))


@pytest.mark.parametrize("tile", [15, 65])
def test_tiles_that_the_picture_is_too_small_for(tile):
    with pytest.raises(ConfigError, match=f"tile={tile}: expected 16 or more"):
        SHEET.contact_sheet(np.zeros((160, 128, 3), np.float32), tile)


def test_the_command_writes_the_sheet(tmp_path, monkeypatch):
    monkeypatch.setattr(SHEET, "OUTPUT", tmp_path / "sheet.png")
    write_image(tmp_path / "photos" / "b.png", 0, (160, 150))
    SHEET.main(str(tmp_path / "photos"))
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (LABEL_WIDTH + 6 * (72 + GAP), HEADER + 25 * (72 + GAP))
