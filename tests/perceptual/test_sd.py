from __future__ import annotations

import torch

from latentiqa.perceptual import empty
from latentiqa.perceptual.sd import BackboneFeatures


def test_features_are_maps_of_the_encoded_picture_scaled_to_mean_squares(tiny, pictures):
    image, _ = pictures
    features = BackboneFeatures(layers=["down.1.resnet.*"], timestep=7)(image, tiny)
    with torch.no_grad():
        _, maps = tiny.predict_noise(
            tiny.encode(image), 7, tiny.context("", 8), ["down.1.resnet.0", "down.1.resnet.1"]
        )
    for feature, value in zip(features, maps.values(), strict=True):
        torch.testing.assert_close(feature.square().sum(1), value.square().mean(dim=(1, 2, 3)))


def test_features_are_differentiable_with_respect_to_the_picture(tiny, pictures):
    image = pictures[0][:2].clone().requires_grad_()
    sum(feature.square().sum() for feature in BackboneFeatures()(image, tiny)).backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()
    assert (image.grad.abs().sum(dim=(1, 2, 3)) > 0).all()


def test_a_blurred_picture_is_farther_away_the_more_it_is_blurred(tiny, pictures):
    image, _ = pictures
    psi = BackboneFeatures()
    with torch.no_grad():
        reference = psi(image, tiny)
        distances = []
        for size in (5, 15, 31):
            blurred = torch.nn.functional.avg_pool2d(image, size, 1, size // 2)
            pairs = zip(psi(blurred, tiny), reference, strict=True)
            distances.append(sum((a - b).square().sum().item() for a, b in pairs))
    assert 0 < distances[0] < distances[1] < distances[2]


def test_psi_empty_is_no_psi():
    assert empty() is None
