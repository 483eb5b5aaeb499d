from __future__ import annotations

import pytest
from miniatures import write_image
from PIL import Image
from scripts import script

PICTURES = script("compare", "pictures")


def test_inputs_have_their_pristine_ones_and_others_are_for_the_models(tmp_path):
    for i in range(4):
        write_image(tmp_path / "photos" / f"{i}.png", i, (40, 32))
    out = tmp_path / "out"
    options = ["--pictures", str(tmp_path / "photos"), "--count", "1", "--size", "32"]
    PICTURES.main([str(out), *options])
    names = {folder.name: {p.name for p in folder.iterdir()} for folder in out.iterdir()}
    assert names["inputs"] == names["pristine"] == {f"0_{kind}.png" for kind in PICTURES.KINDS}
    assert names["good"] == {"1.png", "2.png", "3.png"}
    assert len(names["reference"]) == 6
    for name in names["inputs"]:
        pair = [(out / folder / name).read_bytes() for folder in ("inputs", "pristine")]
        assert pair[0] != pair[1]
        with Image.open(out / "inputs" / name) as image:
            assert image.size == (32, 32)
    options[options.index("1")] = "2"
    with pytest.raises(SystemExit, match="of another call"):
        PICTURES.main([str(out), *options])
