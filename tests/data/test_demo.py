from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentiqa.data import demo
from latentiqa.data.demo import PHOTOS, build_demo, read_demo
from latentiqa.data.splits import make_split
from latentiqa.errors import ConfigError, DataError

TWO = ("coffee", "moon")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_demo(tmp_path_factory.mktemp("cache"), TWO)


def test_records(built):
    manifest = read_demo(built.parent, TWO)
    assert len(manifest) == 2 * (1 + 4 * 5)
    assert "not human scores" in manifest.note
    assert manifest.mos_range == (0, 5)
    for record in manifest:
        assert record.mos == 5 - int(record.attributes["level"])
        assert record.name.startswith(f"{record.reference}_{record.attributes['distortion']}_")
        with Image.open(record.path) as image:
            assert image.size == (256, 256)
            assert image.mode == "RGB"
    levels = Counter((r.attributes["distortion"], r.attributes["level"]) for r in manifest)
    assert set(levels.values()) == {2}
    assert len(levels) == 21


def test_pristine_pictures_are_the_photos(built):
    """Against a resize in another library, of a photo that needs no crop."""
    from skimage import io
    from skimage.transform import downscale_local_mean

    source = Path(demo.find_spec("skimage").submodule_search_locations[0], "data", "moon.png")
    expected = downscale_local_mean(io.imread(source).astype(float), (2, 2))
    with Image.open(built / "moon_none_0.png") as image:
        found = np.asarray(image.convert("L"), dtype=float)
    assert np.abs(found - expected).mean() < 1


def test_two_builds_are_equal_to_the_bit(built, tmp_path):
    assert contents(build_demo(tmp_path, TWO[::-1])) == contents(built)


def test_a_photo_does_not_depend_on_the_others(built, tmp_path):
    alone = contents(build_demo(tmp_path, ("moon",)))
    assert all(contents(built)[name] == data for name, data in alone.items() if "moon" in name)


def test_nothing_is_downloaded(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise AssertionError("network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert len(contents(build_demo(tmp_path, ("brick",)))) == 22


def test_every_photo_is_in_the_wheel_and_distinct():
    pictures = {photo: demo._pristine(photo) for photo in PHOTOS}
    assert len({picture.tobytes() for picture in pictures.values()}) == len(PHOTOS)
    assert all(picture.std() > 0.02 for picture in pictures.values())


def test_split_is_content_disjoint(tmp_path):
    manifest = read_demo(tmp_path, tuple(PHOTOS)[:4])
    split = make_split(manifest, 0, fractions=(0.5, 0.25, 0.25))
    photos = [{manifest.by_name[n].reference for n in part} for part in (split.train, split.test)]
    assert [len(split.train), len(split.val), len(split.test)] == [42, 21, 21]
    assert not photos[0] & photos[1]


def test_a_finished_build_is_not_built_again(built, monkeypatch):
    monkeypatch.setattr(demo, "_write", lambda *_: pytest.fail("built again"))
    assert build_demo(built.parent, TWO) == built


@pytest.mark.parametrize("lost", ["manifest.csv", "coffee_jpeg_3.png"])
def test_an_incomplete_folder_is_replaced(tmp_path, lost):
    folder = build_demo(tmp_path, ("coffee",))
    whole = contents(folder)
    (folder / lost).unlink()
    assert contents(build_demo(tmp_path, ("coffee",))) == whole


def test_a_failed_build_leaves_nothing(tmp_path, monkeypatch):
    def fail(folder, photos):
        (folder / "half.png").touch()
        raise OSError("No space left on device")

    monkeypatch.setattr(demo, "_write", fail)
    with pytest.raises(OSError, match="No space"):
        build_demo(tmp_path, ("coffee",))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_a_killed_build_is_not_taken_for_a_finished_one(tmp_path):
    code = (
        "import sys, time\n"
        "from latentiqa.data import demo\n"
        "write = demo._write_photo\n"
        "def slow(folder, photo):\n"
        "    write(folder, photo)\n"
        "    print('half', flush=True)\n"
        "    time.sleep(60)\n"
        "demo._write_photo = slow\n"
        "demo.build_demo(sys.argv[1], ('coffee',))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(tmp_path)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"half\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("demo-")]
    assert len(read_demo(tmp_path, ("coffee",))) == 21


def _build_in_step(cache, barrier):
    write = demo._write

    def together(folder, photos):
        write(folder, photos)
        barrier.wait(30)

    demo._write = together
    build_demo(cache, ("moon",))


def test_two_processes_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    processes = [context.Process(target=_build_in_step, args=(tmp_path, barrier)) for _ in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert [path.name[:5] for path in tmp_path.iterdir()] == ["demo-"]
    assert len(read_demo(tmp_path, ("moon",))) == 21


def test_default_folder_is_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTIQA_CACHE", str(tmp_path))
    assert read_demo(photos=["moon"]).records[0].path.parent.parent == tmp_path


def test_unknown_photos_and_missing_files(tmp_path, monkeypatch):
    for photos in ((), ("lena",)):
        with pytest.raises(ConfigError, match=r"photos=.*expected some of astronaut"):
            build_demo(tmp_path, photos)
    monkeypatch.setitem(PHOTOS, "moon", "gone.png")
    with pytest.raises(DataError, match=r"gone.png is missing; reinstall scikit-image"):
        build_demo(tmp_path, ("moon",))
    assert list(tmp_path.iterdir()) == []


def test_building_all_takes_seconds(tmp_path):
    start = time.perf_counter()
    assert len(read_demo(tmp_path)) == len(PHOTOS) * 21
    assert time.perf_counter() - start < 30
