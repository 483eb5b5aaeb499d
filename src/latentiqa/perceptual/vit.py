"""psi = tokens of a vision transformer: CLIP's image tower or DINOv2, through transformers.

- CLIP: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
  ICML 2021.
- DINOv2: Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, Dinov2Config, Dinov2Model

from latentiqa.errors import ConfigError, LatentiqaError, check_integer
from latentiqa.hashing import digest, file_digest
from latentiqa.hub import ModelFiles
from latentiqa.hyperfeatures.pooling import pool_all, pooled_widths
from latentiqa.perceptual.names import as_patterns, expand
from latentiqa.perceptual.preprocessing import Preprocessing
from latentiqa.perceptual.weights import load_whole, once_a_device

if TYPE_CHECKING:
    from latentiqa.backbones.ldm import LatentDiffusion

FILES = ("config.json", "preprocessor_config.json", "model.safetensors")
"""What is read of a model's folder."""


@dataclass(frozen=True)
class Family:
    """How transformers spells a kind of vision transformer.

    Args:
        name: for errors.
        config: class of its config.
        model: class of the network.
        embedding: the picture's one vector in the network's output.
        options: of a forward pass.
    """

    name: str
    config: Any
    model: Any
    embedding: str
    options: dict[str, Any] = field(default_factory=dict)

    def width(self, config: Any) -> int:
        """Length of the embedding."""
        return config.projection_dim if self.embedding == "image_embeds" else config.hidden_size


# Positions are interpolated where the size differs from training's; DINOv2 does it by itself.
CLIP = Family(
    "CLIP",
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    "image_embeds",
    {"interpolate_pos_encoding": True},
)
DINOV2 = Family("DINOv2", Dinov2Config, Dinov2Model, "pooler_output")


class VisionTransformer(nn.Module):
    """The frozen network up to the last wanted block, in float32, always in eval mode.

    Args:
        family: `CLIP` or `DINOV2`.
        folder: holds `FILES`.
        layers: names or globs of `layers_of`; blocks after the last of them are not loaded.
        size: side of the square that it sees, see `ViTFeatures`.

    Raises:
        ConfigError: the model is of another kind, or has no such layers or size.
        LatentiqaError: the files are broken.
    """

    def __init__(
        self,
        family: Family,
        folder: Path,
        layers: Sequence[str] = ("*",),
        size: int | None = None,
    ) -> None:
        super().__init__()
        self.family = family
        config = _config(family, folder)
        self.layers = _expand(family, layers, config)
        self.patch = config.patch_size
        self.preprocess = _preprocessing(family, folder, config, size)
        if "embedding" not in self.layers:
            config.num_hidden_layers = 1 + max(int(name.split(".")[1]) for name in self.layers)
        said = f"{family.name} folder {folder}"
        self.net = load_whole(family.model, folder, said, config=config)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> VisionTransformer:
        """Stay in eval mode."""
        return super().train(False)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """The wanted layers' outputs.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1], float32.

        Returns:
            ``block.<i>`` -> tokens ``(B, 1 + h w, D)``, the class token first; ``embedding`` ->
            ``(B, D')``.
        """
        x = self.preprocess(image)
        out = self.net(pixel_values=x, output_hidden_states=True, **self.family.options)
        # The first of the hidden states goes into block 0.
        return {
            name: out[self.family.embedding]
            if name == "embedding"
            else out.hidden_states[int(name.split(".")[1]) + 1]
            for name in self.layers
        }

    def maps(self, image: Tensor) -> dict[str, Tensor]:
        """The same with the patches' tokens at their places, ``(B, D, h, w)``."""
        size = tuple(side // self.patch for side in self.preprocess.crop)
        return {
            name: x if name == "embedding" else x[:, 1:].mT.unflatten(2, size)
            for name, x in self(image).items()
        }


@dataclass(frozen=True)
class ViTFeatures:
    """Tokens of a vision transformer, each of length 1.

    So the squared distance of two pictures is the sum over layers of the tokens' mean
    ``2 - 2 cos``: neither a layer nor the few tokens that transformers give great length dominate.
    The choice of layers is ours. In float32, loaded, and downloaded where need be, at the first
    call.

    Args:
        source: a folder in transformers' format, or a hub id (``owner/name``).
        revision: commit on the hub, 40 hex digits: the features' address must name the weights.
        layers: names or globs of ``block.<i>``, the tokens after a block, and ``embedding``, the
            picture's one vector; the network stops after the last of them.
        size: side in pixels, a multiple of the patch's: the picture's shorter side is brought to
            it, and the square in the middle is seen. None: what the model's
            ``preprocessor_config.json`` says.
        download_gb: size of the download where one is needed, said before it starts.

    Attributes:
        weights: hash of the folder's files, or hub id and commit.

    Raises:
        ConfigError: a value is outside its range, as far as the files are here already.
    """

    family: ClassVar[Family]

    source: InitVar[str]
    revision: InitVar[str | None] = None
    layers: Sequence[str] = ("block.*",)
    size: int | None = None
    download_gb: InitVar[float | None] = None
    weights: str = field(init=False)

    def __post_init__(self, source: str, revision: str | None, download_gb: float | None) -> None:
        object.__setattr__(self, "layers", as_patterns(self.layers))
        files = ModelFiles(source, FILES, revision, download_gb)
        object.__setattr__(self, "files", files)
        if self.size is not None:
            check_integer("size", self.size, 1)
        object.__setattr__(self, "weights", self._identity(files))
        if files.is_present():
            config = _config(self.family, self._folder())
            _expand(self.family, self.layers, config)
            _preprocessing(self.family, self._folder(), config, self.size)

    def _identity(self, files: ModelFiles) -> str:
        if files.is_folder:
            folder = Path(files.source)
            if absent := files.absent(folder):
                raise ConfigError(
                    f"{self.family.name} folder {folder}: {', '.join(absent)} not found; expected "
                    "transformers' format with safetensors weights."
                )
            return digest([file_digest(folder / name) for name in files.here(folder)])
        if not files.is_hub_id:
            raise ConfigError(
                f"{self.family.name} source={files.source!r}: no such folder, and not a hub id "
                "(owner/name)."
            )
        if not re.fullmatch("[0-9a-f]{40}", files.revision or ""):
            raise ConfigError(
                f"{self.family.name} revision={files.revision!r}: expected a commit of the hub, 40 "
                "hex digits; what a branch or tag names may change."
            )
        return f"{files.source}@{files.revision}"

    def __call__(self, image: Tensor, backbone: LatentDiffusion | None = None) -> list[Tensor]:
        """Features of the pictures.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1].
            backbone: unused; part of what every psi is called with.

        Returns:
            One tensor a layer: ``(B, T, D)``, each token of length ``1 / sqrt(T)``, or ``(B, D)``
            of length 1.

        Raises:
            LatentiqaError: the files cannot be fetched or are not what they should be.
        """
        unit = [normalize(x, dim=-1) for x in self._network(image)(image.float()).values()]
        return [x if x.ndim == 2 else x / x.shape[1] ** 0.5 for x in unit]

    def widths(self, pooling: str = "mean") -> dict[str, int]:
        """``block.<i>/<statistic>`` and ``embedding``, and their lengths.

        Raises:
            LatentiqaError: the files cannot be fetched or are not what they should be.
        """
        config = _config(self.family, self._folder())
        names = _expand(self.family, self.layers, config)
        blocks = {name: config.hidden_size for name in names if name != "embedding"}
        own = {"embedding": self.family.width(config)} if "embedding" in names else {}
        return pooled_widths(blocks, pooling) | own

    def statistics(self, image: Tensor, pooling: str = "mean") -> dict[str, Tensor]:
        """Tokens of the patches pooled over them, ``(B, D)`` float32, and the embedding.

        Raises:
            LatentiqaError: the files cannot be fetched or are not what they should be.
        """
        maps = self._network(image).maps(image.float())
        own = {name: maps.pop(name) for name in ("embedding",) if name in maps}
        return pool_all(maps, pooling) | own

    def _folder(self) -> Path:
        return self.files.folder(  # type: ignore[attr-defined]
            self.family.name, "give its folder as source"
        )

    def _network(self, image: Tensor) -> VisionTransformer:
        return _load(self, image.device)


@dataclass(frozen=True)
class CLIPFeatures(ViTFeatures):
    """Tokens of CLIP's image tower; ``embedding`` is the projected one. See `ViTFeatures`."""

    family = CLIP


@dataclass(frozen=True)
class DINOv2Features(ViTFeatures):
    """Tokens of DINOv2; ``embedding`` is the class token after the norm. See `ViTFeatures`."""

    family = DINOV2


def layers_of(config: Any) -> list[str]:
    """Names of the layers of a model: its blocks, and the embedding."""
    return [*(f"block.{i}" for i in range(config.num_hidden_layers)), "embedding"]


def _expand(family: Family, layers: Sequence[str], config: Any) -> tuple[str, ...]:
    described = f"block.0 to block.{config.num_hidden_layers - 1}, embedding"
    return expand(f"{family.name} layers", layers, layers_of(config), described)


def _config(family: Family, folder: Path) -> Any:
    """The vision part of a model's config."""
    path = folder / "config.json"
    try:
        kind = json.loads(path.read_text(encoding="utf-8")).get("model_type")
        config = family.config.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise LatentiqaError(f"{path} could not be read: {error}") from error
    if kind not in {family.config.model_type, family.config.model_type.partition("_")[0]}:
        raise ConfigError(f"{path}: model_type {kind!r}; expected {family.name}'s.")
    return config


def _preprocessing(family: Family, folder: Path, config: Any, size: int | None) -> Preprocessing:
    found = Preprocessing.from_file(folder / "preprocessor_config.json")
    if size is not None:
        if size % config.patch_size:
            raise ConfigError(
                f"{family.name} size={size}: expected a multiple of the patches' side, "
                f"{config.patch_size} pixels."
            )
        return replace(found, shorter_side=size, crop=(size, size))
    return found


@once_a_device
def _load(psi: ViTFeatures) -> VisionTransformer:
    return VisionTransformer(psi.family, psi._folder(), psi.layers, psi.size)
