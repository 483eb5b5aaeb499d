"""Files and folders that are there complete, or not at all."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file under a temporary name, flush it to disk and rename it. POSIX only.

    When this returns, the file survives a crash of the process or the machine; when it fails,
    what was there before is untouched and nothing is left behind.

    Args:
        path: the file; its folder is made if missing.
        data: bytes, or text for UTF-8.

    Raises:
        OSError: the file cannot be written; it names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        with temporary.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno:
            # The temporary name would mean nothing to anybody.
            error.filename = str(path)
        raise


def check_writable(path: Path) -> None:
    """Find out that a file cannot be written before the work whose results it is for.

    Args:
        path: the file, which is not touched; its folder is made if missing.

    Raises:
        OSError: nothing can be written there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.parent):
        pass


def build_folder(
    folder: Path,
    build: Callable[[Path], None],
    is_complete: Callable[[Path], bool] = Path.exists,
) -> Path:
    """Build a folder aside and rename it, unless it is there already.

    A killed process leaves nothing that could be taken for the folder; of two processes at once
    the first to finish wins, so ``build`` must give the same content each time.

    Args:
        folder: where it shall be; parents are made.
        build: fills the empty folder that it is given.
        is_complete: whether a folder that is there can be kept; one that cannot is replaced.

    Returns:
        ``folder``.
    """
    if is_complete(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        build(aside)
        if folder.exists() and not is_complete(folder):
            shutil.rmtree(folder)
        aside.replace(folder)
    except OSError:
        # Another process was first: its folder, the same to the bit, cannot be replaced.
        if not is_complete(folder):
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes of this host that have died."""
    for path in folder.glob("*@*@*@*.tmp"):
        _, host, pid, _ = path.name.split("@")
        if host == socket.gethostname() and not _is_alive(int(pid)):
            path.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    """A name of this writer's own; its suffix keeps it out of every search for finished files."""
    owner = f"{socket.gethostname()}@{os.getpid()}@{uuid.uuid4().hex[:8]}"
    return path.with_name(f"{path.name}@{owner}.tmp")


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
