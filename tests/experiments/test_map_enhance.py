from __future__ import annotations

import json

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from miniatures import write_image
from PIL import Image
from scripts import script

from latentiqa.backbones.source import BackboneSource
from latentiqa.backbones.tiny_random import UNET, VAE

ROUND_TRIP = script("map_enhance", "round_trip")
DEGRADED = script("map_enhance", "degraded")
RANDOM_SD15 = script("map_enhance", "random_sd15")


@pytest.fixture
def photos(tmp_path):
    for i in range(3):
        write_image(tmp_path / "photos" / f"{i}.png", i, (80, 70))
    return tmp_path / "photos"


def test_round_trips_and_memory_are_measured(photos, tmp_path, micro_folder):
    options = ["--pictures", str(photos), "--count", "1", "--size", "64", "--steps", "2"]
    options += ["--ways", "EDICT, inverse"]
    ROUND_TRIP.main([str(tmp_path / "out"), *options, "--backbone", str(micro_folder)])
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    errors = {row["chain"]: row["rms"] for row in found["round_trip"]}
    assert errors["EDICT"] < 1e-6 < errors["DDIM, 5 iterations"] < errors["DDIM"]
    (memory,) = found["memory"]
    assert 50 < memory["peak_memory_mb"] < 10_000
    assert (tmp_path / "out" / "table.md").read_text().count("| EDICT") == 2


def test_random_stable_diffusion_has_its_size(tmp_path, monkeypatch):
    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNET | RANDOM_SD15.UNET)
        vae = AutoencoderKL(**VAE | RANDOM_SD15.VAE)
    # of the published weights
    assert sum(p.numel() for p in unet.parameters()) == 859_520_964
    assert sum(p.numel() for p in vae.parameters()) == 83_653_863
    monkeypatch.setattr(RANDOM_SD15, "UNET", {})
    monkeypatch.setattr(RANDOM_SD15, "VAE", {})
    monkeypatch.setattr(RANDOM_SD15, "TEXT", {"num_hidden_layers": 1})
    RANDOM_SD15.main([str(tmp_path / "sd15")])
    backbone = BackboneSource("random", str(tmp_path / "sd15"), resolution=64).load()
    assert backbone.text_encoder.config.num_hidden_layers == 1


def test_degraded_photos_are_enhanced_and_measured(photos, tmp_path, micro_folder, monkeypatch):
    ascents = {
        name: (begins, [*typed, *(["space.chain.steps=1"] if "space=edict" in typed else [])])
        for name, (begins, typed) in DEGRADED.ASCENTS.items()
    }
    monkeypatch.setattr(DEGRADED, "ASCENTS", ascents)
    keys = ["backbone=folder", f"backbone.source={micro_folder}", "backbone.resolution=64"]
    keys += ["prior=callable", "prior.function=quality_models:brightness", "prior.centre=0.5"]
    keys += ["prior.spread=0.1", "ascent.iterations=1", "tiles.side=64", "tiles.overlap=0"]
    keys += ["way.kind=none", "ascent.rule.gain=1e6", "fidelity=mse"]
    keys += ["judges=[]"]
    out = tmp_path / "out"
    DEGRADED.main([str(out), "--pictures", str(photos), "--count", "2", "--size", "64", *keys])
    rows = json.loads((out / "results.json").read_text())["pictures"]
    assert len(rows) == 2 * (4 + 4 + 1)
    assert {row["kind"] for row in rows} == set(DEGRADED.KINDS)
    for row in rows:
        # They begin at the same pictures, in latents and in pixels.
        latents, pixels = [r for r in rows if r["picture"] == row["picture"]][:2]
        assert latents["before"] == pytest.approx(pixels["before"], rel=1e-4)
        if row["ascent"] == "pixels":
            assert row["after"]["Q"] > row["before"]["Q"]
        assert row["after"].keys() == {"PSNR", "LPIPS", "NSS", "student", "Q"}
    lines = (out / "table.md").read_text().splitlines()
    assert len(lines) == 2 + 2 * 5 + 1
    assert "| pixels | all | 8 of 8 |" in lines[-2]
    assert lines[-1].startswith("| post_step | gaussian_blur |")
    blurred, sharpened = (
        next(r for r in rows if r["ascent"] == name and r["picture"] == "00_gaussian_blur.png")
        for name in ("latents", "post_step")
    )
    assert sharpened["before"]["LPIPS"] != blurred["before"]["LPIPS"]
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.size == (4 * 68 - 4, 5 * 68 - 4)
    with pytest.raises(SystemExit, match="of another call"):
        DEGRADED.main([str(out), "--pictures", str(photos), "--count", "1", "--size", "64", *keys])
