"""Torchvision's ResNet-50 and VGG-16 in plain PyTorch: the same names, order and arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 with the stride, 1 x 1, each with its norm; the input is added."""

    def __init__(self, before: int, width: int, stride: int, downsample: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if downsample:
            wider = nn.Conv2d(before, 4 * width, 1, stride, bias=False)
            self.downsample = nn.Sequential(wider, nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        y = self.bn3(self.conv3(y))
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class ResNet50(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        before = 64
        for i, blocks in enumerate((3, 4, 6, 3)):
            width, layer = 64 * 2**i, nn.Sequential()
            for block in range(blocks):
                stride = 2 if i > 0 and block == 0 else 1
                layer.append(Bottleneck(before, width, stride, downsample=block == 0))
                before = 4 * width
            setattr(self, f"layer{i + 1}", layer)
        self.avgpool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        for child in self.children():
            x = child(x)
        return x.flatten(1)


def random_resnet50(seed: int = 0) -> ResNet50:
    """With statistics of its norms that are not those of a fresh one; in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = ResNet50().eval().requires_grad_(False)
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d):
                for value in (layer.weight, layer.running_var):
                    value.uniform_(0.5, 1.5)
                for value in (layer.bias, layer.running_mean):
                    value.normal_(0, 0.1)
    return net


def random_vgg16(seed: int = 0) -> nn.Sequential:
    """``features`` of VGG-16: convolutions, activations and halvings by number."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers, before = [], 3
        for channels, convolutions in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(convolutions):
                convolution = nn.Conv2d(before, channels, 3, padding=1)
                # Keeps the size of what goes through, so that deep maps answer too.
                nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
                nn.init.uniform_(convolution.bias, -0.1, 0.1)
                layers += [convolution, nn.ReLU()]
                before = channels
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers).eval().requires_grad_(False)
