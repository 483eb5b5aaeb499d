"""Content hashes: of plain values (configs, splits, recipes) and of files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from latentiqa.errors import ConfigError


def digest(value: Any, length: int = 12) -> str:
    """Hash a JSON-serialisable value independently of key order.

    Args:
        value: dicts, lists, strings, numbers, booleans and ``None``, nested.
        length: number of hex digits kept of the SHA-256.

    Returns:
        The first ``length`` hex digits.

    Example:
        >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
        True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def file_digest(path: str | Path, length: int = 16) -> str:
    """SHA-256 of a file's bytes, first ``length`` hex digits.

    Raises:
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:length]


def folder_digest(folder: str | Path, length: int = 16) -> str:
    """Hash of a folder's files, names and bytes; what its own name is does not matter.

    Raises:
        ConfigError: there is no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ConfigError(f"{folder}: no such folder; expected a folder of weights.")
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return digest({str(path.relative_to(root)): file_digest(path) for path in files}, length)
