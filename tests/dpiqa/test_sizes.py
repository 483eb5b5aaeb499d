"""The teacher at the size of Stable Diffusion 1.5, on the meta device: no memory, no arithmetic."""

from __future__ import annotations

import pytest
from scripts import script

from latentiqa.runs import read_json

sizes = script("dpiqa", "sizes")


@pytest.fixture(scope="module")
def teacher():
    return sizes.true_size_teacher("meta")


def test_parameters_are_as_many_as_the_paper_says(teacher):
    """77.4 M and 42.9 M are the paper's, as is about 0.98 B in all; the rest follows."""
    counts = {part: round(n / 1e6, 1) for part, n in sizes.parameters(teacher).items()}
    # conv_norm_out and conv_out, 0.01 M behind the last tap, are not trained.
    assert counts == {
        **{"U-Net": 859.5, "text adapter": 1.2, "image adapter": 77.4, "decoder": 42.9},
        "all that is trained": 981.0,
    }


def test_maps_have_the_paper_s_shapes(teacher):
    found = sizes.shapes(teacher)
    assert found == {part: sizes.PAPER[part] for part in found}


def test_the_student_is_as_large_as_the_paper_s():
    counted, *maps = sizes.student_sizes().values()
    assert counted == "81.01 M"
    assert maps == ["2560x16x16", "8x64x64"]


def test_the_table_is_written(tmp_path, capsys):
    sizes.main([str(tmp_path)])
    assert (tmp_path / "sizes.md").read_text() == capsys.readouterr().out.rstrip("\n") + "\n"
    assert list(read_json(tmp_path / "sizes.json")["sizes"]) == list(sizes.PAPER)
