from __future__ import annotations

import numpy as np
import pytest
import torch

from latentiqa.data.augmentation import RandomDistortion
from latentiqa.errors import ConfigError


@pytest.fixture(scope="module")
def image():
    return torch.nn.functional.interpolate(torch.rand(1, 3, 6, 8), (48, 64), mode="bilinear")[0]


def test_what_is_done_depends_on_seed_and_index_alone(image):
    kinds = ["white_noise", "jpeg", "color_block"]
    augment = RandomDistortion(p=0.7, types=kinds, seed=1)
    row = [augment(image, index) for index in range(8)]
    again = RandomDistortion(p=0.7, types=kinds, seed=1)
    for index in (5, 0, 7):
        assert torch.equal(again(image, index), row[index])
    assert len({picture.numpy().tobytes() for picture in row}) > 4
    others = RandomDistortion(p=0.7, types=kinds, seed=2)
    assert [augment.draw(i) for i in range(20)] != [others.draw(i) for i in range(20)]


def test_probability_kinds_and_levels():
    augment = RandomDistortion(p=0.3, types=[1, "lens_blur"], levels=[2, 4])
    drawn = [augment.draw(index) for index in range(2000)]
    done = [choice for choice in drawn if choice is not None]
    assert len(done) / len(drawn) == pytest.approx(0.3, abs=0.04)
    counts = [done.count(choice) for choice in ((1, 2), (1, 4), (2, 2), (2, 4))]
    assert sum(counts) == len(done)
    assert min(counts) > 0.8 * len(done) / 4
    assert {c[0] for c in map(RandomDistortion(p=1).draw, range(500)) if c} == set(range(1, 26))


def test_never_and_always(image):
    never, always = RandomDistortion(p=0), RandomDistortion(p=1, types=["darken"], levels=[5])
    for index in range(5):
        assert never(image, index) is image
        assert always(image, index).mean() < 0.7 * image.mean()


def test_shape_dtype_and_range(image):
    before = image.clone()
    for index in range(30):
        picture = RandomDistortion(p=1)(image, index)
        assert picture.shape == image.shape
        assert picture.dtype == torch.float32
        assert picture.is_contiguous()
        assert 0 <= picture.min() <= picture.max() <= 1
    assert torch.equal(image, before)


def test_the_global_generators_are_left_alone(image):
    np.random.seed(0)
    torch.manual_seed(0)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    RandomDistortion(p=1, types=["jitter", "white_noise"])(image, 0)
    assert np.array_equal(np.random.get_state()[1], before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"p": 1.1}, r"p=1.1: expected a probability"),
        ({"p": float("nan")}, r"p=nan: expected a probability"),
        ({"types": ["fog"]}, r"'fog' is none of"),
        ({"levels": [6]}, r"6 is none of 1 to 5"),
        ({"seed": -1}, r"seed=-1: expected an integer"),
    ],
)
def test_wrong_values(wrong, told):
    with pytest.raises(ConfigError, match=told):
        RandomDistortion(**wrong)
