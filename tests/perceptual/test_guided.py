"""LGDM with PMG, guided by each psi that is not the backbone's own."""

from __future__ import annotations

import pytest
import torch

from latentiqa.backbones.addresses import Layers
from latentiqa.guidance import PMG
from latentiqa.methods.lgdm import LGDM
from latentiqa.perceptual import PooledPsi
from latentiqa.perceptual.dists import DISTSFeatures
from latentiqa.perceptual.efficientnet import EfficientNetFeatures
from latentiqa.perceptual.lpips import LPIPSFeatures
from latentiqa.perceptual.nss import NSS
from latentiqa.perceptual.resnet import ENCODERS, ResNetFeatures
from latentiqa.perceptual.vit import CLIPFeatures, DINOv2Features
from latentiqa.trajectory import Timesteps

MAKERS = {"dists": DISTSFeatures, "clip": CLIPFeatures, "dinov2": DINOv2Features}
OWN = {"nss": NSS, "lpips": LPIPSFeatures, "efficientnet": EfficientNetFeatures}
"""Those that need no file."""


@pytest.fixture(params=[*MAKERS, *ENCODERS, *OWN])
def psi(request, weights_of):
    if request.param in OWN:
        return OWN[request.param]()
    path = str(weights_of(request.param))
    if request.param in MAKERS:
        return MAKERS[request.param](path)
    return ResNetFeatures(request.param, path)


def test_pmg_is_guided_by_it(psi, tiny, pictures):
    assert isinstance(psi, PooledPsi)
    image, names = pictures[0][:1], pictures[1][:1]
    layers = Layers(["down.0.resnet.0"])
    guided, unguided = (
        LGDM(tiny, Timesteps([60, 20]), layers, guidance).hyperfeatures(image, names=names)
        for guidance in (PMG(psi=psi), PMG())
    )
    for name, value in guided.items():
        assert value.isfinite().all()
        # The first step is guided after its maps are read.
        if name.startswith("20/"):
            assert not torch.equal(value, unguided[name])
