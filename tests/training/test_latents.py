"""A training encodes a picture once; what it keeps is what it would have computed."""

from __future__ import annotations

import pytest
import torch

from latentiqa.training.latents import KeptLatents


class Encoder:
    """Doubles pictures, and notes whose."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, image, names):
        self.asked += names
        return 2 * image


@pytest.fixture
def pictures():
    return torch.arange(4.0)[:, None, None, None].expand(4, 3, 2, 2), ["a", "b", "c", "d"]


def test_only_new_pictures_are_encoded(pictures):
    image, names = pictures
    encoder, kept = Encoder(), KeptLatents()
    assert torch.equal(kept(image[:2], names[:2], encoder), 2 * image[:2])
    order = [3, 1, 2, 0]
    got = kept(image[order], [names[i] for i in order], encoder)
    assert torch.equal(got, 2 * image[order])
    assert encoder.asked == ["a", "b", "d", "c"]


def test_what_has_no_room_is_encoded_each_time(pictures):
    image, names = pictures
    encoder, kept = Encoder(), KeptLatents(most_bytes=2 * 3 * 2 * 2 * 4)
    for _ in range(2):
        assert torch.equal(kept(image, names, encoder), 2 * image)
    assert encoder.asked == [*"abcd", *"cd"]


def test_no_graph_is_kept(pictures):
    image, names = pictures
    image = image.clone().requires_grad_()
    assert not KeptLatents()(image, names, Encoder()).requires_grad
