from __future__ import annotations

import pytest
import torch

from latentiqa.errors import ConfigError
from latentiqa.hyperfeatures.pooling import pool, pool_all, pooled_widths


def test_statistics_are_each_channels_own():
    x = torch.randn(3, 5, 4, 6)
    pooled = pool(x, "mean_std")
    array = x.double().numpy()
    assert list(pooled) == ["mean", "std"]
    for name, expected in (("mean", array.mean((2, 3))), ("std", array.std((2, 3)))):
        torch.testing.assert_close(
            pooled[name].double(), torch.from_numpy(expected), atol=1e-6, rtol=1e-5
        )


def test_the_mean_of_low_precision_maps_is_taken_in_float32():
    x = torch.full((1, 1, 64, 64), 1.0, dtype=torch.float16)
    x[0, 0, 0, 0] = 1.5
    mean = pool(x)["mean"]
    assert mean.dtype == torch.float32
    assert mean.item() == pytest.approx(1 + 0.5 / 4096, rel=1e-6)


def test_an_unknown_pooling_is_refused():
    with pytest.raises(ConfigError, match="pooling='max': expected one of mean, mean_std"):
        pool(torch.zeros(1, 1, 1, 1), "max")


@pytest.mark.parametrize("pooling", ["mean", "mean_std"])
def test_maps_are_pooled_by_name_as_the_widths_say(pooling):
    maps = {"a": torch.randn(2, 5, 4, 6), "b": torch.randn(2, 3, 1, 1)}
    pooled = pool_all(maps, pooling)
    for name, x in maps.items():
        for statistic, value in pool(x, pooling).items():
            assert torch.equal(pooled[f"{name}/{statistic}"], value)
    widths = pooled_widths({"a": 5, "b": 3}, pooling)
    assert list(pooled) == list(widths)
    assert {name: value.shape[1] for name, value in pooled.items()} == widths
    with pytest.raises(ConfigError, match="pooling='max'"):
        pooled_widths({"a": 5}, "max")
