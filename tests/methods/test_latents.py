from __future__ import annotations

import pytest
import torch

from latentiqa.errors import ConfigError
from latentiqa.methods.latents import LatentFeatures


def test_features_are_the_moments_of_the_scaled_latents(tiny, pictures):
    image, names = pictures[0][:2], pictures[1][:2]
    ran = []
    hook = tiny.unet.register_forward_pre_hook(lambda *_: ran.append(1))
    with torch.no_grad():
        features = LatentFeatures(tiny, "mean_std").hyperfeatures(image, names)
        latents = tiny.vae.encode(2 * image - 1).latent_dist.mode()
    hook.remove()
    flat = (tiny.vae.config.scaling_factor * latents).flatten(2)
    torch.testing.assert_close(features["latents/mean"], flat.mean(2))
    torch.testing.assert_close(features["latents/std"], flat.std(2, correction=0))
    assert list(features) == ["latents/mean", "latents/std"]
    assert not ran


def test_the_address_holds_the_backbone_and_its_precision(tiny):
    recipe = LatentFeatures(tiny).recipe()
    assert recipe == {"method": "latents", "backbone": tiny.identity, "dtype": "float32"}
    assert LatentFeatures(tiny, "mean_std").recipe() == recipe


def test_an_unknown_pooling_is_refused(tiny):
    with pytest.raises(ConfigError, match="pooling='max'"):
        LatentFeatures(tiny, "max")
