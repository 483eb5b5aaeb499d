"""psi = a ResNet-50 trained on picture quality without scores, at full and half size.

- ARNIQA: Agnolucci, Galteri, Bertini, Del Bimbo, "ARNIQA: Learning Distortion Manifold for Image
  Quality Assessment", WACV 2024.
- CONTRIQUE: Madhusudana, Birkbeck, Wang, Adsumilli, Bovik, "Image Quality Assessment Using
  Contrastive Learning", IEEE TIP 2022.
- Re-IQA: Saha, Mishra, Bovik, "Re-IQA: Unsupervised Learning for Image Quality Assessment in the
  Wild", CVPR 2023: one encoder for quality, one for content.

The network is transformers' ResNet; the authors' checkpoints name its weights as torchvision does.
They are not redistributed here: their files are the user's.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import ResNetConfig, ResNetModel

from latentiqa.errors import ConfigError
from latentiqa.hyperfeatures.pooling import statistics_of
from latentiqa.perceptual.preprocessing import half, normalise
from latentiqa.perceptual.weights import KnownByContent, fill, once_a_device, read_weights

if TYPE_CHECKING:
    from latentiqa.backbones.ldm import LatentDiffusion

WIDTH = 2048
"""Length of the vector of one scale."""

SMALLEST = 64
"""Least side of a picture in pixels: the one of half the size is halved five times more."""

CHILDREN = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
"""A ResNet's parts in their order: checkpoints of an ``nn.Sequential`` of them have numbers."""


@dataclass(frozen=True)
class Published:
    """How a group of authors publishes and uses its encoder.

    Args:
        where: to get the file.
        prefix: of the encoder's tensors in it.
        numbered: its parts have numbers, see `CHILDREN`.
        inside: the key of the checkpoint that holds the tensors.
        standardised: pixels are standardised by ImageNet's mean and deviation; else they stay in
            [0, 1].
        unit: features have length 1.
    """

    where: str
    prefix: str
    numbered: bool = False
    inside: str | None = None
    standardised: bool = True
    unit: bool = True


ENCODERS = {
    "arniqa": Published(
        "ARNIQA.pth of https://github.com/miccunifi/ARNIQA/releases/tag/weights.",
        prefix="model.",
        numbered=True,
    ),
    "contrique": Published(
        "CONTRIQUE_checkpoint25.tar, linked in https://github.com/pavancm/CONTRIQUE.",
        prefix="encoder.",
        numbered=True,
        standardised=False,
    ),
    "reiqa_quality": Published(
        "quality_aware_r50.pth, linked in https://github.com/avinabsaha/ReIQA.",
        prefix="module.encoder.",
        inside="model",
        standardised=False,
        unit=False,
    ),
    "reiqa_content": Published(
        "content_aware_r50.pth, linked in https://github.com/avinabsaha/ReIQA.",
        prefix="module.encoder.",
        inside="model",
        unit=False,
    ),
}


def torchvision_name(name: str) -> str:
    """What torchvision calls a tensor of transformers' ResNet with bottlenecks.

    Example:
        >>> torchvision_name("encoder.stages.1.layers.0.layer.2.normalization.running_var")
        'layer2.0.bn3.running_var'
        >>> torchvision_name("encoder.stages.0.layers.0.shortcut.convolution.weight")
        'layer1.0.downsample.0.weight'
        >>> torchvision_name("embedder.embedder.convolution.weight")
        'conv1.weight'
    """
    *way, module, tensor = name.split(".")
    is_norm = module == "normalization"
    if way[0] == "embedder":
        return f"{'bn1' if is_norm else 'conv1'}.{tensor}"
    stage, block, part = int(way[2]), way[4], way[5]
    if part == "shortcut":
        own = f"downsample.{int(is_norm)}"
    else:
        own = f"{'bn' if is_norm else 'conv'}{int(way[6]) + 1}"
    return f"layer{stage + 1}.{block}.{own}.{tensor}"


class ResNet50(nn.Module):
    """The frozen encoder, always in eval mode: pictures at one scale -> vectors.

    Args:
        encoder: one of `ENCODERS`.
        path: the authors' file; None leaves random weights.

    Raises:
        ConfigError: the encoder is not known, or the file is not what it should be.

    Example:
        >>> import torch
        >>> ResNet50("arniqa")(torch.rand(2, 3, 64, 64)).norm(dim=1).round(decimals=4)
        tensor([1., 1.])
    """

    def __init__(self, encoder: str, path: str | None = None) -> None:
        super().__init__()
        self.published = _known(encoder)
        # The stride is in the 3 x 3 convolution (v1.5), as torchvision has it.
        self.net = ResNetModel(ResNetConfig(layer_type="bottleneck"))
        if path is not None:
            tensors = read_weights(path, self.published.inside)
            fill(self.net, tensors, self._published_name, path)
        self.requires_grad_(False)
        self.eval()

    def _published_name(self, name: str) -> str:
        first, dot, rest = torchvision_name(name).partition(".")
        if self.published.numbered:
            first = str(CHILDREN.index(first))
        return f"{self.published.prefix}{first}{dot}{rest}"

    def train(self, mode: bool = True) -> ResNet50:
        """Stay in eval mode: statistics of batch norm are part of the frozen weights."""
        return super().train(False)

    def forward(self, image: Tensor) -> Tensor:
        """Features of pictures, averaged over all of each.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1], in the dtype of the weights.

        Returns:
            ``(B, 2048)``, of length 1 where the authors' are.
        """
        x = normalise(image) if self.published.standardised else image
        x = self.net(x).pooler_output.flatten(1)
        return normalize(x, dim=1) if self.published.unit else x


@dataclass(frozen=True)
class ResNetFeatures(KnownByContent):
    """Vectors of an encoder of picture quality, of the picture and of one of half its size.

    The whole picture is seen, as by CONTRIQUE and Re-IQA; ARNIQA's authors average scores over
    five crops. In float32, loaded at the first call.

    Args:
        encoder: one of `ENCODERS`.
        weights: its authors' file; also safetensors with the same names.

    Attributes:
        content: hash of the file; where it lies does not matter.

    Raises:
        ConfigError: the encoder is not known, or there is no such file.
    """

    encoder: str
    weights: InitVar[str]
    content: str = field(init=False)

    def __post_init__(self, weights: str) -> None:
        self._take(weights, _known(self.encoder).where)

    def __call__(self, image: Tensor, backbone: LatentDiffusion | None = None) -> list[Tensor]:
        """Features of the pictures.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1].
            backbone: unused; part of what every psi is called with.

        Returns:
            ``(B, 2048)`` of each scale: of length 1, or divided by the square root of its size, so
            that the squared distance is a mean square and does not depend on the length.

        Raises:
            ConfigError: a side is smaller than `SMALLEST`, or the file is not what it should be.
        """
        unit = ENCODERS[self.encoder].unit
        return [x if unit else x / WIDTH**0.5 for x in self.statistics(image).values()]

    def widths(self, pooling: str = "mean") -> dict[str, int]:
        """``scale0`` (full size) and ``scale1`` (half) -> 2048, whatever the pooling.

        Raises:
            ConfigError: the pooling is not known.
        """
        statistics_of(pooling)
        return {"scale0": WIDTH, "scale1": WIDTH}

    def statistics(self, image: Tensor, pooling: str = "mean") -> dict[str, Tensor]:
        """The authors' own features by scale, ``(B, 2048)`` float32 each, named by `widths`.

        Raises:
            ConfigError: a side is smaller than `SMALLEST`, or the file is not what it should be.
        """
        height, width = image.shape[-2:]
        if min(height, width) < SMALLEST:
            raise ConfigError(
                f"encoder={self.encoder} on a picture of {height} x {width}: expected sides of "
                f"{SMALLEST} pixels or more; use larger pictures."
            )
        network = _load(self, image.device)
        image = image.float()
        scales = zip(self.widths(pooling), (image, half(image)), strict=True)
        return {name: network(scaled) for name, scaled in scales}


def _known(encoder: str) -> Published:
    if encoder not in ENCODERS:
        raise ConfigError(f"encoder={encoder!r}: expected one of {', '.join(ENCODERS)}.")
    return ENCODERS[encoder]


@once_a_device
def _load(psi: ResNetFeatures) -> ResNet50:
    return ResNet50(psi.encoder, psi.path)
