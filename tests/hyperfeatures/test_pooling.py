from __future__ import annotations

import numpy as np
import pytest
import torch

from latentiqa.errors import ConfigError
from latentiqa.hyperfeatures.pooling import (
    POOLINGS,
    WIDEST,
    correlation,
    mixture,
    pool,
    pool_all,
    pooled_widths,
)


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


@pytest.mark.parametrize("pooling", POOLINGS)
def test_maps_are_pooled_by_name_as_the_widths_say(pooling):
    channels = {"a": 5, "b": 3, "wide": WIDEST + 1}
    maps = {name: torch.randn(2, n, 4, 6) for name, n in channels.items()}
    maps["b"] = maps["b"][..., :1, :1]
    pooled = pool_all(maps, pooling)
    for name, x in maps.items():
        for statistic, value in pool(x, pooling).items():
            assert torch.equal(pooled[f"{name}/{statistic}"], value)
    widths = pooled_widths(channels, pooling)
    assert list(pooled) == list(widths)
    assert {name: value.shape[1] for name, value in pooled.items()} == widths
    with pytest.raises(ConfigError, match="pooling='max'"):
        pooled_widths({"a": 5}, "max")


def test_correlations_are_numpys_own():
    x = torch.randn(3, 6, 4, 5)
    x[:, 1] += 2 * x[:, 0]
    first, second = np.triu_indices(6, 1)
    for picture, found in zip(x.double().numpy(), correlation(x), strict=True):
        expected = np.corrcoef(picture.reshape(6, -1))[first, second]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_correlations_of_a_wide_map_are_a_mixture_of_all_of_its_own():
    x = torch.randn(2, 100, 8, 9) * torch.logspace(0, 1, 100).view(1, -1, 1, 1)
    rows = mixture(100, x.device).double().numpy()
    np.testing.assert_allclose(rows @ rows.T, np.eye(WIDEST), atol=1e-6)
    first, second = np.triu_indices(WIDEST, 1)
    for picture, found in zip(x.double().numpy(), correlation(x), strict=True):
        whole = np.corrcoef(picture.reshape(100, -1))
        expected = (rows @ whole @ rows.T)[first, second]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_correlations_have_a_gradient_after_a_first_call_in_inference_mode():
    mixture.cache_clear()
    x = torch.randn(1, WIDEST + 1, 3, 3)
    with torch.inference_mode():
        correlation(x)
    correlation(x.requires_grad_()).square().sum().backward()
    assert x.grad.abs().sum() > 0


def test_the_mixture_is_the_same_on_every_machine():
    # Values of this very draw: features of a shipped head must not turn with a library's version.
    expected = torch.tensor([[0.226975, -0.025584, -0.097654], [0.024527, 0.019321, 0.202616]])
    found = mixture(80, torch.device("cpu"))[:2, :3]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_channels_that_are_constant_correlate_with_nothing_and_have_gradients():
    x = torch.randn(1, 3, 4, 4)
    x[:, 1] = 7.0
    x.requires_grad_()
    values = correlation(x)
    assert values[0, 0] == values[0, 2] == 0 != values[0, 1]
    [gradient] = torch.autograd.grad(values.sum(), x)
    assert gradient.isfinite().all()
    assert not correlation(x[..., :1, :1]).any()
