"""Where a backbone's weights come from, checked before anything is loaded or downloaded."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latentiqa.errors import ConfigError, LatentiqaError
from latentiqa.hashing import digest, file_digest

if TYPE_CHECKING:
    import torch

    from latentiqa.backbones.ldm import LatentDiffusion

log = logging.getLogger(__name__)

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
        if not self.is_embedded and not self.is_folder and self.source.count("/") != 1:
            raise ConfigError(
                f"backbone.source={self.source!r}: no such folder, and not a hub id "
                "(owner/name); give 'tiny', a folder in diffusers' pipeline format or a hub id."
            )

    @property
    def is_embedded(self) -> bool:
        """Whether the weights need no folder and no download."""
        return self.source in EMBEDDED

    @property
    def is_folder(self) -> bool:
        """Whether the weights lie in a local folder."""
        return Path(self.source).is_dir()

    def files(self) -> list[str]:
        """The files that loading needs, relative to the pipeline's folder."""
        suffix = f".{self.variant}.safetensors" if self.variant else ".safetensors"
        return [
            "scheduler/scheduler_config.json",
            "text_encoder/config.json",
            f"text_encoder/model{suffix}",
            "tokenizer/merges.txt",
            "tokenizer/tokenizer_config.json",
            "tokenizer/vocab.json",
            "unet/config.json",
            f"unet/diffusion_pytorch_model{suffix}",
            "vae/config.json",
            f"vae/diffusion_pytorch_model{suffix}",
        ]

    def is_present(self) -> bool:
        """Whether loading needs no download: every file is here, or can be built here."""
        if self.is_embedded:
            return True
        if self.is_folder:
            return all((Path(self.source) / file).is_file() for file in self.files())
        from huggingface_hub import try_to_load_from_cache

        return all(
            isinstance(try_to_load_from_cache(self.source, file, revision=self.revision), str)
            for file in self.files()
        )

    def folder(self) -> Path:
        """The local folder with the weights, after building or downloading them if need be.

        Raises:
            LatentiqaError: the weights are not here and cannot be fetched.
        """
        if self.source == "tiny":
            return Path(__file__).parent / "tiny"
        if self.source == "tiny_random":
            from latentiqa.backbones.tiny_random import tiny_random_folder

            return tiny_random_folder()
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
                    allow_patterns=self.files(),
                    local_files_only=present,
                )
            )
        except Exception as error:
            raise LatentiqaError(
                f"backbone {self.source} (revision {self.revision or 'main'}) is not in the hub's "
                f"cache and could not be downloaded: {error}. Fetch it where there is a network "
                "and give its folder as backbone.source, or use backbone=tiny."
            ) from error

    def load(self, device: str | torch.device = "cpu") -> LatentDiffusion:
        """Load the frozen model.

        Raises:
            LatentiqaError: a file is missing or broken.
        """
        import torch

        from latentiqa.backbones.ldm import LatentDiffusion

        folder = self.folder()
        absent = [file for file in self.files() if not (folder / file).is_file()]
        if absent:
            raise LatentiqaError(
                f"backbone folder {folder}: {', '.join(absent)} not found; expected diffusers' "
                "pipeline format with safetensors weights. Check backbone.variant, or save the "
                "pipeline again with save_pretrained(folder, safe_serialization=True)."
            )
        try:
            model = LatentDiffusion.from_folder(
                folder,
                variant=self.variant,
                dtype=getattr(torch, self.dtype),
                identity=self._identity(folder),
            )
        except ConfigError:
            raise
        except Exception as error:
            raise LatentiqaError(
                f"backbone folder {folder} could not be loaded: {error}. Delete it and fetch or "
                "build it again."
            ) from error
        return model.to(device)

    def _identity(self, folder: Path) -> str:
        # A hub snapshot's folder is named by its commit; other folders are known by content.
        if not self.is_embedded and not self.is_folder:
            return f"{self.source}@{folder.name}" + (f"+{self.variant}" if self.variant else "")
        return f"{self.name}@{digest([file_digest(folder / file) for file in self.files()])}"
