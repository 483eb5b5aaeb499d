"""Files of a published model: in a folder on this disk, or on the Hugging Face hub."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latentiqa.errors import LatentiqaError

log = logging.getLogger(__name__)

Wanted = str | tuple[str, ...]
"""A file, relative to a model's folder, or alternatives, of which the first one there counts.

The index of weights in shards (``*.safetensors.index*.json``) stands for its shards, too.
"""


@dataclass(frozen=True)
class ModelFiles:
    """The files that loading a model needs, and where they come from.

    Args:
        source: a folder, or a hub id (``owner/name``).
        names: the files.
        revision: branch, tag or commit on the hub.
        download_gb: size of the download where one is needed, said before it starts.

    Example:
        >>> ModelFiles("owner/name", ("config.json",)).is_folder
        False
    """

    source: str
    names: tuple[Wanted, ...]
    revision: str | None = None
    download_gb: float | None = None

    @property
    def is_folder(self) -> bool:
        """Whether the source is a local folder."""
        return Path(self.source).is_dir()

    @property
    def is_hub_id(self) -> bool:
        """Whether the source can be meant for the hub."""
        return not self.is_folder and self.source.count("/") == 1

    def local(self) -> Path | None:
        """The folder on this disk that has some of the files at least, or none."""
        if self.is_folder:
            return Path(self.source)
        from huggingface_hub import try_to_load_from_cache

        for name in self._flat():
            path = try_to_load_from_cache(self.source, name, revision=self.revision)
            if isinstance(path, str):
                return Path(path).parents[name.count("/")]
        return None

    def is_present(self) -> bool:
        """Whether loading needs no download."""
        folder = self.local()
        return folder is not None and not self.absent(folder)

    def here(self, folder: Path) -> list[str]:
        """The files as a folder has them: of alternatives the one there, of shards all."""
        return [name for name in self._resolved(folder) if (folder / name).is_file()]

    def absent(self, folder: Path) -> list[str]:
        """The files that a folder lacks."""
        return [name for name in self._resolved(folder) if not (folder / name).is_file()]

    def announce(self) -> None:
        """Say what is about to be downloaded, and how much it is."""
        size = f"about {self.download_gb:g} GB" if self.download_gb else "size not stated"
        log.warning(
            "Downloading %s (revision %s, %s) from huggingface.co into the hub's cache.",
            self.source,
            self.revision or "main",
            size,
        )

    def folder(self, what: str, way_out: str) -> Path:
        """The local folder with the files, after a download, which is said, if need be.

        Args:
            what: the kind of model, for the error.
            way_out: what to do where there is no network, for the error.

        Raises:
            LatentiqaError: the files are not here and cannot be fetched.
        """
        if not self.is_present() and not self.is_folder:
            self.announce()
        return self.fetch(what, way_out)

    def fetch(self, what: str, way_out: str) -> Path:
        """As `folder`, without a word."""
        folder = self.local()
        if self.is_folder or (folder is not None and not self.absent(folder)):
            assert folder is not None
            return folder
        try:
            folder = self._download(self._flat())
            # Which shards there are, only their index says.
            return self._download(absent) if (absent := self.absent(folder)) else folder
        except Exception as error:
            from huggingface_hub.errors import GatedRepoError

            told = (
                f"{what} {self.source} (revision {self.revision or 'main'}) is not in the hub's "
                f"cache and could not be downloaded: {error}. "
            )
            if isinstance(error, GatedRepoError):
                told += (
                    f"It is gated: accept its terms at https://huggingface.co/{self.source}, then "
                    "log in with `hf auth login`. Or fetch"
                )
            else:
                told += "Fetch"
            raise LatentiqaError(f"{told} it where there is a network and {way_out}.") from error

    def _download(self, names: Sequence[str]) -> Path:
        from huggingface_hub import snapshot_download

        return Path(
            snapshot_download(self.source, revision=self.revision, allow_patterns=list(names))
        )

    def _flat(self) -> list[str]:
        return [name for wanted in self.names for name in _alternatives(wanted)]

    def _resolved(self, folder: Path) -> list[str]:
        resolved: list[str] = []
        for wanted in self.names:
            names = _alternatives(wanted)
            found = next((name for name in names if (folder / name).is_file()), names[0])
            resolved += [found, *_shards(folder, found)]
        # Two may have the same alternative.
        return list(dict.fromkeys(resolved))


def _alternatives(wanted: Wanted) -> tuple[str, ...]:
    return (wanted,) if isinstance(wanted, str) else wanted


def _shards(folder: Path, name: str) -> list[str]:
    if ".safetensors.index" not in name or not (folder / name).is_file():
        return []
    try:
        files = set(json.loads((folder / name).read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError) as error:
        raise LatentiqaError(
            f"{folder / name}: could not be read as an index of weights ({error!r}). Delete it and "
            "fetch or save the model again."
        ) from error
    return [str(Path(name).with_name(file)) for file in sorted(files)]
