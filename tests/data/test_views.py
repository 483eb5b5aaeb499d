"""Views against brute force: Pillow's scaling, crops by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from latentiqa.data.views import (
    Centre,
    GridCrops,
    RandomCrops,
    ShortSide,
    Square,
    Views,
    Whole,
    alike,
)
from latentiqa.errors import ConfigError


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Noise that is away from black and white, so that no overshoot is clipped."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(3, height, width, generator=generator) * 0.5 + 0.25


def pillow_bicubic(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """An independent antialiased bicubic, float32."""
    scaled = [
        Image.fromarray(channel.numpy()).resize((width, height), Image.Resampling.BICUBIC)
        for channel in image
    ]
    return torch.from_numpy(np.stack([np.asarray(channel) for channel in scaled]))


def same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (20, 25)])
def test_square_stretches(shape):
    image = picture(*shape)
    same(Square(32)(image), pillow_bicubic(image, 32, 32)[None])


@pytest.mark.parametrize(("shape", "scaled"), [((40, 60), (32, 48)), ((61, 40), (49, 32))])
def test_centre_keeps_the_aspect_and_crops(shape, scaled):
    image = picture(*shape)
    top, left = (scaled[0] - 32) // 2, (scaled[1] - 32) // 2
    expected = pillow_bicubic(image, *scaled)[:, top : top + 32, left : left + 32]
    same(Centre(32)(image), expected[None])


@pytest.mark.parametrize(
    ("shape", "scaled"),
    [
        ((40, 60), (32, 48)),
        ((60, 41), (48, 32)),  # 46.8: the nearest multiple of 16
        ((40, 40), (32, 32)),
        ((30, 100), (32, 112)),  # 106.7
        ((10, 12), (32, 32)),  # 38.4, enlarged
    ],
)
def test_short_side_keeps_the_whole_picture(shape, scaled):
    image = picture(*shape)
    same(ShortSide(32, multiple=16)(image), pillow_bicubic(image, *scaled)[None])


@pytest.mark.parametrize(
    ("shape", "part"),
    [
        ((32, 48), (slice(0, 32), slice(0, 48))),
        ((35, 63), (slice(1, 33), slice(7, 55))),
    ],
)
def test_whole_leaves_pixels_as_they_are(shape, part):
    image = picture(*shape)
    assert torch.equal(Whole(multiple=16)(image), image[:, part[0], part[1]][None])


def test_whole_scales_only_what_is_smaller_than_a_multiple():
    image = picture(10, 50)
    same(Whole(multiple=16)(image), pillow_bicubic(image, 16, 80)[None])


@pytest.mark.parametrize(
    "view",
    [Square(100), Centre(100), ShortSide(100, multiple=10), RandomCrops(100, 3), GridCrops(100, 4)],
)
def test_views_stay_in_range_where_bicubic_overshoots(view):
    checks = (torch.arange(64)[:, None] // 8 + torch.arange(64) // 8) % 2
    found = view(checks.float().expand(3, 64, 64), "a.png")
    assert found.shape == (view.number, 3, 100, 100)
    assert (found.min(), found.max()) == (0, 1)


def test_the_right_size_is_left_alone():
    image = picture(64, 64)
    views = [Square(64), Centre(64), ShortSide(64), Whole(), RandomCrops(64, 2), GridCrops(64, 2)]
    for view in views:
        for found in view(image, "a.png"):
            assert torch.equal(found, image)


def test_a_picture_that_leaves_the_range_is_clipped_in_a_copy():
    beyond = 3 * picture(64, 64) - 1
    assert torch.equal(Square(64)(beyond)[0], beyond.clamp(0, 1))
    assert beyond.min() < 0


def corners(crops: torch.Tensor, image: torch.Tensor) -> list[tuple[int, int]]:
    """Where crops of a picture were taken, by looking for them."""
    size = crops.shape[-1]
    windows = image.unfold(1, size, 1).unfold(2, size, 1)  # (3, Y, X, size, size)
    found = []
    for crop in crops:
        hits = (windows == crop[:, None, None]).all(dim=4).all(dim=3).all(dim=0).nonzero()
        assert len(hits) == 1
        found.append((int(hits[0, 0]), int(hits[0, 1])))
    return found


def test_random_crops_depend_on_seed_name_and_number_alone():
    image, view = picture(40, 70), RandomCrops(16, crops=4)
    crops = view(image, "a.png")
    assert torch.equal(view(image, "a.png"), crops)
    places = corners(crops, image)
    assert places == view.places(24, 54, "a.png")
    assert len(set(places)) == 4
    # More of them begin with the same ones; another name or seed has others.
    assert RandomCrops(16, crops=9).places(24, 54, "a.png")[:4] == places
    assert view.places(24, 54, "b.png") != places
    assert RandomCrops(16, crops=4, seed=1).places(24, 54, "a.png") != places
    torch.rand(3)  # the global random state has nothing to do with it
    assert view.places(24, 54, "a.png") == places


def test_random_crops_reach_every_place_alike():
    drawn = Counter(
        place for i in range(300) for place in RandomCrops(16, 4).places(2, 1, f"{i}.png")
    )
    assert set(drawn) == {(y, x) for y in range(3) for x in range(2)}
    assert all(150 <= count <= 250 for count in drawn.values())  # 200 expected


@pytest.mark.parametrize(
    ("shape", "crops", "expected"),
    [
        ((40, 40), 4, [(0, 0), (0, 24), (24, 0), (24, 24)]),
        ((40, 64), 6, [(0, 0), (0, 24), (0, 48), (24, 0), (24, 24), (24, 48)]),
        ((64, 40), 6, [(0, 0), (0, 24), (24, 0), (24, 24), (48, 0), (48, 24)]),
        ((16, 76), 4, [(0, 0), (0, 20), (0, 40), (0, 60)]),
        ((26, 76), 3, [(5, 0), (5, 30), (5, 60)]),
        ((40, 64), 1, [(12, 24)]),
    ],
)
def test_grids_are_evenly_spaced_from_edge_to_edge(shape, crops, expected):
    image = picture(*shape)
    assert corners(GridCrops(16, crops)(image), image) == expected


@pytest.mark.parametrize("kind", [RandomCrops, GridCrops])
def test_small_pictures_are_enlarged_to_a_crop(kind):
    image = picture(10, 25)
    scaled = pillow_bicubic(image, 16, 40)
    view = kind(16, crops=2)
    for crop, (y, x) in zip(view(image, "a"), view.places(0, 24, "a"), strict=True):
        same(crop, scaled[:, y : y + 16, x : x + 16])


@pytest.mark.parametrize("kind", [RandomCrops, GridCrops])
def test_pictures_may_be_scaled_before_they_are_cropped(kind):
    image = picture(60, 90)
    scaled = pillow_bicubic(image, 20, 30)
    view = kind(16, crops=4, short_side=20)
    for crop, (y, x) in zip(view(image, "a"), view.places(4, 14, "a"), strict=True):
        same(crop, scaled[:, y : y + 16, x : x + 16])


@pytest.mark.parametrize(
    "view",
    [Square(16), Centre(16), ShortSide(16, 16), Whole(16), RandomCrops(16, 3), GridCrops(16, 3)],
)
def test_what_is_known_before_a_picture_is_seen(view: Views):
    found = view(picture(30, 40), "a.png")
    assert len(found) == view.number == len(view.names("a.png"))
    assert (
        len(view.names("a.png", flips=True))
        == len(set(view.names("a.png", True)))
        == 2 * len(found)
    )
    assert view.names("a.png", flips=True)[: view.number] == view.names("a.png")


def test_the_name_of_a_single_view_is_plain():
    assert Whole().names("0123:a.png") == ["0123:a.png"]
    assert Square(8).names("a.png", flips=True) == ["a.png", "a.png#mirrored"]
    assert RandomCrops(8, 2).names("a.png", flips=True) == [
        *("a.png#0", "a.png#1"),
        *("a.png#0#mirrored", "a.png#1#mirrored"),
    ]
    assert RandomCrops(8, 1).names("a.png") == ["a.png"]


@pytest.mark.parametrize("view", [Square(8), Whole(4), RandomCrops(8, 2), GridCrops(8, 2)])
def test_views_let_a_gradient_through(view):
    image = picture(12, 16).requires_grad_()
    view(image, "a.png").sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


def test_neighbours_of_one_shape_come_together():
    widths = [4, 4, 4, 5, 5, 4]
    images = [torch.full((3, 2, width), float(i)) for i, width in enumerate(widths)]
    batches = [[int(image[0, 0, 0]) for image in batch] for batch in alike(images, most=2)]
    assert batches == [[0, 1], [2], [3, 4], [5]]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Square(0), "views.size=0: expected an integer >= 1"),
        (lambda: Centre("x"), "views.size=x"),  # type: ignore[arg-type]
        (lambda: ShortSide(100), "views.size=100: expected a multiple of views.multiple=64"),
        (lambda: ShortSide(64, multiple=0), "views.multiple=0"),
        (lambda: Whole(multiple=-1), "views.multiple=-1"),
        (lambda: RandomCrops(0, 5), "views.size=0"),
        (lambda: RandomCrops(64, 0), "views.crops=0"),
        (lambda: RandomCrops(64, 5, seed=-1), "views.seed=-1"),
        (lambda: GridCrops(64, 5, short_side=63), "views.short_side=63: expected an integer >= 64"),
    ],
)
def test_arguments_are_checked(make, told):
    with pytest.raises(ConfigError, match=told):
        make()
