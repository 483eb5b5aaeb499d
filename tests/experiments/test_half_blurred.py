from __future__ import annotations

import json

import pytest
import torch
from miniatures import write_image
from PIL import Image
from scripts import script

from latentiqa.genziqa.rater import Design, PromptRater

HALF = script("genziqa", "half_blurred")


def test_one_half_is_blurred_and_the_other_is_not():
    image = torch.rand(3, 32, 48)
    for side, own, other in (
        ("left", slice(None, 24), slice(24, None)),
        ("right", slice(24, None), slice(None, 24)),
    ):
        out = HALF.half_blurred(image, side, level=4)
        assert torch.equal(out[:, :, other], image[:, :, other])
        assert out[:, :, own].std() < 0.5 * image[:, :, own].std()


def test_a_rise_is_on_the_side_that_is_asked_for():
    before, after = torch.rand(4, 8), torch.zeros(4, 8)
    after[:, 4:] = 0.5
    after += before + 7  # what rises everywhere says nothing
    assert HALF.rise(before, after, "right") == pytest.approx(0.5, abs=1e-5)
    assert HALF.rise(before, after, "left") == pytest.approx(-0.5, abs=1e-5)


def test_the_command_writes_results_and_a_figure(micro_folder, tmp_path, monkeypatch, capsys):
    from latentiqa.backbones.stable_diffusion import StableDiffusion

    design = Design(context=0, tuning="none", score="contrast", timesteps=[9])
    rater = PromptRater(StableDiffusion.from_folder(micro_folder), design)
    monkeypatch.setattr(HALF, "zero_shot", lambda size: rater)
    for seed, name in enumerate(["a.png", "b.png", "c.png"]):
        write_image(tmp_path / "photos" / name, seed, (40, 30))
    HALF.main([str(tmp_path / "photos"), "--size", "64", "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    rises = [row["rise"] for row in results["photos"]]
    for prompt, found in results["prompts"].items():
        assert found["photos"] == 3
        assert found["higher"] == sum(rise[prompt] > 0 for rise in rises)
        assert found["low"] <= found["higher"] / 3 <= found["high"]
        assert f"{prompt}: higher on the blurred half of {found['higher']} of 3\n" in printed
    for rise in rises:
        assert rise["bad - good"] == pytest.approx(rise["bad"] - rise["good"], abs=1e-5)
    with Image.open(tmp_path / "half_blurred.png") as figure:
        assert min(figure.size) > 100
