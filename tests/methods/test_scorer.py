from __future__ import annotations

import pytest
import torch

from latentiqa.backbones.addresses import Layers
from latentiqa.errors import ConfigError, DataError
from latentiqa.heads import RidgeHead
from latentiqa.methods.lgdm import LGDM
from latentiqa.methods.psi import PsiFeatures
from latentiqa.methods.scorer import Scorer
from latentiqa.perceptual.nss import NSS
from latentiqa.trajectory import Timesteps


@pytest.fixture
def extractors(tiny):
    return [LGDM(tiny, Timesteps([60, 20]), Layers(["mid.*"])), PsiFeatures("nss", NSS())]


@pytest.fixture
def fitted():
    """A head on 40 features."""
    head, x, y = RidgeHead(), torch.rand(8, 40), torch.linspace(0, 1, 8)
    head.fit(x, y, x, y)
    return head


def joined(extractors, image, names):
    features = [extractor.hyperfeatures(image, names) for extractor in extractors]
    return torch.cat([value for each in features for value in each.values()], dim=1)


def test_scores_are_the_heads_of_the_joined_features(extractors, pictures):
    image, names = pictures
    x, y = joined(extractors, image, names), torch.linspace(0, 1, 8)
    assert x.shape == (8, sum(sum(e.widths.values()) for e in extractors)) == (8, 6 * 128 + 40)
    head = RidgeHead()
    head.fit(x, y, x, y)
    scores = Scorer(extractors, head)(image, names)
    torch.testing.assert_close(scores, head.predict(x))
    assert scores.shape == (8,)
    assert len(set(scores.tolist())) == 8
    with pytest.raises(DataError, match=r"expected \(N, 808\)"):
        Scorer(extractors[:1], head)(image, names)


def test_extractors_and_head_move_together(fitted):
    extractor = PsiFeatures("nss", NSS())
    extractor.register_buffer("weights", torch.ones(2))
    scorer = Scorer([extractor], fitted).to("meta")
    tensors = scorer.state_dict()
    assert "extractors.0.weights" in tensors
    assert any(name.startswith("head.") for name in tensors)
    assert {tensor.device.type for tensor in tensors.values()} == {"meta"}


def test_misuse_is_explained(extractors, pictures):
    with pytest.raises(DataError, match="RidgeHead is not fitted"):
        Scorer(extractors, RidgeHead())(*pictures)
    with pytest.raises(ConfigError, match="expected one or more"):
        Scorer([], RidgeHead())
