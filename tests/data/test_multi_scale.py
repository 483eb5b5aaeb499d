"""Views at several scales against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from latentiqa.data.multi_scale import MultiScale
from latentiqa.errors import ConfigError
from latentiqa.recipe import recipe_of


def picture(height: int, width: int) -> torch.Tensor:
    """Noise that is away from black and white, so that no overshoot is clipped."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, height, width, generator=generator) * 0.5 + 0.25


def pillow_bicubic(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """An independent antialiased bicubic, float32."""
    scaled = [
        Image.fromarray(channel.numpy()).resize((width, height), Image.Resampling.BICUBIC)
        for channel in image
    ]
    return torch.from_numpy(np.stack([np.asarray(channel) for channel in scaled]))


def by_hand(image: torch.Tensor, sizes: list[tuple[int, int]], crops: int) -> torch.Tensor:
    """Views with a side of 16 from a grid of 4, of a picture that has been scaled to each size."""
    views = [pillow_bicubic(image, 16, 16)]
    for height, width in sizes:
        unchanged = (height, width) == tuple(image.shape[1:])
        scaled = image if unchanged else pillow_bicubic(image, height, width)
        windows = scaled.unfold(1, 16, 4).unfold(2, 16, 4)  # (3, rows, columns, 16, 16)
        patches = windows.permute(1, 2, 0, 3, 4).flatten(0, 1)
        step = len(patches) / crops
        views += [patches[int(step * i)] for i in range(crops)]
    return torch.stack(views)


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((40, 60), [(40, 60), (30, 45)]),
        ((61, 41), [(61, 41), (46, 31)]),  # 45.75 x 30.75
        ((18, 40), [(18, 40), (16, 36)]),  # 13.5: scaled to a crop's side
        ((10, 25), [(16, 40), (16, 40)]),  # enlarged to it
        ((16, 16), [(16, 16), (16, 16)]),  # one place, seven times
    ],
)
def test_views_are_the_whole_and_crops_of_the_grid_at_each_scale(shape, sizes):
    image, views = picture(*shape), MultiScale(16, stride=4)
    found = views(image, "a.png")
    assert len(found) == views.number == 15
    torch.testing.assert_close(found, by_hand(image, sizes, 7), rtol=0, atol=1e-5)
    assert torch.equal(views(image, "b.png"), found)


def test_places_are_spread_over_the_grid():
    views = MultiScale(16, crops=4, stride=8)
    assert views.places(8, 31) == [(0, 0), (0, 16), (8, 0), (8, 16)]  # every other one of 2 x 4
    assert views.places(0, 0) == [(0, 0)] * 4
    assert views.places(0, 8) == [(0, 0), (0, 0), (0, 8), (0, 8)]


def test_scales_and_numbers_are_free():
    views = MultiScale(16, crops=3, scales=[2, 1, 0.5], stride=4)
    assert views.number == 10
    assert views(picture(40, 50)).shape == (10, 3, 16, 16)
    assert recipe_of(views)["scales"] == [2.0, 1.0, 0.5]
    assert recipe_of(MultiScale(16, scales=(1, 0.75))) == recipe_of(MultiScale(16))
    assert views.names("a.png") == [f"a.png#{k}" for k in range(10)]


def test_a_gradient_reaches_every_pixel_through_the_whole_view():
    image = picture(40, 50).requires_grad_()
    MultiScale(16)(image).sum().backward()
    assert image.grad is not None
    assert (image.grad != 0).all()


def test_views_stay_in_range_where_bicubic_overshoots():
    checks = (torch.arange(64)[:, None] // 8 + torch.arange(64) // 8) % 2
    found = MultiScale(24)(checks.float().expand(3, 64, 64))
    assert (found.min(), found.max()) == (0, 1)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"size": 0}, "views.size=0"),
        ({"crops": 0}, "views.crops=0"),
        ({"stride": 0}, "views.stride=0"),
        ({"scales": []}, r"views.scales=\[\]: expected one or more numbers > 0"),
        ({"scales": [1.0, 0.0]}, r"views.scales=\[1.0, 0.0\]"),
        ({"scales": 0.75}, "views.scales=0.75: expected a list"),
    ],
)
def test_arguments_are_checked(options, told):
    with pytest.raises(ConfigError, match=told):
        MultiScale(**{"size": 16} | options)
