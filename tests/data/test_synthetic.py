from __future__ import annotations

import csv
import multiprocessing
import os
import shutil
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from latentiqa.data import synthetic
from latentiqa.data.distortions import to_bytes
from latentiqa.data.kadid import distort
from latentiqa.data.pseudo_labels import METRICS
from latentiqa.data.splits import make_split
from latentiqa.data.synthetic import read_synthetic
from latentiqa.errors import ConfigError, DataError, LatentiqaError
from latentiqa.hashing import digest

TYPES = [1, "jpeg", "white_noise"]


def write_photo(path: Path, seed: int, size: tuple[int, int] = (48, 40)) -> Path:
    """Smooth structures, (width, height) = size."""
    noise = np.random.default_rng(seed).standard_normal((size[1], size[0], 3))
    mixed = sum(ndimage.gaussian_filter(noise, (s, s, 0)) * s for s in (0.7, 2, 6))
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (mixed - mixed.min()) / np.ptp(mixed)
    Image.fromarray((255 * pixels).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three originals, one of them in a folder below."""
    root = tmp_path_factory.mktemp("photos")
    write_photo(root / "a photo.png", 0)
    write_photo(root / "b.bmp", 1)
    write_photo(root / "more" / "c.png", 2, (64, 44))
    return root


@pytest.fixture(scope="module")
def made(photos, tmp_path_factory):
    """A whole dataset, not to be changed."""
    return read_synthetic(photos, TYPES, output=tmp_path_factory.mktemp("made"))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def folder_of(manifest) -> Path:
    return manifest.records[0].path.parents[1]


def test_layout_is_kadids(made):
    names = ["I01.png", "I01_01_01.png", "I01_01_02.png"]
    assert list(made.names[:3]) == names
    assert made.names[-1] == "I03_11_05.png"
    assert len(made) == 3 * (1 + 3 * 5)
    assert {record.path.parent.name for record in made} == {"images"}
    assert {path.name for path in folder_of(made).iterdir()} == {"images", "levels.csv"}
    rows = list(csv.DictReader((folder_of(made) / "levels.csv").open()))
    assert [row["dist_img"] for row in rows] == list(made.names)
    assert {row["ref_img"] for row in rows} == {"I01.png", "I02.png", "I03.png"}
    assert {row["original"] for row in rows} == {"a photo.png", "b.bmp", "more/c.png"}
    assert "mos" not in rows[0]
    assert "dmos" not in rows[0]


def test_scores_are_levels(made):
    assert made.dataset == "synthetic"
    assert made.mos_range == (0, 5)
    assert made.higher_is_better
    assert made.note == "synthetic: the target is the distortion level, not human scores"
    assert all(record.mos == 5 - int(record.attributes["level"]) for record in made)
    counts = Counter(record.attributes["distortion"] for record in made)
    assert counts == {"none": 3, "gaussian_blur": 15, "jpeg": 15, "white_noise": 15}


def test_the_note_warns_of_levels_that_are_no_order(photos, tmp_path):
    manifest = read_synthetic(photos, ["mean_shift", "jpeg"], [1, 3], output=tmp_path)
    assert manifest.note.endswith("; the levels of mean_shift are no order of damage")


def test_pictures_are_the_distorted_originals(photos, made):
    with Image.open(photos / "b.bmp") as image:
        original = np.asarray(image)
    with Image.open(made.by_name["I02.png"].path) as image:
        assert np.array_equal(np.asarray(image), original)
    seed = int(digest([0, "b.bmp", "white_noise", 4]), 16)
    expected = distort(original.astype(np.float32) / np.float32(255), 11, 4, seed)
    with Image.open(made.by_name["I02_11_04.png"].path) as image:
        assert np.array_equal(np.asarray(image), to_bytes(expected))


def test_a_picture_does_not_depend_on_the_others(photos, made, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    write_photo(tmp_path / "photos" / "0.png", 9)
    manifest = read_synthetic(tmp_path / "photos", [11], [2, 4], output=tmp_path / "made")
    assert len(manifest) == 4 * 3
    for name, before in (("I02_11_02.png", "I01_11_02.png"), ("I04.png", "I03.png")):
        found, expected = manifest.by_name[name], made.by_name[before]
        assert found.path.read_bytes() == expected.path.read_bytes()
        assert found.attributes == expected.attributes


def test_two_builds_are_equal_to_the_bit(photos, made, tmp_path):
    again = read_synthetic(photos, [11, 10, "gaussian_blur"], output=tmp_path, workers=1)
    assert folder_of(again).name == folder_of(made).name
    assert contents(folder_of(again)) == contents(folder_of(made))
    assert again.fingerprint == made.fingerprint


def test_what_is_there_is_not_made_again(photos, made, monkeypatch):
    monkeypatch.setattr(synthetic, "_make", lambda *_: pytest.fail("made again"))
    assert read_synthetic(photos, TYPES, output=folder_of(made).parent).names == made.names


def test_other_recipes_are_other_datasets(photos, made, tmp_path):
    """Runs are named by a dataset's fingerprint, which must not be that of another."""
    shutil.copytree(photos, tmp_path / "photos")
    write_photo(tmp_path / "photos" / "b.bmp", 7)
    others = [
        read_synthetic(photos, TYPES, output=tmp_path / "made", seed=1),
        read_synthetic(photos, TYPES, output=tmp_path / "made", size=32),
        read_synthetic(tmp_path / "photos", TYPES, output=tmp_path / "made"),
    ]
    assert len({m.fingerprint for m in (made, *others)}) == 4
    assert all(other.names == made.names for other in others)
    same, noise = others[0].by_name, made.by_name
    assert same["I01_10_03.png"].path.read_bytes() == noise["I01_10_03.png"].path.read_bytes()
    assert same["I01_11_03.png"].path.read_bytes() != noise["I01_11_03.png"].path.read_bytes()
    sizes = {record.reference: Image.open(record.path).size for record in others[1]}
    assert sorted(sizes.values()) == [(38, 32), (38, 32), (47, 32)]


def test_smaller_pictures_are_not_enlarged(photos, tmp_path):
    manifest = read_synthetic(photos, [10], [1], size=42, output=tmp_path)
    assert {Image.open(r.path).size for r in manifest} == {(48, 40), (61, 42)}


def test_split_is_content_disjoint(made):
    split = make_split(made, 0, fractions=(0.4, 0.3, 0.3))
    parts = [{made.by_name[n].reference for n in part} for part in (split.train, split.test)]
    assert [len(part) for part in (split.train, split.val, split.test)] == [16, 16, 16]
    assert not parts[0] & parts[1]


@pytest.mark.parametrize("lost", ["levels.csv", "images/I02.png", "images/I02_11_05.png"])
@pytest.mark.parametrize("how", ["gone", "cut", "garbage"])
def test_what_is_damaged_is_made_again(photos, made, tmp_path, monkeypatch, lost, how):
    shutil.copytree(folder_of(made).parent, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / folder_of(made).name
    path = folder / lost
    whole = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(whole[: len(whole) // 2] if how == "cut" else b"\xff\x00")
    written = []
    write = synthetic.write_atomic
    monkeypatch.setattr(
        synthetic, "write_atomic", lambda file, data: (written.append(file.name), write(file, data))
    )
    read_synthetic(photos, TYPES, output=tmp_path)
    assert contents(folder) == contents(folder_of(made))
    assert set(written) == {path.name, "levels.csv"}


def test_a_failed_build_goes_on_where_it_was(photos, made, tmp_path, monkeypatch):
    write, written = synthetic.write_atomic, []

    def fail(path, data):
        if len(written) == 20:
            raise OSError("No space left on device")
        written.append(path.name)
        write(path, data)

    monkeypatch.setattr(synthetic, "write_atomic", fail)
    with pytest.raises(OSError, match="No space"):
        read_synthetic(photos, TYPES, output=tmp_path, workers=1)
    assert not list(tmp_path.rglob("*.csv"))
    again = []
    monkeypatch.setattr(
        synthetic, "write_atomic", lambda path, data: (again.append(path.name), write(path, data))
    )
    manifest = read_synthetic(photos, TYPES, output=tmp_path)
    assert contents(folder_of(manifest)) == contents(folder_of(made))
    assert sorted(again) == sorted({*made.names, "levels.csv"} - set(written))


def _make_half(photos, output, halfway):
    write, written = synthetic.write_atomic, []

    def slow(path, data):
        if len(written) == 7:
            # As if the process died in the middle of a file.
            path.with_name(f"{path.name}@{os.uname().nodename}@{os.getpid()}@0.tmp").touch()
            halfway.set()
            signal.pause()
        written.append(path.name)
        write(path, data)

    synthetic.write_atomic = slow
    read_synthetic(photos, TYPES, output=output, workers=1)


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_a_killed_build_is_not_taken_for_a_finished_one(photos, made, tmp_path):
    context = multiprocessing.get_context("fork")
    halfway = context.Event()
    process = context.Process(target=_make_half, args=(photos, tmp_path, halfway))
    process.start()
    assert halfway.wait(60)
    process.kill()
    process.join()
    left = contents(tmp_path)
    assert not [name for name in left if name.endswith(".csv")]
    assert len(left) == 8
    manifest = read_synthetic(photos, TYPES, output=tmp_path)
    assert contents(folder_of(manifest)) == contents(folder_of(made))


# Pseudo-labels.


@pytest.mark.parametrize("label", METRICS)
def test_pseudo_labels_follow_damage(tmp_path, label):
    photos, output = tmp_path / "photos", tmp_path / "made"
    write_photo(photos / "large.png", 0, (176, 180))
    levels = read_synthetic(photos, ["jpeg"], [1, 3, 5], output=output)
    manifest = read_synthetic(photos, ["jpeg"], [1, 3, 5], label=label, output=output)
    assert manifest.names == levels.names
    assert folder_of(manifest) == folder_of(levels)
    assert manifest.note == f"synthetic: the target is a pseudo-label ({label}), not human scores"
    assert manifest.higher_is_better == (label != "lpips")
    best, *others = (manifest.target(record.mos) for record in manifest)
    assert best == pytest.approx(1, abs=1e-5)
    assert best > others[0] > others[1] > others[2] > 0
    table = folder_of(manifest) / f"pseudo_{label}.csv"
    assert table.read_text().startswith(f"dist_img,pseudo_{label}\nI01.png,")
    assert manifest.fingerprint != levels.fingerprint


def test_pseudo_labels_are_kept_and_mended(photos, made, tmp_path, monkeypatch):
    shutil.copytree(folder_of(made).parent, tmp_path, dirs_exist_ok=True)

    def read():
        return read_synthetic(photos, TYPES, label="psnr", output=tmp_path)

    whole = read()
    table = folder_of(whole) / "pseudo_psnr.csv"
    text = table.read_text()
    against = METRICS["psnr"].against
    none = METRICS["psnr"]._replace(against=lambda _: pytest.fail("computed again"))
    monkeypatch.setitem(METRICS, "psnr", none)
    assert read() == whole
    monkeypatch.setitem(METRICS, "psnr", none._replace(against=against))
    for broken in ("", text[: len(text) // 2], text.replace("I02.png", "I09.png")):
        table.write_text(broken)
        assert read() == whole
        assert table.read_text() == text


def test_psnr_of_equal_pictures_is_finite(photos, made, tmp_path):
    shutil.copytree(folder_of(made).parent, tmp_path, dirs_exist_ok=True)
    manifest = read_synthetic(photos, TYPES, label="psnr", output=tmp_path)
    assert manifest.by_name["I01.png"].mos == manifest.by_name["I01_01_01.png"].mos == 60
    with Image.open(manifest.by_name["I01.png"].path) as image:
        original = np.asarray(image, dtype=float)
    with Image.open(manifest.by_name["I01_10_05.png"].path) as image:
        error = np.mean((np.asarray(image, dtype=float) - original) ** 2)
    expected = 10 * np.log10(255**2 / error)
    assert manifest.by_name["I01_10_05.png"].mos == pytest.approx(expected, abs=1e-3)


def test_metrics_on_pictures_that_are_too_small(photos, made):
    output = folder_of(made).parent
    with pytest.raises(ConfigError, match=r"label='ms_ssim' on a picture of 48 x 40: expected s"):
        read_synthetic(photos, TYPES, label="ms_ssim", output=output)


def test_lpips_that_is_not_installed_is_said_first(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(LatentiqaError, match=r"pip install 'latentiqa\[lpips\]'"):
        read_synthetic(photos, TYPES, label="lpips", output=tmp_path)
    assert not list(tmp_path.iterdir())


# What is wrong is said before anything is made.


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"types": ["fog"]}, r"types=\['fog'\]: 'fog' is none of 1 gaussian_blur"),
        ({"types": [26]}, r"types=\[26\]: 26 is none of"),
        ({"types": []}, r"types=\[\]: expected a list"),
        ({"levels": [0]}, r"levels=\[0\]: 0 is none of 1 to 5"),
        ({"size": 8}, r"size=8: expected an integer >= 16"),
        ({"size": "x"}, r"size=x: expected an integer >= 16"),
        ({"seed": -1}, r"seed=-1: expected an integer >= 0"),
        ({"workers": 0}, r"workers=0: expected an integer >= 1"),
        ({"label": "mos"}, r"label='mos': expected level, or for pseudo-labels one of psnr, ssim"),
    ],
)
def test_wrong_values(photos, tmp_path, wrong, told):
    with pytest.raises(ConfigError, match=told):
        read_synthetic(photos, **{"output": tmp_path, **wrong})
    assert not list(tmp_path.iterdir())


def test_folders_that_will_not_do(photos, tmp_path):
    with pytest.raises(DataError, match=r"nowhere is no folder; expected one of pristine"):
        read_synthetic(tmp_path / "nowhere", output=tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no pictures there; expected files ending in"):
        read_synthetic(tmp_path / "empty", output=tmp_path)
    for output in (photos, photos / "made"):
        with pytest.raises(ConfigError, match=r"output=.*: is inside root=.*; expected a folder"):
            read_synthetic(photos, output=output)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_pictures_that_will_not_do(tmp_path):
    root, output = tmp_path / "photos", tmp_path / "made"
    write_photo(root / "a.png", 0)
    shutil.copy(root / "a.png", root / "copy.png")
    with pytest.raises(DataError, match=r"a.png and copy.png are the same picture.*remove one"):
        read_synthetic(root, output=output)
    (root / "copy.png").write_text("no picture")
    (root / "cut.png").write_bytes((root / "a.png").read_bytes()[:200])
    with pytest.raises(DataError, match=r"2 of 3 pictures cannot be read: .*copy.png: not a pict"):
        read_synthetic(root, output=output)
    assert not output.exists()
    (root / "copy.png").unlink()
    (root / "cut.png").unlink()
    with pytest.raises(DataError, match=r"a.png: refused: 48 x 40 pixels; .* data\.max_pixels"):
        read_synthetic(root, output=output, max_pixels=48 * 40 - 1)
    write_photo(root / "small.png", 1, (20, 12))
    with pytest.raises(DataError, match=r"small.png: 20 x 12 pixels; expected 16 a side and more"):
        read_synthetic(root, TYPES, output=output)
    assert not list(output.rglob("*.csv"))


def test_default_place_is_the_cache(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTIQA_CACHE", str(tmp_path))
    manifest = read_synthetic(photos, [10], [1])
    assert folder_of(manifest).parent == tmp_path
