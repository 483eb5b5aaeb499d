"""The on-disk feature store: (image key, tensor name) -> float32 vector, in checksummed shards.

A store is one folder, named by the hash of all that changes a value. Each shard is two files::

    <root>/<key>/recipe.json          what the key is the hash of
    <root>/<key>/<shard>.safetensors  tensor name -> (N, C) float32; the N image keys as metadata
    <root>/<key>/<shard>.json         its sidecar: checksum, size, image keys, tensor widths

There is no shared index file that concurrent writers could tear: the index is the union of the
sidecars, and a shard without its sidecar does not exist. Files appear under their final name
complete or not at all, so that a killed run loses at most the shard in flight. POSIX only.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from latentiqa.errors import ConfigError, StoreError
from latentiqa.files import remove_leftovers, write_atomic
from latentiqa.hashing import digest

SCHEMA_VERSION = 1
"""Part of every key: raise it when the layout or the meaning of the stored values changes."""

SPACE_MARGIN = 0.05
"""Share kept free on top of the features, for headers and sidecars."""

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Shard:
    """What a sidecar says about its shard."""

    path: Path
    sha256: str
    size: int
    images: tuple[str, ...]
    widths: dict[str, int]

    @classmethod
    def from_sidecar(cls, path: Path) -> _Shard:
        """Read ``<shard>.json``; ValueError, KeyError or TypeError if it is not a sidecar."""
        record = json.loads(path.read_bytes())
        return cls(
            path.with_suffix(".safetensors"),
            str(record["sha256"]),
            int(record["size"]),
            tuple(record["images"]),
            {str(name): int(width) for name, width in record["widths"].items()},
        )

    def fault(self) -> str | None:
        """What is wrong with the shard's bytes, ``None`` if they are those once written."""
        try:
            with self.path.open("rb") as file:
                if (size := os.fstat(file.fileno()).st_size) != self.size:
                    return f"{size} bytes, expected {self.size}"
                if hashlib.file_digest(file, "sha256").hexdigest() != self.sha256:
                    return "wrong checksum"
        except FileNotFoundError:
            return "file missing"
        return None


class FeatureStore:
    """Features of images, kept under a key made of all that changes their values.

    Any number of processes may read and write the same store at once. Shards are named by their
    content, so that two writers of the same images never mix their bytes; where several shards
    hold the same pair, the last by name is read, whatever the order they were written in.

    Args:
        root: folder of all stores; this one is ``root/<key>`` and is made if needed.
        recipe: what determines the values (backbone, guidance, trajectory, ...), JSON-serialisable.
            Layers, timesteps and statistics are tensor names and do not belong in it.

    Attributes:
        key: hash of the recipe and the schema version.
        path: the folder.

    Raises:
        ConfigError: the recipe cannot be written as JSON.
        StoreError: the folder holds another recipe, or cannot be written for want of space.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> store = FeatureStore(Path(folder.name), {"backbone": "tiny"})
        >>> _ = store.write(["a", "b"], {"100/mid.attn.0/mean": torch.tensor([[1.0], [2.0]])})
        >>> store.missing(["c", "b"], ["100/mid.attn.0/mean"])
        ['c']
        >>> store.read(["b", "a"], ["100/mid.attn.0/mean"])["100/mid.attn.0/mean"].tolist()
        [[2.0], [1.0]]
        >>> folder.cleanup()
    """

    def __init__(self, root: Path, recipe: Mapping[str, Any]) -> None:
        try:
            full: dict[str, Any] = json.loads(json.dumps({**recipe, "schema": SCHEMA_VERSION}))
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"recipe={recipe!r}: expected plain values that JSON can hold ({error}); "
                "convert paths and tensors to text first"
            ) from error
        self.key = digest(full)
        self.path = Path(root) / self.key
        self._shards: dict[str, _Shard] = {}
        self._verified: set[str] = set()
        self.path.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.path)
        self._claim(full)
        self.refresh()

    def _claim(self, recipe: dict[str, Any]) -> None:
        path = self.path / "recipe.json"
        if not path.exists():
            _publish(path, json.dumps(recipe, indent=2, sort_keys=True).encode())
        try:
            found = json.loads(path.read_bytes())
        except ValueError as error:
            raise StoreError(
                f"{path}: expected JSON ({error}); move {self.path} away to extract anew"
            ) from error
        if found != recipe:
            differing = sorted(
                key
                for key in recipe.keys() | found.keys()
                if recipe.get(key, ...) != found.get(key, ...)
            )
            raise StoreError(
                f"{path}: made by another recipe (it differs in {', '.join(differing)}); "
                f"move {self.path} away, or choose another root"
            )

    def refresh(self) -> None:
        """Take in the shards that other processes have written or removed since."""
        sidecars = {p.stem: p for p in self.path.glob("*.json") if p.name != "recipe.json"}
        self._verified &= sidecars.keys()
        known = {name: self._shards[name] for name in sidecars.keys() & self._shards.keys()}
        for name in sidecars.keys() - known.keys():
            try:
                known[name] = _Shard.from_sidecar(sidecars[name])
            except FileNotFoundError:
                continue  # another process found it corrupt just now
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                logger.warning(
                    "%s: not a sidecar (%r); its shard is dropped", sidecars[name], error
                )
                _remove_shard(sidecars[name])
        self._shards = known

    def missing(self, image_keys: Iterable[str], tensor_names: Iterable[str]) -> list[str]:
        """The images that lack any of the tensors, counting only shards whose checksum holds.

        Args:
            image_keys: images asked for; one that is named twice is returned once.
            tensor_names: tensors that each of them must have.

        Returns:
            Image keys in the given order.
        """
        self.refresh()
        self.drop_corrupt()
        wanted = set(tensor_names)
        held: dict[str, set[str]] = {}
        for shard in self._shards.values():
            if here := wanted & shard.widths.keys():
                for image in shard.images:
                    held.setdefault(image, set()).update(here)
        return [key for key in dict.fromkeys(image_keys) if held.get(key, set()) != wanted]

    def drop_corrupt(self) -> list[Path]:
        """Verify each shard not yet verified by this object, remove the bad ones with a warning.

        Returns:
            The shard files that were removed; their images are missing from now on.
        """
        return self._verify(self._shards)

    def _verify(self, names: Iterable[str]) -> list[Path]:
        unverified = [name for name in names if name not in self._verified]
        with ThreadPoolExecutor() as pool:  # hashing and reading release the GIL
            faults = list(pool.map(lambda name: self._shards[name].fault(), unverified))
        dropped = []
        for name, fault in zip(unverified, faults, strict=True):
            if fault is None:
                self._verified.add(name)
                continue
            shard = self._shards.pop(name)
            logger.warning(
                "%s: %s; removed, its %d images will be extracted anew",
                *(shard.path, fault, len(shard.images)),
            )
            _remove_shard(shard.path.with_suffix(".json"))
            dropped.append(shard.path)
        return dropped

    def write(self, image_keys: Sequence[str], tensors: Mapping[str, Tensor]) -> Path:
        """Store one shard; when this returns, it survives a crash of the process or the machine.

        Args:
            image_keys: N distinct image keys.
            tensors: tensor name -> (N, C), any float type and device; C may differ by name.

        Returns:
            The shard file.

        Raises:
            ConfigError: shapes and image keys do not go together.
            StoreError: the disk is full; nothing is left behind and finished shards are kept.
        """
        keys = list(image_keys)
        _check_shard(keys, tensors)
        plain = {
            name: value.detach().to("cpu", torch.float32).contiguous()
            for name, value in sorted(tensors.items())
        }
        data = save(plain, metadata={"images": json.dumps(keys)})
        sha256 = hashlib.sha256(data).hexdigest()
        widths = {name: value.shape[1] for name, value in plain.items()}
        name = digest({"images": keys, "tensors": list(plain), "sha256": sha256}, length=16)
        path = self.path / f"{name}.safetensors"
        sidecar = {"sha256": sha256, "size": len(data), "images": keys, "widths": widths}
        _publish(path, data)
        _publish(path.with_suffix(".json"), json.dumps(sidecar).encode())
        # Not marked as verified: what the disk holds is checked when it is first counted or read.
        self._shards[name] = _Shard(path, sha256, len(data), tuple(keys), widths)
        return path

    def read(self, image_keys: Sequence[str], tensor_names: Sequence[str]) -> dict[str, Tensor]:
        """Assemble tensors over shards; what is not asked for is not loaded.

        A shard is verified before this object takes its first value from it.

        Args:
            image_keys: N image keys, in any order, repetitions allowed.
            tensor_names: the tensors, in any order.

        Returns:
            tensor name -> (N, C) float32, rows and names in the order asked.

        Raises:
            StoreError: a pair is absent or was found corrupt (its image is then missing), or shards
                disagree on a width.
        """
        keys, names = list(image_keys), list(dict.fromkeys(tensor_names))
        rows = {name: rows for name, rows in self._rows(keys).items() if len(rows[0])}
        self._verify(rows)
        widths: dict[str, int] = {}
        for shard in self._shards.values():
            _merge_widths(widths, shard, names)
        found = np.zeros((len(names), len(keys)), dtype=bool)
        out = {name: torch.empty(len(keys), widths.get(name, 0)) for name in names}
        for name in (name for name in rows if name in self._shards):
            shard, (source, target) = self._shards[name], rows[name]
            columns = np.array([i for i, tensor in enumerate(names) if tensor in shard.widths], int)
            _copy_rows(shard, source, {names[i]: out[names[i]] for i in columns}, target)
            found[np.ix_(columns, target)] = True
        _check_found(found, keys, names, self.path)
        return out

    def _rows(self, keys: Sequence[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Shard name -> (rows in the shard, rows in the answer)."""
        positions: dict[str, list[int]] = {}
        for position, key in enumerate(keys):
            positions.setdefault(key, []).append(position)
        rows = {}
        # Sorted: of two shards with the same pair the last is read, whatever else is asked for.
        for name, shard in sorted(self._shards.items()):
            pairs = [
                (row, position)
                for row, image in enumerate(shard.images)
                for position in positions.get(image, ())
            ]
            source, target = np.array(pairs, int).reshape(-1, 2).T
            rows[name] = (source, target)
        return rows


def estimate_bytes(n_images: int, widths: Mapping[str, int]) -> int:
    """Bytes that the features of a dataset take on disk, headers and sidecars aside.

    Args:
        n_images: number of images.
        widths: tensor name -> C.

    Example:
        >>> estimate_bytes(1000, {"100/mid.attn.0/mean": 1280, "90/mid.attn.0/mean": 1280})
        10240000
    """
    return n_images * sum(widths.values()) * torch.float32.itemsize


def check_space(root: Path, n_bytes: int) -> None:
    """Refuse to start what cannot fit.

    A quota is not seen by this check; `FeatureStore.write` reports it when it is reached.

    Args:
        root: the store's root, which need not exist yet.
        n_bytes: what is going to be written, e.g. from `estimate_bytes`.

    Raises:
        StoreError: the file system has less free space than ``n_bytes`` and 5 %.
    """
    root = Path(root).absolute()
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    needed, free = math.ceil(n_bytes * (1 + SPACE_MARGIN)), shutil.disk_usage(existing).free
    if needed > free:
        raise StoreError(
            f"{root}: the features need {_gigabytes(needed)}, {_gigabytes(free)} are free; "
            "free some space, choose another folder, or ask for fewer layers or timesteps"
        )


def _gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.3f} GB"


def _check_shard(keys: list[str], tensors: Mapping[str, Tensor]) -> None:
    if not keys or len(set(keys)) != len(keys):
        raise ConfigError(f"image_keys={keys[:3]}...: expected one or more distinct image keys")
    if not tensors:
        raise ConfigError("tensors={}: expected at least one tensor")
    for name, value in tensors.items():
        if value.ndim != 2 or len(value) != len(keys) or not value.is_floating_point():
            raise ConfigError(
                f"tensors[{name!r}] of shape {tuple(value.shape)}, {value.dtype}: expected floats "
                f"of shape ({len(keys)}, C), one row an image; pool the maps first"
            )


def _merge_widths(widths: dict[str, int], shard: _Shard, names: Iterable[str]) -> None:
    for name in names:
        width = shard.widths.get(name)
        if width is not None and widths.setdefault(name, width) != width:
            raise StoreError(
                f"{shard.path}: {name} has {width} values, {widths[name]} in another shard: "
                f"the recipe misses something that changes it; move {shard.path.parent} away"
            )


def _copy_rows(
    shard: _Shard, source: np.ndarray, tensors: Mapping[str, Tensor], target: np.ndarray
) -> None:
    """Copy rows ``source`` of the shard to rows ``target`` of each of ``tensors`` (N, C)."""
    take, put = _as_index(source), _as_index(target)
    with safe_open(shard.path, framework="pt") as file:
        for name, out in tensors.items():
            out[put] = file.get_tensor(name)[take]


def _as_index(rows: np.ndarray) -> slice | Tensor:
    """Rows as a slice where they are consecutive: several times faster than a gather."""
    if (np.diff(rows) == 1).all():
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return torch.from_numpy(rows)


def _check_found(found: np.ndarray, keys: list[str], names: list[str], path: Path) -> None:
    absent = np.argwhere(~found)
    if len(absent):
        few = "; ".join(f"{names[i]} of {keys[j]}" for i, j in absent[:3])
        raise StoreError(
            f"{path}: {len(absent)} of {found.size} features are not in the store ({few}, ...); "
            "run the extraction again with the same settings, it computes only what is missing"
        )


def _publish(path: Path, data: bytes) -> None:
    """Write a file that is there complete and on disk, or not at all.

    Raises:
        StoreError: the disk or the quota is full.
    """
    try:
        write_atomic(path, data)
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        raise StoreError(
            f"{path.parent}: disk or quota full while writing {_gigabytes(len(data))}; "
            "finished shards are kept: free some space and run the same command again"
        ) from error


def _remove_shard(sidecar: Path) -> None:
    # The sidecar first: a shard without one does not exist, the reverse would look corrupt.
    sidecar.unlink(missing_ok=True)
    sidecar.with_suffix(".safetensors").unlink(missing_ok=True)
