from __future__ import annotations

import pytest
import torch

from latentiqa.noise import image_noise

NAMES = [f"photo ({i}).png" for i in range(8)]


def test_noise_is_the_same_to_the_bit_alone_in_a_batch_and_in_another_order():
    batch = image_noise(NAMES, 50, (4, 8, 8))
    turned = image_noise(NAMES[::-1], 50, (4, 8, 8))
    for i, name in enumerate(NAMES):
        alone = image_noise([name], 50, (4, 8, 8))[0]
        assert torch.equal(batch[i], alone)
        assert torch.equal(turned[7 - i], alone)


@pytest.mark.parametrize(("names", "t", "seed"), [(["b"], 50, 0), (["a"], 51, 0), (["a"], 50, 1)])
def test_name_timestep_and_seed_each_change_it(names, t, seed):
    assert not torch.equal(
        image_noise(["a"], 50, (4, 8, 8)), image_noise(names, t, (4, 8, 8), seed=seed)
    )


def test_it_is_standard_normal_and_independent_between_pictures():
    noise = image_noise([str(i) for i in range(64)], 10, (4, 16, 16), dtype=torch.float64)
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    correlation = torch.corrcoef(noise.flatten(1)) - torch.eye(64)
    assert correlation.abs().max() < 0.16  # 5 sigma of 1 / sqrt(1024)


def test_the_global_generator_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    image_noise(["a"], 1, (1, 2, 2))
    assert torch.equal(torch.rand(2), expected)
