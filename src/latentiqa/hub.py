"""Files of a published model: in a folder on this disk, or on the Hugging Face hub."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from latentiqa.errors import LatentiqaError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelFiles:
    """The files that loading a model needs, and where they come from.

    Args:
        source: a folder, or a hub id (``owner/name``).
        names: the files, relative to the model's folder.
        revision: branch, tag or commit on the hub.
        download_gb: size of the download where one is needed, said before it starts.

    Example:
        >>> ModelFiles("owner/name", ("config.json",)).is_folder
        False
    """

    source: str
    names: tuple[str, ...]
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

    def is_present(self) -> bool:
        """Whether loading needs no download."""
        if self.is_folder:
            return not self.absent(Path(self.source))
        from huggingface_hub import try_to_load_from_cache

        return all(
            isinstance(try_to_load_from_cache(self.source, name, revision=self.revision), str)
            for name in self.names
        )

    def absent(self, folder: Path) -> list[str]:
        """The files that a folder lacks."""
        return [name for name in self.names if not (folder / name).is_file()]

    def folder(self, what: str, way_out: str) -> Path:
        """The local folder with the files, after a download if need be.

        Args:
            what: the kind of model, for the error.
            way_out: what to do where there is no network, for the error.

        Raises:
            LatentiqaError: the files are not here and cannot be fetched.
        """
        if self.is_folder:
            return Path(self.source)
        from huggingface_hub import snapshot_download

        present = self.is_present()
        if not present:
            size = f"about {self.download_gb:g} GB" if self.download_gb else "size not stated"
            log.warning(
                "Downloading %s (revision %s, %s) from huggingface.co into the hub's cache.",
                self.source,
                self.revision or "main",
                size,
            )
        try:
            return Path(
                snapshot_download(
                    self.source,
                    revision=self.revision,
                    allow_patterns=list(self.names),
                    local_files_only=present,
                )
            )
        except Exception as error:
            raise LatentiqaError(
                f"{what} {self.source} (revision {self.revision or 'main'}) is not in the hub's "
                f"cache and could not be downloaded: {error}. Fetch it where there is a network "
                f"and {way_out}."
            ) from error
