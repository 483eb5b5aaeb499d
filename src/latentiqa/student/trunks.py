"""What a student sees with: a convolutional network up to its last map, all of it trainable."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from latentiqa.errors import ConfigError, LatentiqaError
from latentiqa.hashing import digest, file_digest
from latentiqa.hub import ModelFiles
from latentiqa.perceptual.efficientnet import EfficientNetLite, expand_blocks
from latentiqa.perceptual.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from latentiqa.perceptual.weights import load_whole
from latentiqa.recipe import UNRECORDED
from latentiqa.runs import read_json

log = logging.getLogger(__name__)

PREPROCESSOR = "preprocessor_config.json"

FILES = ("config.json", PREPROCESSOR, "model.safetensors")
"""What is read of a pretrained model of transformers."""

PROBE = 64
"""Side of the picture that shows how many channels a network's maps have."""


class Maps(nn.Module, ABC):
    """A network that gives maps of pictures.

    Attributes:
        architecture: what builds it again without its pretrained weights, as JSON values.
        channels: of its maps.
    """

    architecture: dict[str, Any]
    channels: tuple[int, ...]

    @abstractmethod
    def forward(self, image: Tensor) -> list[Tensor]:
        """Maps ``(B, C, h, w)`` of pictures ``(B, 3, H, W)`` in [0, 1], the deepest one last."""

    def look(self) -> None:
        """Find the channels, and freeze the weights that no map depends on.

        Weights without a gradient would stop DDP.
        """
        parameters = [p for p in self.parameters() if p.requires_grad]
        device = parameters[0].device
        with torch.enable_grad():
            maps = self.eval()(torch.full((1, 3, PROBE, PROBE), 0.5, device=device))
            total = torch.stack([one.sum() for one in maps]).sum()
            gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        self.channels = tuple(one.shape[1] for one in maps)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.requires_grad_(gradient is not None)


class Trunk(ABC):
    """Describes a network; a frozen dataclass, so that it can be part of an address."""

    @abstractmethod
    def build(self, architecture: Mapping[str, Any] | None = None) -> Maps:
        """The network.

        Args:
            architecture: of the trained one, whose weights are going to be filled in; None for
                the weights that training begins with.
        """

    @property
    @abstractmethod
    def weights(self) -> str:
        """What names the weights that training begins with."""


class LiteMaps(Maps):
    """Maps of an EfficientNet-Lite; that of the head after its norm and activation.

    Args:
        variant: see `latentiqa.perceptual.efficientnet.EfficientNetLite`.
        maps: names of its maps.
    """

    def __init__(self, variant: str, maps: Sequence[str]) -> None:
        super().__init__()
        self.net = EfficientNetLite(variant, frozen=False)
        # Without the classifier: a third of all weights.
        self.net.net.register_module("_fc", nn.Identity())
        self.maps = tuple(maps)
        self.architecture = {"variant": variant}
        self.look()

    def forward(self, image: Tensor) -> list[Tensor]:
        """See `Maps.forward`."""
        maps = self.net(image, self.maps)
        return [self.net.activate(one) if name == "head" else one for name, one in maps.items()]


@dataclass(frozen=True)
class LiteTrunk(Trunk):
    """EfficientNet-Lite with the weights of its package.

    Args:
        variant: one of `latentiqa.perceptual.efficientnet.VARIANTS`.
        maps: names or globs of its maps; scores are made of all of them.

    Raises:
        ConfigError: the variant is not known, there are no maps or unknown ones.

    Example:
        >>> LiteTrunk(maps=("block.4", "head")).build().channels
        (40, 1280)
    """

    variant: str = "lite0"
    maps: Sequence[str] = ("block.4", "block.7", "block.10", "block.14", "block.15")

    def __post_init__(self) -> None:
        object.__setattr__(self, "maps", expand_blocks(self.maps, self.variant))

    def build(self, architecture: Mapping[str, Any] | None = None) -> LiteMaps:
        """See `Trunk.build`."""
        return LiteMaps(self.variant, self.maps)

    @property
    def weights(self) -> str:
        """The variant's name stands for them: they are those of a package."""
        return self.variant


class TransformersMaps(Maps):
    """The last map of a convolutional network of transformers.

    Args:
        net: gives a map as its ``last_hidden_state``.
        mean: subtracted from each channel of a picture in [0, 1].
        std: each channel is divided by it after that.

    Raises:
        ConfigError: the network gives no map.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: Any, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.net = net
        self.architecture = net.config.to_dict()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))
        self.look()

    def forward(self, image: Tensor) -> list[Tensor]:
        """See `Maps.forward`."""
        last = self.net(pixel_values=(image - self.mean) / self.std).last_hidden_state
        if last.ndim != 4:
            raise ConfigError(
                f"{type(self.net).__name__} gives {tuple(last.shape)}: expected a convolutional "
                "network with a map (B, C, h, w), such as EfficientNet, ConvNeXt or MobileNetV2."
            )
        return [last]


@dataclass(frozen=True)
class TransformersTrunk(Trunk):
    """A convolutional network through transformers: EfficientNet, ConvNeXt, MobileNetV2, ...

    Args:
        source: a folder in transformers' format, or a hub id (``owner/name``): training begins
            with its weights.
        config: or the config of a network that begins at random, with its ``model_type``.
        revision: branch, tag or commit on the hub.
        download_gb: size of the download where one is needed, said before it starts.

    Raises:
        ConfigError: there is not one of source and config, or the model type is not known.

    Example:
        >>> small = {"model_type": "convnext", "hidden_sizes": [8, 8, 16, 16], "depths": [1] * 4}
        >>> TransformersTrunk(config=small).build().channels
        (16,)
    """

    source: str | None = None
    config: Mapping[str, Any] | None = None
    revision: str | None = None
    download_gb: float | None = field(default=None, metadata=UNRECORDED)

    def __post_init__(self) -> None:
        from transformers import CONFIG_MAPPING

        if (self.source is None) == (self.config is None):
            raise ConfigError(
                "student.trunk: expected either source, a folder or hub id, or config, for random "
                "weights."
            )
        if self.config is not None and self.config.get("model_type") not in CONFIG_MAPPING:
            raise ConfigError(
                f"student.trunk.config.model_type={self.config.get('model_type')!r}: expected one "
                "that transformers knows, such as efficientnet, convnext or mobilenet_v2."
            )

    @property
    def files(self) -> ModelFiles:
        """Those of the source."""
        return ModelFiles(str(self.source), FILES, self.revision, self.download_gb)

    @property
    def weights(self) -> str:
        """Hash of a folder's files, the hub's name and revision, or hash of the config."""
        if self.source is None:
            return digest(dict(self.config or {}))
        if not self.files.is_folder:
            return f"{self.source}@{self.revision}"
        folder = Path(self.source)
        return digest([file_digest(folder / name) for name in self.files.here(folder)])

    def build(self, architecture: Mapping[str, Any] | None = None) -> TransformersMaps:
        """See `Trunk.build`.

        Raises:
            LatentiqaError: the source is not here, cannot be fetched, or is broken.
        """
        from transformers import CONFIG_MAPPING, AutoModel

        described = self.config if architecture is None else architecture
        if described is None:
            return self._pretrained()
        config = CONFIG_MAPPING[described["model_type"]].from_dict(dict(described))
        return TransformersMaps(AutoModel.from_config(config).float(), IMAGENET_MEAN, IMAGENET_STD)

    def _pretrained(self) -> TransformersMaps:
        from transformers import AutoModel

        folder = self.files.folder("student", "give its folder as student.trunk.source")
        net = load_whole(AutoModel, folder, f"student.trunk.source={self.source}:")
        said = read_json(folder / PREPROCESSOR)
        mean, std = (said.get("image_mean"), said.get("image_std"))
        if mean is None or std is None:
            raise LatentiqaError(f"{folder / PREPROCESSOR}: expected image_mean and image_std.")
        if said.get("rescale_offset") or not said.get("do_normalize", True):
            raise LatentiqaError(
                f"{folder / PREPROCESSOR}: rescale_offset=true or do_normalize=false; expected "
                "pictures in [0, 1] that are normalised by image_mean and image_std."
            )
        # transformers' processor of EfficientNet divides by the deviation a second time, by
        # default: what its weights on the hub were converted with.
        is_efficientnet = str(said.get("image_processor_type")).startswith("EfficientNet")
        if said.get("include_top", is_efficientnet):
            std = [value * value for value in std]
        return TransformersMaps(net, mean, std)
