from __future__ import annotations

import json
import statistics

import pytest
from miniatures import write_image
from PIL import Image
from scripts import script

from latentiqa.errors import ConfigError

MEASURE = script("input_pipeline", "measure")
TINY = ["--size", "16", "--batch-size", "2", "--count", "5", "--rounds", "3"]


def test_every_way_is_measured_and_does_the_same(tmp_path):
    for seed, name in enumerate(["a.png", "b.jpg", "c.png"]):
        write_image(tmp_path / "photos" / name, seed, (40, 30))
    MEASURE.main([str(tmp_path / "out"), "--pictures", str(tmp_path / "photos"), *TINY])
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results["ways"]) == [
        *("plain Pillow loop", "pipeline, 0 workers", "pipeline, 1 workers", "pipeline, 2 workers")
    ]
    plain = results["ways"]["plain Pillow loop"]["images_per_second"]
    for found in results["ways"].values():
        seconds = [one["whole"] for one in found["passes"]]
        assert len(seconds) == 3
        assert all(0 < one["first"] < one["whole"] for one in found["passes"])
        assert found["images_per_second"] == pytest.approx(5 / statistics.median(seconds))
        assert found["against_plain"] == pytest.approx(found["images_per_second"] / plain)
    assert 0 < results["largest_mean_difference"] < 1
    assert results["pictures"]["formats"] == {"PNG": 2, "JPEG": 1}
    assert (results["pictures"]["a_pass"], results["pictures"]["different"]) == (5, 3)
    table = (tmp_path / "out" / "table.md").read_text()
    assert len([line for line in table.splitlines() if line.startswith("|")]) == 2 + 4 + 1
    assert "3 pictures (2 PNG, 1 JPEG; median 0.001 megapixels), 5 a pass, to 16 pixels" in table


def test_without_a_folder_the_photos_of_scikit_image_are_taken(tmp_path):
    folder = MEASURE.write_photos(tmp_path, ["chelsea"])
    sizes = {}
    for path in folder.iterdir():
        with Image.open(path) as image:
            sizes[path.name] = image.size
    assert sizes == {"chelsea.png": (451, 300), "chelsea.jpg": (451, 300)}


def test_what_cannot_be_measured_is_refused(tmp_path):
    write_image(tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ConfigError, match="--rounds=2: expected an integer >= 3"):
        MEASURE.main([str(tmp_path), "--rounds", "2"])
    with pytest.raises(ConfigError, match=r"a.png: not a picture .*leave it out of --pictures"):
        MEASURE.main([str(tmp_path), "--pictures", str(tmp_path)])
