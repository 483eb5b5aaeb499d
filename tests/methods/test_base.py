from __future__ import annotations

import pytest
import torch

from latentiqa.errors import ConfigError, LatentiqaError
from latentiqa.methods.base import FeatureExtractor


class Channels(FeatureExtractor):
    """The mean of each colour."""

    widths = {"colours": 3, "grey": 1}  # noqa: RUF012

    def recipe(self):
        return {"method": "channels"}

    def compute(self, image, names):
        colours = image.mean(dim=(2, 3))
        return {"colours": colours, "grey": colours.mean(1, keepdim=True)}


def test_a_batch_gives_its_features_without_a_graph(pictures):
    image, names = pictures
    image = image.clone().requires_grad_()
    features = Channels("channels").predict_step(
        {"image": [image[:3], image[3:]], "name": names}, 0
    )
    torch.testing.assert_close(features["colours"], image.detach().mean(dim=(2, 3)))
    assert not features["grey"].requires_grad
    assert Channels("channels").hyperfeatures(image, names)["grey"].requires_grad


def test_values_that_are_not_finite_name_extractor_and_pictures(pictures):
    image, names = pictures
    image = image.clone()
    image[2, 0, 5, 5] = float("nan")
    image[5, 1, 0, 0] = float("inf")
    with pytest.raises(LatentiqaError, match=r"channels: .*\(2\)\.png, photo \(5\)\.png are not"):
        Channels("channels").hyperfeatures(image, names)


def test_misuse_is_explained(pictures):
    image, names = pictures
    with pytest.raises(ConfigError, match="8 images but 7 names"):
        Channels("channels").hyperfeatures(image, names[:7])
    with pytest.raises(ConfigError, match="pooling='max'"):
        Channels("channels", "max")
