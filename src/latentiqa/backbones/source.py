"""Where a backbone's weights come from, checked before anything is loaded or downloaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from latentiqa.backbones.layout import FAMILIES, INDEX, pipeline_files, read_index
from latentiqa.errors import ConfigError, LatentiqaError
from latentiqa.hashing import digest, file_digest
from latentiqa.hub import ModelFiles

if TYPE_CHECKING:
    import torch

    from latentiqa.backbones.ldm import LatentDiffusion

EMBEDDED = ("tiny", "tiny_random")
"""The model that the package carries, and the control that is built from a seed at first use."""

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class BackboneSource:
    """A latent diffusion model on the hub, in a local folder, or an embedded one.

    Args:
        name: short name for tables.
        source: ``tiny`` or ``tiny_random`` (embedded), a folder in diffusers' pipeline format, or
            a hub id (``owner/name``).
        resolution: side of the square pictures that it works on, pixels, a multiple of 64.
        revision: branch, tag or commit on the hub.
        variant: file name variant of the weights (``fp16``), or none.
        dtype: what the model computes in: float32, bfloat16 or float16.
        download_gb: size of the download where one is needed, said before it starts.
        note: printed wherever numbers of this backbone appear.
        untrained: the control: U-Net and text encoder are drawn anew, with a fixed seed, and the
            autoencoder stays.

    Raises:
        ConfigError: a value is outside its range.
    """

    name: str
    source: str
    resolution: int = 512
    revision: str | None = None
    variant: str | None = None
    dtype: str = "float32"
    download_gb: float | None = None
    note: str | None = None
    untrained: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError(
                f"backbone.dtype={self.dtype!r}: expected one of {', '.join(DTYPES)}."
            )
        if self.resolution <= 0 or self.resolution % 64:
            raise ConfigError(
                f"backbone.resolution={self.resolution}: expected a positive multiple of 64 (the "
                "latents must halve through the whole U-Net)."
            )
        if not (self.is_embedded or self.is_folder or self.index.is_hub_id):
            raise ConfigError(
                f"backbone.source={self.source!r}: no such folder, and not a hub id "
                "(owner/name); give 'tiny', a folder in diffusers' pipeline format or a hub id."
            )

    @property
    def is_embedded(self) -> bool:
        """Whether the weights need no folder and no download."""
        return self.source in EMBEDDED

    @property
    def index(self) -> ModelFiles:
        """The file that says which others are needed; not for embedded ones."""
        return ModelFiles(self.source, (INDEX,), self.revision, self.download_gb)

    @property
    def published(self) -> ModelFiles:
        """The files where they come from, before the index is here it alone; not for embedded."""
        folder = self.index.local()
        if folder is None or self.index.absent(folder):
            return self.index
        return replace(self.index, names=pipeline_files(folder, self.variant))

    @property
    def is_folder(self) -> bool:
        """Whether the weights lie in a local folder."""
        return self.index.is_folder

    def is_present(self) -> bool:
        """Whether loading needs no download: every file is here, or can be built here."""
        return self.is_embedded or self.published.is_present()

    def folder(self) -> Path:
        """The local folder with the weights, after building or downloading them if need be.

        Raises:
            LatentiqaError: the weights are not here and cannot be fetched, or could not be read.
        """
        if self.source == "tiny":
            return Path(__file__).parent / "tiny"
        if self.source == "tiny_random":
            from latentiqa.backbones.tiny_random import tiny_random_folder

            return tiny_random_folder()
        told = "backbone", "give its folder as backbone.source, or use backbone=tiny"
        if not (self.is_folder or self.published.is_present()):
            self.index.announce()
        index = self.index.fetch(*told)
        if not (self.is_folder or self.published.is_present()):
            self._check_packages(index)
        return self.published.fetch(*told)

    def _check_packages(self, folder: Path) -> None:
        """Before gigabytes are fetched that nothing here could read."""
        if absent := [name for name in family_of(folder).PACKAGES if not _installed(name)]:
            raise LatentiqaError(
                f"backbone {self.source} needs the packages that {' and '.join(absent)} are of: "
                "pip install 'latentiqa[t5]'; nothing was downloaded but its index."
            )

    def load(self, device: str | torch.device = "cpu") -> LatentDiffusion:
        """Load the frozen model.

        Raises:
            LatentiqaError: a file is missing or broken.
        """
        import torch

        from latentiqa.precision import warn_if_slow

        warn_if_slow(getattr(torch, self.dtype), torch.device(device).type)
        folder = self.folder()
        files = ModelFiles(str(folder), pipeline_files(folder, self.variant))
        if absent := files.absent(folder):
            raise LatentiqaError(
                f"backbone folder {folder}: {', '.join(absent)} not found; expected diffusers' "
                "pipeline format with safetensors weights. Check backbone.variant, or save the "
                "pipeline again with save_pretrained(folder, safe_serialization=True)."
            )
        try:
            model = family_of(folder).from_folder(
                folder,
                variant=self.variant,
                dtype=getattr(torch, self.dtype),
                identity=self._identity(files, folder),
            )
        except LatentiqaError:
            raise
        except Exception as error:
            raise LatentiqaError(
                f"backbone folder {folder} could not be loaded: {error}. If that names a package, "
                "install it; if a file is broken, fetch or build the folder again."
            ) from error
        if self.untrained:
            from latentiqa.backbones.reinitialised import reinitialised

            model = reinitialised(model)
        return model.to(device)

    def _identity(self, files: ModelFiles, folder: Path) -> str:
        # A hub snapshot's folder is named by its commit; other folders are known by content.
        if not self.is_embedded and not self.is_folder:
            return f"{self.source}@{folder.name}" + (f"+{self.variant}" if self.variant else "")
        return f"{self.name}@{digest([file_digest(folder / name) for name in files.here(folder)])}"


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even what it is a part of
        return False


def family_of(folder: Path) -> type[LatentDiffusion]:
    """The class that a folder in diffusers' pipeline format is loaded with.

    Raises:
        LatentiqaError: see `latentiqa.backbones.layout.read_index`.
    """
    return resolve_name(f"{__package__}.{FAMILIES[read_index(folder)[0]]}")
