"""Natural-scene statistics against SciPy, and their gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from latentiqa.errors import ConfigError
from latentiqa.perceptual.nss import NSS


def photo_like(height: int = 64, width: int = 64, seed: int = 0) -> Tensor:
    """A 1/f picture, float64 (1, 3, H, W) in [0, 1]: its spectrum is that of photos."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.fft2(rng.standard_normal((3, height, width))) / frequency
    image = np.fft.ifft2(spectrum).real
    image = (image - image.min()) / np.ptp(image)
    return torch.from_numpy(image[None])


def reference(image: np.ndarray, scales: int, window: int, sigma: float) -> np.ndarray:
    """Features of one picture (3, H, W), from the definitions, with SciPy's filters."""
    grey = 255 * (0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2])
    out = []
    for scale in range(scales):
        if scale:
            for axis in (0, 1):
                # origin -1 looks at pixels -1, 0, 1, 2: the half-size grid lies between pixels.
                grey = ndimage.correlate1d(
                    grey, [0.125, 0.375, 0.375, 0.125], axis, mode="nearest", origin=-1
                )
            size = grey.shape
            grey = grey[::2, ::2][: size[0] // 2, : size[1] // 2]

        def smooth(x):
            return ndimage.gaussian_filter(x, sigma, mode="nearest", radius=window // 2)

        mu = smooth(grey)
        deviation = np.sqrt(np.maximum(smooth(grey**2) - mu**2, 0) + 1e-4)
        m = (grey - mu) / (deviation + 1)
        m2, m3, m4 = (np.mean((m - m.mean()) ** power) for power in (2, 3, 4))
        out += [m.mean(), m2, m3 / np.sqrt((m2 + 1e-6) * (m4 + 1e-6)), m2**2 / (m4 + 1e-6)]
        height, width = m.shape
        for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
            products = np.array(
                [
                    m[i, j] * m[i + down, j + right]
                    for i in range(height - down)
                    for j in range(max(0, -right), width - max(0, right))
                ]
            )
            negative, positive = products[products < 0], products[products > 0]
            out += [products.mean(), np.mean(np.abs(products))]
            out += [np.sum(part**2) / len(products) for part in (negative, positive)]
    return np.array(out)


@pytest.mark.parametrize(("height", "width"), [(48, 48), (37, 50)])
@pytest.mark.parametrize(
    ("scales", "window", "sigma"), [(1, 7, 7 / 6), (2, 7, 7 / 6), (3, 5, 0.8), (2, 3, 2.0)]
)
def test_features_are_those_of_the_definitions(height, width, scales, window, sigma):
    pictures = torch.cat([photo_like(height, width, seed) for seed in (1, 2)])
    [features] = NSS(scales, window, sigma)(pictures)
    expected = np.stack([reference(p, scales, window, sigma) for p in pictures.numpy()])
    np.testing.assert_allclose(features.numpy(), expected, rtol=0, atol=1e-8)


def test_every_feature_has_one_name():
    nss = NSS(scales=3)
    assert len(set(nss.feature_names)) == len(nss.feature_names) == 60
    [features] = nss(photo_like())
    assert features.shape == (1, 60)
    named = dict(zip(nss.feature_names, features[0].tolist(), strict=True))
    assert named["scale0.vertical.mean_abs"] >= abs(named["scale0.vertical.mean"])
    assert named["scale2.mscn.variance"] > 0


def test_float32_agrees_with_float64():
    picture = photo_like()
    [single], [double] = NSS()(picture.float()), NSS()(picture)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)


def test_low_precision_autocast_is_kept_out():
    picture = photo_like().float()
    [plain] = NSS()(picture)
    with torch.autocast("cpu", torch.bfloat16):
        [features] = NSS()(picture)
    torch.testing.assert_close(features, plain, rtol=0, atol=0)


def test_a_picture_does_not_see_its_batch():
    pictures = torch.cat([photo_like(seed=seed) for seed in range(3)])
    [together] = NSS()(pictures)
    alone = torch.cat([NSS()(picture[None])[0] for picture in pictures])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


def test_gradients_are_those_of_finite_differences():
    picture, nss = photo_like(6, 7).requires_grad_(), NSS(window=3)
    assert torch.autograd.gradcheck(lambda x: nss(x)[0], (picture,), eps=1e-7, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_constant_pictures_have_finite_gradients(value, dtype):
    picture = torch.full((1, 3, 32, 32), value, dtype=dtype, requires_grad=True)
    [features] = NSS()(picture)
    assert features.isfinite().all()
    for feature in features[0]:
        [gradient] = torch.autograd.grad(feature, picture, retain_graph=True)
        assert gradient.isfinite().all()


def test_half_flat_pictures_have_finite_gradients():
    picture = photo_like().float()
    picture[..., :32] = 1.0
    picture.requires_grad_()
    [features] = NSS()(picture)
    features.square().sum().backward()
    assert picture.grad is not None
    assert picture.grad.isfinite().all()


def pair_energy(picture: Tensor) -> float:
    nss = NSS()
    [features] = nss(picture)
    chosen = [i for i, name in enumerate(nss.feature_names) if name.endswith("mean_abs")]
    return features[0, chosen].mean().item()


def adjacent_correlation(picture: Tensor) -> float:
    """Mean product of neighbours over the variance, at the finest scale."""
    nss = NSS()
    named = dict(zip(nss.feature_names, nss(picture)[0][0].tolist(), strict=True))
    return named["scale0.horizontal.mean"] / named["scale0.mscn.variance"]


def test_blur_lowers_the_pair_statistics_monotonically():
    picture = photo_like(96, 96).numpy()
    blurred = [
        pair_energy(torch.from_numpy(ndimage.gaussian_filter(picture, (0, 0, s, s))))
        for s in (0, 0.7, 1.5, 3, 6)
    ]
    assert blurred == sorted(blurred, reverse=True)
    assert blurred[0] > 2 * blurred[-1]


def test_noise_decorrelates_neighbours_monotonically():
    picture = photo_like(96, 96)
    noise = torch.from_numpy(np.random.default_rng(3).standard_normal(picture.shape))
    noisy = [adjacent_correlation(picture + s * noise) for s in (0, 0.02, 0.05, 0.1, 0.3)]
    assert noisy == sorted(noisy, reverse=True)
    assert noisy[0] - noisy[-1] > 0.1


@pytest.mark.parametrize(
    "arguments",
    [{"scales": 0}, {"window": 6}, {"window": 1}, {"sigma": 0.0}, {"sigma": float("nan")}],
)
def test_values_out_of_range_are_refused(arguments):
    [name] = arguments
    with pytest.raises(ConfigError, match=f"perceptual.{name}="):
        NSS(**arguments)


def test_pictures_smaller_than_the_window_are_refused():
    NSS(scales=2)(torch.rand(1, 3, 14, 20))
    with pytest.raises(ConfigError, match="13 x 20 is smaller than the window"):
        NSS(scales=2)(torch.rand(1, 3, 13, 20))
