from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from latentiqa.errors import ConfigError
from latentiqa.perceptual.dists import DISTSFeatures
from latentiqa.perceptual.resnet import ResNetFeatures
from latentiqa.perceptual.weights import fill


@pytest.mark.parametrize(
    ("name", "psi", "lost"),
    [
        ("dists", DISTSFeatures, "features.28.bias"),
        ("contrique", partial(ResNetFeatures, "contrique"), "encoder.5.0.bn3.running_var"),
    ],
)
def test_a_file_that_lacks_a_tensor_is_explained(name, psi, lost, weights_of, tmp_path):
    tensors = torch.load(weights_of(name), weights_only=True)
    del tensors[lost]
    torch.save(tensors, tmp_path / "broken.pth")
    with pytest.raises(ConfigError, match=rf"broken\.pth: no '{lost}' in it; it begins with"):
        psi(str(tmp_path / "broken.pth"))(torch.rand(1, 3, 64, 64))


def test_a_tensor_of_another_shape_is_explained():
    network = nn.Conv2d(3, 2, 1)
    published = {"net.weight": torch.zeros(2, 1, 1, 1), "net.bias": torch.zeros(2)}
    told = r"a\.pth: 'net.weight' has shape \(2, 1, 1, 1\); expected \(2, 3, 1, 1\)"
    with pytest.raises(ConfigError, match=told):
        fill(network, published, "net.{}".format, "a.pth")
    published["net.weight"] = torch.ones(2, 3, 1, 1)
    fill(network, published, "net.{}".format, "a.pth")
    assert (network.weight == 1).all()
