"""The study of what a student begins with."""

from __future__ import annotations

import json

from miniatures import write_biq2021
from scripts import script

STARTS = script("student", "starts")


def test_every_choice_has_a_row_and_no_test_picture_is_opened(tmp_path, monkeypatch):
    write_biq2021(tmp_path / "BIQ2021", train=40, test=4, size=64)
    opened = []
    read = STARTS.read_image
    monkeypatch.setattr(STARTS, "read_image", lambda path: opened.append(path.name) or read(path))
    STARTS.main([str(tmp_path), str(tmp_path / "BIQ2021")])
    results = json.loads((tmp_path / "starts.json").read_text())
    assert results["n"] == {"train": 35, "val": 5}
    assert len(set(opened)) == 40
    assert len(results["rows"]) == 2 * 3 * 2
    chosen = {(r["variant"], r["maps"], r["pooling"]): r["values"] for r in results["rows"]}
    assert chosen["lite0", "stages", "mean_std"] == 2 * (40 + 80 + 112 + 192 + 320)
    assert (tmp_path / "starts.md").read_text().count("\n") == 2 + len(results["rows"])
