"""A fitted head on disk: ``head.safetensors`` and ``head.json`` in one folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from latentiqa.errors import DataError
from latentiqa.files import write_atomic
from latentiqa.heads.base import Head
from latentiqa.heads.identity import IdentityHead
from latentiqa.heads.mlp import MLPHead
from latentiqa.heads.pooled import PooledHead
from latentiqa.heads.quadratic import QuadraticRidgeHead
from latentiqa.heads.ridge import RidgeHead

SCHEMA = 1
HEADS: dict[str, type[Head]] = {
    head.__name__: head
    for head in (RidgeHead, QuadraticRidgeHead, MLPHead, IdentityHead, PooledHead)
}
"""The classes that a file may name; nothing else is ever constructed."""


def save_head(head: Head, folder: str | Path, meta: dict[str, Any] | None = None) -> None:
    """Write a fitted head; each file appears whole or not at all.

    Args:
        head: a fitted head of a class in `HEADS`.
        folder: made if missing; a head already in it is replaced.
        meta: any JSON object to keep with it, such as the names of the features.

    Raises:
        DataError: the head is not fitted, or `meta` is not JSON; nothing is written.
        OSError: the folder cannot be written.

    Example:
        >>> import tempfile
        >>> x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
        >>> head = RidgeHead()
        >>> _ = head.fit(x[:30], x[:30, 0], x[30:], x[30:, 0])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_head(head, folder, {"layers": ["up.0"]})
        ...     loaded, meta = load_head(folder)
        >>> torch.equal(loaded.predict(x), head.predict(x)), meta
        (True, {'layers': ['up.0']})
    """
    if head.in_features is None:
        raise DataError(f"{type(head).__name__} is not fitted: call fit before save_head")
    weights = save({name: t.contiguous().cpu() for name, t in head.state_dict().items()})
    description = {
        "schema": SCHEMA,
        "class": type(head).__name__,
        "arguments": head.arguments,
        "in_features": head.in_features,
        # Ties the two files together and finds flipped bits, which safetensors does not.
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "meta": meta or {},
    }
    try:
        text = json.dumps(description, indent=2)
    except (TypeError, ValueError) as error:
        raise DataError(f"meta of the head is not JSON ({error}): give plain values") from error
    folder = Path(folder)
    write_atomic(folder / "head.safetensors", weights)
    write_atomic(folder / "head.json", text)


def load_head(folder: str | Path) -> tuple[Head, dict[str, Any]]:
    """Read what `save_head` wrote.

    Returns:
        The head on the CPU, and its meta.

    Raises:
        DataError: a file is missing or damaged, the files are not of one head, or the class,
            the schema or the arguments are unknown to this version.
    """
    folder = Path(folder)
    path = folder / "head.json"
    try:
        description = json.loads(_read(path))
        name, arguments = description["class"], description["arguments"]
        in_features, checksum = description["in_features"], description["weights_sha256"]
        schema, meta = description["schema"], description["meta"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a description of a head ({error!r}): train again") from error
    if schema != SCHEMA:
        raise DataError(f"{path}: schema {schema}, expected {SCHEMA}: use its version of latentiqa")
    try:
        head = _made(path, name, arguments)
        with torch.device("meta"):  # no memory, no random numbers: the file brings the values
            head.build(in_features)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{path}: wrong arguments of {name} ({error}): train again") from error
    _load_weights(head, folder / "head.safetensors", checksum)
    return head.eval().requires_grad_(False), meta


def _made(path: Path, name: Any, arguments: Any) -> Head:
    """A head that is described by its class and arguments, and that it may hold another one."""
    if name not in list(HEADS):  # a list, as a damaged file may name something unhashable
        raise DataError(f"{path}: unknown head {name!r}, expected one of {', '.join(HEADS)}")
    if HEADS[name] is PooledHead:
        inner = arguments["head"]
        return PooledHead(_made(path, inner["class"], inner["arguments"]))
    return HEADS[name](**arguments)


def _load_weights(head: Head, path: Path, checksum: str) -> None:
    data = _read(path)
    if hashlib.sha256(data).hexdigest() != checksum:
        raise DataError(
            f"{path}: damaged, or not of the head.json beside it (checksum differs): train again"
        )
    try:
        head.load_state_dict(load(data), assign=True)
    except (SafetensorError, RuntimeError) as error:
        raise DataError(
            f"{path}: not the weights of a {type(head).__name__} on {head.in_features} features "
            f"({error}): train again"
        ) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}): expected the folder of a trained head, "
            "with head.json and head.safetensors"
        ) from error
