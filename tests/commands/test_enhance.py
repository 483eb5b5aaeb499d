"""`latentiqa enhance`: a folder in, a folder out."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Outcome, succeed, type_in
from miniatures import write_clip, write_image
from PIL import ExifTags, Image, ImageCms

from latentiqa.enhance.prior import Logistic

BRIGHT = ["prior=callable", "prior.function=quality_models:brightness"]
SCALED = ["prior.centre=0.5", "prior.spread=0.1"]
SHORT = ["ascent.iterations=2", "ascent.stop_at=null", "space.chain.steps=2"]


@pytest.fixture
def bright(micro_folder, tmp_path) -> list[str]:
    """A short ascent of the brightness, on the micro backbone in tiles of 64 pixels."""
    backbone = ["backbone=folder", f"backbone.source={micro_folder}", "backbone.resolution=64"]
    places = [f"output={tmp_path / 'out'}", "tiles.overlap=16"]
    return [*backbone, *places, *BRIGHT, *SCALED, *SHORT]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=float) / 255


def results(outcome: Outcome) -> dict:
    return json.loads(Path(outcome.out.splitlines()[-1]).read_text())


def test_a_folder_is_enhanced_and_the_files_are_there(bright, tmp_path):
    write_image(tmp_path / "photos" / "a.png", 0, (70, 50))
    write_image(tmp_path / "photos" / "deep" / "b.jpg", 1, (64, 64))
    judges = "judges=[quality_models:darkness,quality_models:contrast]"
    outcome = succeed("enhance", str(tmp_path / "photos"), *bright, judges)
    found, out = results(outcome), tmp_path / "out"
    assert found["kind"] == "enhance"
    assert found["n"]["pictures"] == 2
    assert found["n"]["failed"] == 0
    assert found["scale"] == {"centre": 0.5, "spread": 0.1, "source": "given"}
    for name, size in {"a.png": (70, 50), "deep/b.png": (64, 64)}.items():
        with Image.open(out / "pictures" / name) as image:
            assert image.size == size
        with Image.open(out / "before_after" / name) as image:
            assert image.size == (2 * size[0] + 4, size[1])
        with Image.open(out / "way" / name) as image:
            assert image.width > 2 * size[0]
        table = out / "trajectories" / Path(name).with_suffix(".csv")
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
        tiles = 2 if name == "a.png" else 1
        assert [row["iteration"] for row in rows] == ["0", "1", "2"] * tiles
        assert rows[0]["quality_models:darkness"] != "" == rows[1]["quality_models:darkness"]
    for row in found["pictures"]:
        before, after = (pixels(p) for p in (Path(row["name"]), out / row["result"]))
        assert row["before"]["prior"] == pytest.approx(before.mean(), rel=1e-4)
        assert row["after"]["prior"] == pytest.approx(after.mean(), rel=1e-4)
        mapped = 100 / (1 + math.exp(-(row["after"]["prior"] - 0.5) / 0.1))
        assert row["after"]["mapped"] == pytest.approx(mapped, rel=1e-3)
        assert row["after"]["quality_models:darkness"] == pytest.approx(-after.mean(), rel=1e-4)


def test_what_is_done_is_not_done_again_and_other_options_are(bright, tmp_path, monkeypatch):
    for i in range(2):
        write_image(tmp_path / "photos" / f"{i}.png", i, (64, 64))
    first = results(succeed("enhance", str(tmp_path / "photos"), *bright))
    (tmp_path / "out" / "rows" / "1.json").unlink()  # as if it had been killed there
    write_image(tmp_path / "photos" / "2.png", 2, (64, 64))
    made = []
    from latentiqa.enhance.enhancer import Enhancer

    whole = Enhancer.__call__
    monkeypatch.setattr(
        Enhancer, "__call__", lambda self, *images: made.append(1) or whole(self, *images)
    )
    again = results(succeed("enhance", str(tmp_path / "photos"), *bright))
    assert len(made) == 2
    assert len(again["pictures"]) == 3
    assert again["pictures"][0] == first["pictures"][0]
    assert again["pictures"][1]["after"] == first["pictures"][1]["after"]
    succeed("enhance", str(tmp_path / "photos"), *bright, "ascent.iterations=1")
    assert len(made) == 5
    succeed("enhance", str(tmp_path / "photos"), *bright, "ascent.iterations=1", "force=true")
    assert len(made) == 8


def test_bad_pictures_are_listed_and_the_others_enhanced(bright, tmp_path):
    write_image(tmp_path / "photos" / "good.png", 0, (64, 64))
    (tmp_path / "photos" / "bad.png").write_bytes(b"no picture")
    outcome = type_in("enhance", str(tmp_path / "photos"), *bright)
    assert outcome.status == 1
    assert "1 of 2 pictures failed" in outcome.err
    assert "bad.png: not a picture" in outcome.err
    found = results(outcome)
    assert [Path(row["name"]).name for row in found["pictures"]] == ["good.png"]
    assert [Path(row["name"]).name for row in found["failed"]] == ["bad.png"]


def test_upright_with_its_metadata_and_profile(bright, tmp_path):
    path = write_image(tmp_path / "photos" / "a.jpg", 0, (64, 48))
    with Image.open(path) as image:
        exif = image.getexif()
        exif[ExifTags.Base.Orientation] = 6
        exif[ExifTags.Base.Artist] = "A. Photographer"
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        image.save(path, exif=exif, icc_profile=profile, dpi=(300, 300))
    succeed("enhance", str(path), *bright)
    with Image.open(tmp_path / "out" / "pictures" / "a.png") as image:
        assert image.size == (48, 64)
        assert image.info["icc_profile"] == profile
        assert image.getexif()[ExifTags.Base.Artist] == "A. Photographer"
        assert ExifTags.Base.Orientation not in image.getexif()
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_a_profile_of_another_colour_space_is_left(bright, tmp_path):
    path = tmp_path / "grey.png"
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[16:20] = b"GRAY"
    Image.new("L", (64, 64), 90).save(path, icc_profile=bytes(profile))
    succeed("enhance", str(path), *bright, "way.kind=none")
    with Image.open(tmp_path / "out" / "pictures" / "grey.png") as image:
        assert "icc_profile" not in image.info
    assert not (tmp_path / "out" / "way").exists()


def test_a_prior_that_leads_nowhere_is_said(bright, tmp_path):
    write_image(tmp_path / "a.png", 0, (64, 64))
    told = "of 1 of 1 pictures Q begins near 0"
    picture, no_way = str(tmp_path / "a.png"), "ascent.iterations=0"
    assert told not in succeed("enhance", picture, *bright, no_way).err
    far = succeed("enhance", picture, *bright, no_way, "prior.centre=5")
    assert told in " ".join(far.err.split())


def test_a_picture_that_memory_is_not_enough_for_does_not_stop_the_rest(
    bright, tmp_path, monkeypatch
):
    from latentiqa.enhance.enhancer import Enhancer

    for name, side in (("large.png", 96), ("small.png", 64)):
        write_image(tmp_path / "photos" / name, 0, (side, side))
    whole = Enhancer.__call__

    def limited(self, image, *rest):
        if image.shape[-1] > 64:
            raise torch.OutOfMemoryError("tried to allocate 9 GiB")
        return whole(self, image, *rest)

    monkeypatch.setattr(Enhancer, "__call__", limited)
    outcome = type_in("enhance", str(tmp_path / "photos"), *bright)
    assert outcome.status == 1
    assert "large.png: the device's memory is not enough" in " ".join(outcome.err.split())
    assert [Path(row["name"]).name for row in results(outcome)["pictures"]] == ["small.png"]


def test_adversarial_pictures_are_said(bright, tmp_path):
    Image.new("RGB", (64, 64), (90, 90, 90)).save(tmp_path / "a.png")
    pixels = ["space=pixels", "ascent.rule.gain=1e6", "judges=[quality_models:darkness]"]
    options = [option for option in bright if "space.chain" not in option]
    outcome = succeed("enhance", str(tmp_path / "a.png"), *options, *pixels, "way.kind=gif")
    assert "adversarial: of 1 of 1 pictures" in outcome.err
    found = results(outcome)
    assert found["pictures"][0]["adversarial"]
    assert found["n"] == {"pictures": 1, "prior_rises": 1, "adversarial": 1, "failed": 0}
    with Image.open(tmp_path / "out" / "way" / "a.gif") as image:
        assert image.n_frames == 2


def test_a_model_that_fails_on_a_picture_does_not_stop_the_rest(bright, tmp_path):
    for name, grey in {"a": 10, "b": 90}.items():
        Image.new("RGB", (64, 64), (grey,) * 3).save(write_image(tmp_path / f"in/{name}.png"))
    picky = [option for option in bright if option not in BRIGHT]
    picky += ["prior=callable", "prior.function=quality_models:picky"]
    outcome = type_in("enhance", str(tmp_path / "in"), *picky)
    assert outcome.status == 1
    told = "a.png: quality_models:picky: RuntimeError: too dark for me"
    assert told in " ".join(outcome.err.split())
    assert [Path(row["name"]).name for row in results(outcome)["pictures"]] == ["b.png"]


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("flat", "the prior's score has no gradient"),
        ("plain_number", "a quality model answered"),
    ],
)
def test_what_cannot_lead_upwards_is_refused(function, told, bright, tmp_path):
    write_image(tmp_path / "a.png", 0, (64, 64))
    options = [option for option in bright if option not in BRIGHT]
    options += ["prior=callable", f"prior.function=quality_models:{function}"]
    outcome = type_in("enhance", str(tmp_path / "a.png"), *options)
    assert outcome.status == 1
    assert told in " ".join(outcome.err.split())


ARTIST = (bytes.fromhex("013b0002"), bytes.fromhex("013b0005"))
"""Tag 315 as ASCII and as rational."""


def test_xmp_is_kept_without_the_orientation(bright, tmp_path):
    xmp = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
    <x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
    <rdf:Description tiff:Orientation="6" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"
    xmlns:dc="http://purl.org/dc/elements/1.1/" dc:rights="© Ann"/></rdf:RDF></x:xmpmeta>
    <?xpacket end="w"?>"""
    Image.new("RGB", (64, 64)).save(tmp_path / "a.jpg", xmp=xmp.encode())
    succeed("enhance", str(tmp_path / "a.jpg"), *bright, "ascent.iterations=0")
    with Image.open(tmp_path / "out" / "pictures" / "a.png") as image:
        kept = image.info["xmp"].decode()
    assert 'dc:rights="© Ann"' in kept
    assert "Orientation" not in kept


def test_metadata_that_a_png_cannot_hold_is_left_out(bright, tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "Ann"
    Image.new("RGB", (64, 64)).save(tmp_path / "a.jpg", exif=exif)
    told = (tmp_path / "a.jpg").read_bytes()
    # Resolution is an unsigned rational: here it is signed, and -1.
    exif[ExifTags.Base.XResolution] = 1.0
    Image.new("RGB", (64, 64)).save(tmp_path / "b.jpg", exif=exif)
    broken = bytearray((tmp_path / "b.jpg").read_bytes())
    entry = broken.index(bytes.fromhex("011a0005"))
    broken[entry : entry + 4] = bytes.fromhex("011a000a")
    place = broken.index(bytes.fromhex("0000000100000001"), entry + 8)
    broken[place : place + 4] = bytes.fromhex("ffffffff")
    (tmp_path / "b.jpg").write_bytes(broken)
    Image.new("RGB", (64, 64)).save(tmp_path / "c.tif", dpi=(72, 72))
    tiff = (tmp_path / "c.tif").read_bytes()
    assert b"Ann" in told
    assert tiff.count(bytes.fromhex("4800000001000000")) == 2
    (tmp_path / "c.tif").write_bytes(tiff.replace(bytes.fromhex("4800000001000000"), bytes(8)))
    # The artist is a text: here it is a rational.
    (tmp_path / "d.jpg").write_bytes(told.replace(*ARTIST))
    assert (tmp_path / "d.jpg").read_bytes() != told
    pictures = [str(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.tif", "d.jpg")]
    outcome = succeed("enhance", *pictures, *bright, "ascent.iterations=0")
    assert results(outcome)["n"]["pictures"] == 4
    with Image.open(tmp_path / "out" / "pictures" / "a.png") as image:
        assert image.getexif()[ExifTags.Base.Artist] == "Ann"
    with Image.open(tmp_path / "out" / "pictures" / "c.png") as image:
        assert "dpi" not in image.info


def test_nothing_is_written_over_what_was_given(bright, tmp_path):
    write_image(tmp_path / "out" / "pictures" / "a.png", 0, (64, 64))
    outcome = type_in("enhance", str(tmp_path / "out" / "pictures"), *bright)
    assert outcome.status == 1
    assert "is a result there, which would be written over" in " ".join(outcome.err.split())
    write_image(tmp_path / "a.png", 1, (64, 64))
    reference = f"input_reference={tmp_path / 'out' / 'pictures'}"
    outcome = type_in("enhance", str(tmp_path / "a.png"), *bright, reference)
    assert outcome.status == 1
    assert "lies inside of it and could be written over" in " ".join(outcome.err.split())


def test_an_old_row_does_not_vouch_for_another_runs_picture(bright, tmp_path, monkeypatch):
    write_image(tmp_path / "a.png", 0, (64, 64))
    typed = ["enhance", str(tmp_path / "a.png"), *bright]
    (first,) = results(succeed(*typed))["pictures"]
    wanted = (tmp_path / "out" / "pictures" / "a.png").read_bytes()

    def full(path, *arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as disk:
        disk.setattr("latentiqa.commands.enhance.write_csv", full)
        assert type_in(*typed, "ascent.iterations=1").status == 1
    assert (tmp_path / "out" / "pictures" / "a.png").read_bytes() != wanted
    (again,) = results(succeed(*typed))["pictures"]
    assert again["signature"] == first["signature"]
    assert (tmp_path / "out" / "pictures" / "a.png").read_bytes() == wanted


def test_after_another_enhancer(bright, tmp_path):
    for i in range(3):
        Image.new("RGB", (64, 64), (90, 90, 90)).save(write_image(tmp_path / f"in/{i}.png"))
    Image.new("RGB", (64, 64), (160, 160, 160)).save(write_image(tmp_path / "other" / "0.png"))
    Image.new("RGB", (64, 32), (160, 160, 160)).save(write_image(tmp_path / "other" / "1.png"))
    options = [option for option in bright if "space.chain" not in option]
    other = ["space=pixels", f"input_reference={tmp_path / 'other'}"]
    outcome = type_in("enhance", str(tmp_path / "in"), *options, *other)
    assert outcome.status == 1
    told = " ".join(outcome.err.split())
    assert "has 64 x 32; resize one" in told
    assert "2.png: no 2.png in" in told
    (row,) = results(outcome)["pictures"]
    assert row["before"]["prior"] == pytest.approx(90 / 255, abs=1e-3)
    assert row["start"]["prior"] == pytest.approx(160 / 255, abs=1e-3)
    assert row["after"]["prior"] >= 160 / 255 - 1e-3


def test_the_scale_is_fitted_on_reference_pictures(bright, tmp_path):
    for i in range(3):
        Image.new("RGB", (32, 32), (50 * i,) * 3).save(write_image(tmp_path / f"good/{i}.png"))
    write_image(tmp_path / "a.png", 0, (64, 64))
    options = [option for option in bright if option not in SCALED]
    reference = f"reference={tmp_path / 'good'}"
    found = results(succeed("enhance", str(tmp_path / "a.png"), *options, reference))
    assert found["scale"]["centre"] == pytest.approx(50 / 255, rel=1e-4)
    expected = 50 / 255 * math.sqrt(2 / 3) * math.sqrt(3) / math.pi
    assert found["scale"]["spread"] == pytest.approx(expected, rel=1e-4)
    outcome = type_in("enhance", str(tmp_path / "a.png"), *options)
    assert outcome.status == 1
    assert "has no scale: give reference=FOLDER" in " ".join(outcome.err.split())


def test_a_fitted_scale_is_known_by_its_pictures(bright, tmp_path, monkeypatch):
    for i in range(3):
        Image.new("RGB", (32, 32), (50 * i,) * 3).save(write_image(tmp_path / f"good/{i}.png"))
    write_image(tmp_path / "a.png", 0, (64, 64))
    options = [option for option in bright if option not in SCALED]
    typed = ["enhance", str(tmp_path / "a.png"), *options, f"reference={tmp_path / 'good'}"]
    (first,) = results(succeed(*typed))["pictures"]
    fitted = Logistic.fit

    def with_other_threads(scores, source):
        found = fitted(scores, source)
        return replace(found, centre=math.nextafter(found.centre, 1))

    monkeypatch.setattr(Logistic, "fit", with_other_threads)
    assert results(succeed(*typed))["pictures"] == [first]
    Image.new("RGB", (32, 32), (220,) * 3).save(tmp_path / "good" / "0.png")
    (other,) = results(succeed(*typed))["pictures"]
    assert other["signature"] != first["signature"]


def test_a_finished_run_is_a_prior(bright, tmp_path, micro_run):
    path = write_image(tmp_path / "a.png", 0, (64, 64))
    options = [option for option in bright if not option.startswith("prior")]
    given = ["prior=run", f"prior.run={micro_run}", "fidelity=mse", "ascent=adam", *SHORT]
    given += ["space.keep_residual=false"]  # the photo itself is rated 100
    found = results(succeed("enhance", str(path), *options, *given))
    assert found["scale"]["source"] == f"the test part of {micro_run.name}"
    with (tmp_path / "out" / "trajectories" / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert max(float(row["objective"]) for row in rows) > float(rows[0]["objective"])


def test_another_training_of_a_prior_or_a_judge_is_another_model(bright, tmp_path, micro_run):
    path = write_image(tmp_path / "a.png", 0, (64, 64))
    run = tmp_path / "run"
    shutil.copytree(micro_run, run)
    options = [option for option in bright if not option.startswith("prior")]
    asked = ["prior=run", f"prior.run={run}", "prior.centre=0.5", "prior.spread=0.1", *SHORT]
    for given in (asked, [*BRIGHT, *SCALED, f"judges=[{run}]"]):
        command = ["enhance", str(path), *options, *given]
        first, again = (results(succeed(*command))["pictures"] for _ in range(2))
        assert first == again
        described = json.loads((run / "results.json").read_text())
        (run / "results.json").write_text(json.dumps(described | {"signature": given[-1]}))
        assert results(succeed(*command))["pictures"] != first


def test_clip_with_prompts_is_a_prior(bright, tmp_path):
    write_image(tmp_path / "in" / "a.png", 0, (64, 48))
    source = write_clip(tmp_path / "clip")
    views = [f"prior.views.{key}" for key in ("size=32", "crops=2", "stride=8")]
    options = ["prior=liqe", f"prior.source={source}", *views, "prior.weight=10.0"]
    kept = [word for word in bright if not word.startswith(("prior", "ascent.iter", "space"))]
    ascent = ["space=pixels", "ascent=momentum", "ascent.iterations=8"]
    outcome = succeed("enhance", str(tmp_path / "in"), *kept, *options, *ascent)
    found = results(outcome)
    assert found["prior"] == "liqe clip"
    assert found["scale"] == {"centre": 2.0776, "spread": 1.1019, "source": "given"}
    (row,) = found["pictures"]
    assert 1 < row["before"]["prior"] < row["after"]["prior"] < 5
    assert row["after"]["mapped"] > row["before"]["mapped"]


def test_pictures_that_differ_in_their_suffix_alone_have_two_results(tmp_path):
    from latentiqa.commands.enhance import named_results
    from latentiqa.errors import ConfigError

    for name in ("in/a.jpg", "in/a.png", "other/a.png"):
        write_image(tmp_path / name)
    found = named_results([str(tmp_path / "in")], tmp_path / "out")
    assert [str(result) for result in found.values()] == ["a.png", "a.png.png"]
    both = [str(tmp_path / "in" / "a.png"), str(tmp_path / "other"), str(tmp_path / "in")]
    with pytest.raises(ConfigError, match="has the same name"):
        named_results([*both, str(tmp_path / "other" / ".." / "other")], tmp_path / "out")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["output=photos/out"], "output=photos/out: it lies inside of photos"),
        (["way.kind=film"], "way.kind='film': expected one of strip, gif, none"),
        (["way.every=0"], "way.every=0: expected an integer >= 1"),
        (["judges=default"], "judges=default: expected a list"),
        (["judges=[lgdm,lgdm]"], "two of them have the same name"),
        (["input_reference=nowhere"], "input_reference=nowhere: expected a folder"),
        (["ascent.iterations=-1"], "ascent.iterations=-1: expected an integer >= 0"),
        (["fidelity.nlpd.bands=some"], "bands='some': expected 'coarsest' or 'all'"),
        (["prior=run"], "prior.run is not set"),
        (["tiles.overlap=200"], "tiles.overlap=200: expected less than half"),
        (["space=paper"], "space=paper: expected one of ddim, edict, fixed_point"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_told_before_anything_is_loaded(
    wrong, told, tmp_path, monkeypatch, nothing_loaded
):
    write_image(tmp_path / "photos" / "a.png")
    monkeypatch.chdir(tmp_path)
    outcome = type_in("enhance", "photos", *wrong)
    assert outcome.status == 1
    assert told in " ".join(outcome.err.split())
    assert "Traceback" not in outcome.err
