"""Where a backbone's weights come from, checked before anything is loaded or downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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
        if not (self.is_embedded or self.is_folder or self.published.is_hub_id):
            raise ConfigError(
                f"backbone.source={self.source!r}: no such folder, and not a hub id "
                "(owner/name); give 'tiny', a folder in diffusers' pipeline format or a hub id."
            )

    @property
    def is_embedded(self) -> bool:
        """Whether the weights need no folder and no download."""
        return self.source in EMBEDDED

    @property
    def published(self) -> ModelFiles:
        """The files where they come from; not for embedded ones."""
        return ModelFiles(self.source, tuple(self.files()), self.revision, self.download_gb)

    @property
    def is_folder(self) -> bool:
        """Whether the weights lie in a local folder."""
        return self.published.is_folder

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
        return self.is_embedded or self.published.is_present()

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
        return self.published.folder(
            "backbone", "give its folder as backbone.source, or use backbone=tiny"
        )

    def load(self, device: str | torch.device = "cpu") -> LatentDiffusion:
        """Load the frozen model.

        Raises:
            LatentiqaError: a file is missing or broken.
        """
        import torch

        from latentiqa.backbones.ldm import LatentDiffusion

        folder = self.folder()
        if absent := self.published.absent(folder):
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
        if self.untrained:
            from latentiqa.backbones.reinitialised import reinitialised

            model = reinitialised(model)
        return model.to(device)

    def _identity(self, folder: Path) -> str:
        # A hub snapshot's folder is named by its commit; other folders are known by content.
        if not self.is_embedded and not self.is_folder:
            return f"{self.source}@{folder.name}" + (f"+{self.variant}" if self.variant else "")
        return f"{self.name}@{digest([file_digest(folder / file) for file in self.files()])}"
