"""The feature store: round trips, resumption, faults and concurrent writers."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from latentiqa import files
from latentiqa.errors import ConfigError, StoreError
from latentiqa.hashing import file_digest
from latentiqa.hyperfeatures import store as store_module
from latentiqa.hyperfeatures.store import FeatureStore, check_space, estimate_bytes

RECIPE = {"backbone": "tiny", "guidance": {"name": "pmg", "weights": [0.1, 0.3]}}
MEAN, STD, LATER = "100/up.1.resnet.2/mean", "100/up.1.resnet.2/std", "10/mid.attn.0/mean"
WIDTHS = {MEAN: 5, STD: 3}


def keys_of(*numbers: int) -> list[str]:
    return [f"{number:016x}:photo {number}.png" for number in numbers]


def features(keys: list[str], widths: dict[str, int] | None = None) -> dict[str, Tensor]:
    """Values that depend on the image and the tensor alone, as real features do."""
    rows = torch.tensor([float(int(key[:16], 16)) for key in keys])
    return {
        name: rows[:, None] * 10 + torch.arange(width) / 7 + len(name)
        for name, width in (widths or WIDTHS).items()
    }


def fill(root: Path, *shards: list[str]) -> tuple[FeatureStore, list[Path]]:
    store = FeatureStore(root, RECIPE)
    return store, [store.write(keys, features(keys)) for keys in shards]


def assert_equal(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(got) == list(expected)
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=0, atol=0)


def temporaries(store: FeatureStore) -> list[Path]:
    return list(store.path.glob("*.tmp"))


@pytest.mark.parametrize("reopen", [False, True])
@pytest.mark.parametrize(
    "asked", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [3, 0, 4], [2], [1, 4, 1, 1], [0, 2, 4]]
)
@pytest.mark.parametrize("names", [[MEAN, STD], [STD, MEAN], [STD]])
def test_read_returns_rows_and_names_in_the_order_asked(tmp_path, asked, names, reopen):
    store, _ = fill(tmp_path, keys_of(3, 0, 1), keys_of(4, 2))
    if reopen:
        store = FeatureStore(tmp_path, RECIPE)
    keys = keys_of(*asked)
    everything = features(keys)
    assert_equal(store.read(keys, names), {name: everything[name] for name in names})


def test_read_of_no_images_keeps_the_widths(tmp_path):
    store, _ = fill(tmp_path, keys_of(0))
    assert store.read([], [MEAN])[MEAN].shape == (0, 5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_values_are_kept_as_float32(tmp_path, dtype):
    store = FeatureStore(tmp_path, RECIPE)
    value = torch.tensor([[0.1, 2.0]], dtype=dtype, requires_grad=True)
    store.write(keys_of(0), {MEAN: value})
    got = store.read(keys_of(0), [MEAN])[MEAN]
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, value.detach().float(), rtol=0, atol=0)


def test_strided_tensors_are_stored_by_value(tmp_path):
    store = FeatureStore(tmp_path, RECIPE)
    base = torch.arange(12.0).reshape(3, 4)
    store.write(keys_of(0, 1, 2), {MEAN: base[:, ::2], STD: base[:, :2]})
    got = store.read(keys_of(0, 1, 2), [MEAN, STD])
    assert_equal(got, {MEAN: base[:, ::2], STD: base[:, :2]})


def test_the_shard_and_its_sidecar_say_what_they_hold(tmp_path):
    keys = keys_of(1, 0)
    _, [path] = fill(tmp_path, keys)
    sidecar = json.loads(path.with_suffix(".json").read_text())
    assert sidecar["images"] == keys
    assert sidecar["widths"] == WIDTHS
    assert sidecar["size"] == path.stat().st_size
    assert sidecar["sha256"] == file_digest(path, 64)
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["images"]) == keys


def test_missing_resumes_after_the_finished_shards(tmp_path):
    fill(tmp_path, keys_of(0, 1), keys_of(2))
    store = FeatureStore(tmp_path, RECIPE)
    assert store.missing(keys_of(4, 1, 3, 0, 4), WIDTHS) == keys_of(4, 3)
    store.write(keys_of(4, 3), features(keys_of(4, 3)))
    assert store.missing(keys_of(4, 1, 3, 0), WIDTHS) == []


def test_a_layer_added_later_completes_the_images(tmp_path):
    store, _ = fill(tmp_path, keys_of(0, 1, 2))
    both = {**WIDTHS, LATER: 2}
    assert store.missing(keys_of(0, 1, 2), both) == keys_of(0, 1, 2)
    store.write(keys_of(2, 0), features(keys_of(2, 0), {LATER: 2}))
    assert store.missing(keys_of(0, 1, 2), both) == keys_of(1)
    assert_equal(store.read(keys_of(0, 2), [*both]), features(keys_of(0, 2), both))


@pytest.mark.parametrize("asked", [[0, 1, 2], [1], [1, 0], [2, 1]])
@pytest.mark.parametrize("backwards", [False, True])
def test_of_a_pair_held_twice_the_last_shard_by_name_is_read(tmp_path, asked, backwards):
    store, shards = FeatureStore(tmp_path, RECIPE), []
    # Four, so that some written early and some written late come last.
    for number in range(4):
        keys = keys_of(*([0, 1], [1, 2])[number % 2])
        tensors = {MEAN: features(keys)[MEAN] + number / 4}
        shards.append((keys, tensors))
    rows = {}
    for keys, tensors in shards[::-1] if backwards else shards:
        rows[store.write(keys, tensors)] = tensors[MEAN][keys.index(keys_of(1)[0])]
    for reader in (store, FeatureStore(tmp_path, RECIPE)):
        got = reader.read(keys_of(*asked), [MEAN])[MEAN][asked.index(1)]
        torch.testing.assert_close(got, rows[max(rows)], rtol=0, atol=0)


def test_writers_of_the_same_images_never_mix_their_bytes(tmp_path):
    # The sidecar of one over the shard of the other would look corrupt.
    store, [path] = fill(tmp_path, keys_of(0, 1))
    other = {name: value + 1e-6 for name, value in features(keys_of(0, 1)).items()}
    other[STD] = other[STD] + 1
    assert store.write(keys_of(0, 1), other) != path
    assert FeatureStore(tmp_path, RECIPE).drop_corrupt() == []


def test_the_same_shard_again_is_one_file(tmp_path):
    store, [path] = fill(tmp_path, keys_of(0, 1))
    assert store.write(keys_of(0, 1), features(keys_of(0, 1))) == path
    assert len(list(store.path.glob("*.safetensors"))) == 1


def test_another_process_sees_new_shards_after_refresh(tmp_path):
    reader = FeatureStore(tmp_path, RECIPE)
    fill(tmp_path, keys_of(0))
    with pytest.raises(StoreError):
        reader.read(keys_of(0), [MEAN])
    reader.refresh()
    assert_equal(reader.read(keys_of(0), [*WIDTHS]), features(keys_of(0)))


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


@pytest.mark.parametrize("damage", [flip_a_byte, truncate, Path.unlink])
def test_a_damaged_shard_alone_is_dropped_and_said(tmp_path, caplog, damage):
    _, paths = fill(tmp_path, keys_of(0, 1), keys_of(2, 3), keys_of(4))
    damage(paths[1])
    store = FeatureStore(tmp_path, RECIPE)
    with caplog.at_level(logging.WARNING):
        assert store.missing(keys_of(4, 3, 2, 1, 0), WIDTHS) == keys_of(3, 2)
    assert str(paths[1]) in caplog.text
    assert not paths[1].exists()
    assert not paths[1].with_suffix(".json").exists()
    store.write(keys_of(2, 3), features(keys_of(2, 3)))
    assert FeatureStore(tmp_path, RECIPE).missing(keys_of(0, 1, 2, 3, 4), WIDTHS) == []


def test_drop_corrupt_names_each_bad_shard_once(tmp_path):
    _, paths = fill(tmp_path, keys_of(0), keys_of(1))
    flip_a_byte(paths[0])
    store = FeatureStore(tmp_path, RECIPE)
    assert store.drop_corrupt() == [paths[0]]
    assert store.drop_corrupt() == []


def test_a_verified_shard_is_not_hashed_again(tmp_path, monkeypatch):
    store, _ = fill(tmp_path, keys_of(0), keys_of(1))
    hashed = []
    fault = store_module._Shard.fault
    monkeypatch.setattr(store_module._Shard, "fault", lambda s: hashed.append(s.path) or fault(s))
    store.missing(keys_of(0, 1), WIDTHS)
    store.missing(keys_of(0, 1), WIDTHS)
    store.read(keys_of(0, 1), [MEAN])
    assert len(hashed) == 2


def test_read_never_returns_a_flipped_bit(tmp_path):
    _, [path] = fill(tmp_path, keys_of(0))
    flip_a_byte(path)
    with pytest.raises(StoreError, match="run the extraction again"):
        FeatureStore(tmp_path, RECIPE).read(keys_of(0), [*WIDTHS])


def test_a_shard_without_its_sidecar_does_not_exist(tmp_path):
    _, paths = fill(tmp_path, keys_of(0), keys_of(1))
    paths[0].with_suffix(".json").unlink()
    store = FeatureStore(tmp_path, RECIPE)
    assert store.missing(keys_of(0, 1), WIDTHS) == keys_of(0)
    store.write(keys_of(0), features(keys_of(0)))
    assert_equal(store.read(keys_of(0, 1), [*WIDTHS]), features(keys_of(0, 1)))


@pytest.mark.parametrize("text", ["", '{"sha256": "a"}', "[]", '{"widths": 3'])
def test_a_torn_sidecar_drops_its_shard(tmp_path, caplog, text):
    _, paths = fill(tmp_path, keys_of(0), keys_of(1))
    paths[0].with_suffix(".json").write_text(text)
    store = FeatureStore(tmp_path, RECIPE)
    assert store.missing(keys_of(0, 1), WIDTHS) == keys_of(0)
    assert paths[0].stem in caplog.text


def test_absent_features_are_named_with_the_way_out(tmp_path):
    store, _ = fill(tmp_path, keys_of(0))
    with pytest.raises(StoreError, match="1 of 2 features") as caught:
        store.read(keys_of(0, 1), [MEAN])
    assert MEAN in str(caught.value)
    assert keys_of(1)[0] in str(caught.value)
    assert "run the extraction again" in str(caught.value)


def test_shards_that_disagree_on_a_width_are_an_error(tmp_path):
    store, _ = fill(tmp_path, keys_of(0))
    store.write(keys_of(1), {MEAN: torch.zeros(1, 4)})
    with pytest.raises(StoreError, match="in another shard"):
        store.read(keys_of(0, 1), [MEAN])


@pytest.mark.parametrize(
    ("keys", "tensors"),
    [
        ([], {MEAN: torch.zeros(0, 2)}),
        (keys_of(0, 0), {MEAN: torch.zeros(2, 2)}),
        (keys_of(0), {}),
        (keys_of(0), {MEAN: torch.zeros(2, 2)}),
        (keys_of(0), {MEAN: torch.zeros(1, 2, 4, 4)}),
        (keys_of(0), {MEAN: torch.zeros(1, 2, dtype=torch.int64)}),
    ],
)
def test_write_refuses_what_is_not_one_row_an_image(tmp_path, keys, tensors):
    store = FeatureStore(tmp_path, RECIPE)
    with pytest.raises(ConfigError):
        store.write(keys, tensors)
    assert [path.name for path in store.path.iterdir()] == ["recipe.json"]


def test_recipes_do_not_share_a_folder(tmp_path):
    store, _ = fill(tmp_path, keys_of(0))
    other = FeatureStore(tmp_path, {**RECIPE, "seed": 1})
    assert other.key != store.key
    assert other.missing(keys_of(0), WIDTHS) == keys_of(0)
    assert FeatureStore(tmp_path, dict(reversed(RECIPE.items()))).key == store.key
    assert FeatureStore(tmp_path, {**RECIPE, "guidance": {"name": "none"}}).key != store.key


def test_the_schema_version_is_part_of_the_key(tmp_path, monkeypatch):
    key = FeatureStore(tmp_path, RECIPE).key
    monkeypatch.setattr(store_module, "SCHEMA_VERSION", store_module.SCHEMA_VERSION + 1)
    assert FeatureStore(tmp_path, RECIPE).key != key


def test_another_recipe_under_the_same_key_is_refused(tmp_path):
    path = FeatureStore(tmp_path, RECIPE).path / "recipe.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "backbone": "sd15"}))
    with pytest.raises(StoreError, match=r"differs in backbone.*another root"):
        FeatureStore(tmp_path, RECIPE)
    path.write_text("{")
    with pytest.raises(StoreError, match="expected JSON"):
        FeatureStore(tmp_path, RECIPE)


def test_a_recipe_that_json_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="plain values"):
        FeatureStore(tmp_path, {"root": tmp_path})
    assert not list(tmp_path.iterdir())


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("name", ["recipe.json", "0123.json", "0123.safetensors"])
def test_leftovers_of_the_dead_alone_are_removed(tmp_path, monkeypatch, caplog, name):
    store, _ = fill(tmp_path, keys_of(0))
    host, dead = socket.gethostname(), dead_pid()
    owners = {"dead": (host, dead), "live": (host, os.getpid()), "away": (f"{host}-2", dead)}
    # Left as a crash would: written, never renamed, by each owner.
    paths = {}
    for who, (owner_host, owner_pid) in owners.items():
        with monkeypatch.context() as patch:
            patch.setattr(socket, "gethostname", lambda value=owner_host: value)
            patch.setattr(os, "getpid", lambda value=owner_pid: value)
            paths[who] = files._temporary(store.path / name)
        paths[who].write_bytes(b"half")
    # What others have in flight is no torn sidecar either.
    assert FeatureStore(tmp_path, RECIPE).missing(keys_of(0, 1), WIDTHS) == keys_of(1)
    assert {who for who, path in paths.items() if path.exists()} == {"live", "away"}
    assert not caplog.records


# The workers load this file by its path: how pytest names test modules is not their business.
LOAD_THIS_FILE = """
import importlib.util, os, sys, time
from pathlib import Path

spec = importlib.util.spec_from_file_location("writer", sys.argv[1])
writer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(writer)
root = Path(sys.argv[2])
"""

CONCURRENT_WRITER = """
store, first = writer.FeatureStore(root, writer.RECIPE), int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for number in range(first, first + 20, 2):
    keys = writer.keys_of(number, number + 1)
    store.write(keys, writer.features(keys))
"""


def start_worker(script: str, root: Path, argument: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", LOAD_THIS_FILE + script, __file__, str(root), argument],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_processes_write_at_once(tmp_path):
    # 10 to 19 are written by both.
    workers = [start_worker(CONCURRENT_WRITER, tmp_path, first) for first in ("0", "10")]
    assert [worker.stdout.readline() for worker in workers] == ["ready\n", "ready\n"]
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        worker.communicate(timeout=60)
    assert [worker.returncode for worker in workers] == [0, 0]
    store, keys = FeatureStore(tmp_path, RECIPE), keys_of(*range(30))
    assert store.missing(keys, WIDTHS) == []
    assert_equal(store.read(keys, [*WIDTHS]), features(keys))
    assert temporaries(store) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_said_and_leaves_nothing_half_done(tmp_path, monkeypatch, call, code):
    store, [kept] = fill(tmp_path, keys_of(0))

    def full(*_args, **_kwargs):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(StoreError, match="finished shards are kept") as caught:
            store.write(keys_of(1), features(keys_of(1)))
    assert str(store.path) in str(caught.value)
    assert temporaries(store) == []
    assert kept.exists()
    again = FeatureStore(tmp_path, RECIPE)
    assert again.missing(keys_of(0, 1), WIDTHS) == keys_of(1)
    again.write(keys_of(1), features(keys_of(1)))
    assert again.missing(keys_of(0, 1), WIDTHS) == []


def test_a_disk_that_fills_up_before_the_sidecar_loses_only_that_shard(tmp_path, monkeypatch):
    store, _ = fill(tmp_path, keys_of(0))
    publish = store_module._publish

    def full_for_sidecars(path, data):
        if path.suffix == ".json":
            monkeypatch.setattr(os, "fsync", _no_space)
        publish(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "_publish", full_for_sidecars)
        with pytest.raises(StoreError):
            store.write(keys_of(1), features(keys_of(1)))
    assert FeatureStore(tmp_path, RECIPE).missing(keys_of(0, 1), WIDTHS) == keys_of(1)


def _no_space(*_args) -> None:
    raise OSError(errno.ENOSPC, "full")


def test_an_interrupt_leaves_no_temporary(tmp_path, monkeypatch):
    store = FeatureStore(tmp_path, RECIPE)

    def interrupt(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.write(keys_of(0), features(keys_of(0)))
    assert temporaries(store) == []


KILLED_WRITER = """
store, _ = writer.fill(root, writer.keys_of(0, 1), writer.keys_of(2, 3))

def hang(*_args):
    print("in flight", flush=True)
    time.sleep(60)

setattr(os, sys.argv[3], hang)
store.write(writer.keys_of(4, 5), writer.features(writer.keys_of(4, 5)))
"""


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_kill_9_loses_only_the_shard_in_flight(tmp_path, call):
    with start_worker(KILLED_WRITER, tmp_path, call) as process:
        assert process.stdout.readline() == "in flight\n"
        process.send_signal(signal.SIGKILL)
    [folder] = tmp_path.iterdir()
    assert len(list(folder.glob("*.tmp"))) == 1
    store, keys = FeatureStore(tmp_path, RECIPE), keys_of(*range(6))
    assert temporaries(store) == []
    assert store.missing(keys, WIDTHS) == keys_of(4, 5)
    store.write(keys_of(4, 5), features(keys_of(4, 5)))
    assert_equal(store.read(keys, [*WIDTHS]), features(keys))


def test_the_estimate_matches_what_lies_on_disk(tmp_path):
    keys, widths = keys_of(*range(64)), {MEAN: 320, STD: 640}
    path = FeatureStore(tmp_path, RECIPE).write(keys, features(keys, widths))
    estimate = estimate_bytes(len(keys), widths)
    written = path.stat().st_size + path.with_suffix(".json").stat().st_size
    assert estimate <= written <= estimate * 1.05


def test_too_little_space_is_said_before_anything_is_computed(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=104_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    check_space(tmp_path / "not" / "there", 99_000_000)
    with pytest.raises(StoreError, match=r"0\.105 GB, 0\.104 GB are free"):
        check_space(tmp_path / "not" / "there", 100_000_000)
    assert not list(tmp_path.iterdir())
