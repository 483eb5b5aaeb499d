"""The pyramid against SciPy, and the terms of fidelity."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from latentiqa.enhance.fidelity import MSE, NLPD, Fidelity, Perceptual
from latentiqa.enhance.nlpd import laplacian_pyramid, nlpd, reduce
from latentiqa.errors import ConfigError
from latentiqa.perceptual.dists import DISTS, DISTSFeatures
from latentiqa.perceptual.lpips import LPIPS, LPIPSFeatures
from latentiqa.perceptual.nss import NSS

TAPS = np.array([1, 5, 8, 5, 1]) / 20


def by_scipy(channel: np.ndarray, levels: int) -> list[np.ndarray]:
    """The normalised pyramid of one channel, written with SciPy's filters."""

    def blur(x: np.ndarray) -> np.ndarray:
        rows = ndimage.correlate1d(x, TAPS, axis=0, mode="nearest")
        return ndimage.correlate1d(rows, TAPS, axis=1, mode="nearest")

    def enlarged(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        wide = np.pad(x, 1, mode="edge")
        zeros = np.zeros((2 * wide.shape[0] + 4, 2 * wide.shape[1] + 4))
        zeros[2:-2:2, 2:-2:2] = wide
        rows = ndimage.correlate1d(zeros, 2 * TAPS, axis=0, mode="constant")
        smooth = ndimage.correlate1d(rows, 2 * TAPS, axis=1, mode="constant")
        return smooth[4 : 4 + shape[0], 4 : 4 + shape[1]]

    sides = [(0.1493, 0.1460), (0.1986, 0.1846), (0.2138, 0.2243), (0.2503, 0.2616)]
    ends = [(0.1011, 0.1015), (0.0757, 0.0837), (0.0477, 0.0467), (0.0, 0.0)]
    constants = [0.0248, 0.0185, 0.0179, 0.0191]
    out = []
    for level in range(levels):
        if level == levels - 1:
            band, constant, (left, right), (above, below) = (
                channel,
                0.2782,
                (0.2215, 0.0717),
                (0, 0),
            )
        else:
            low = blur(channel)[::2, ::2]
            band = channel - enlarged(low, channel.shape)
            constant, (left, right), (above, below) = constants[level], sides[level], ends[level]
            channel = low
        around = np.pad(np.abs(band), 1)
        amplitude = left * around[1:-1, :-2] + right * around[1:-1, 2:]
        amplitude += above * around[:-2, 1:-1] + below * around[2:, 1:-1]
        out.append(band / (constant + amplitude))
    return out


@pytest.mark.parametrize("size", [(64, 48), (37, 51)])
@pytest.mark.parametrize("bands", ["coarsest", "all"])
def test_nlpd_is_the_one_written_with_scipy(size, bands):
    a, b = np.random.default_rng(0).random((2, 3, *size))
    pyramids = [[by_scipy(channel, 5) for channel in x] for x in (a, b)]
    levels = [
        np.sqrt(np.mean([(x[k] - y[k]) ** 2 for x, y in zip(*pyramids, strict=True)]))
        for k in range(5)
    ]
    expected = levels[-1] if bands == "coarsest" else np.mean(levels)
    found = nlpd(*(torch.from_numpy(x)[None] for x in (a, b)), bands=bands)
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_the_coarsest_band_leaves_detail_free(pictures):
    image = pictures[0]
    pixels = torch.arange(64)
    checks = 0.1 * ((pixels[:, None] + pixels) % 2 * 2.0 - 1)
    fine, bright = image + checks, image + 0.1
    assert (nlpd(fine, image) < 0.02 * nlpd(bright, image)).all()
    assert (nlpd(fine, image, bands="all") > 0.3).all()


def test_a_constant_has_no_detail_and_the_gradient_at_equality_is_zero():
    bands = laplacian_pyramid(torch.full((1, 3, 33, 20), 0.7), 4)
    assert all(band.abs().max() < 1e-6 for band in bands[:-1])
    assert torch.allclose(bands[-1], torch.tensor(0.7))
    assert torch.allclose(reduce(torch.ones(1, 1, 5, 5)), torch.tensor(1.0))
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    nlpd(x, x.detach()).sum().backward()
    assert x.grad is not None
    assert not x.grad.any()


def test_terms_are_weighted_and_added(pictures):
    image, other = pictures[0][:1], pictures[0][1:3]
    terms = {"nlpd": NLPD(weight=2.0, levels=3), "mse": MSE(weight=5.0)}
    found = Fidelity(terms, image, None)(other, None)
    for i in range(2):
        mse = ((other[i] - image[0]) ** 2).mean()
        expected = 2 * nlpd(other[i : i + 1], image, levels=3)[0] + 5 * mse
        assert found[i].item() == pytest.approx(expected.item(), rel=1e-5)


def test_lpips_and_dists_are_the_distances_themselves(pictures, tmp_path, monkeypatch):
    image, other = pictures[0][:1], pictures[0][1:2]
    lpips = Perceptual(psi=LPIPSFeatures(), weight=1.0)
    assert lpips(other, image).item() == pytest.approx(LPIPS("alex")(other, image).item(), rel=1e-5)
    # The file is half a gigabyte: its content is a name here, and the network a random one.
    (tmp_path / "vgg16.pth").write_bytes(b"named")
    network = DISTS()
    monkeypatch.setattr("latentiqa.perceptual.dists._load", lambda psi, device: network)
    dists = Perceptual(psi=DISTSFeatures(str(tmp_path / "vgg16.pth"), 32), weight=1.0)
    half = [torch.nn.functional.avg_pool2d(x, 2) for x in (other, image)]
    assert dists(*half).item() == pytest.approx(network(*half).item(), rel=1e-5)
    assert dists(other, image).item() != pytest.approx(network(other, image).item(), rel=1e-3)


def test_latents_are_compared_where_they_are_asked_for(pictures):
    image, z, other = pictures[0][:1], torch.zeros(1, 4, 8, 8), torch.ones(2, 4, 8, 8)
    fidelity = Fidelity({"mse": MSE(weight=3.0, compares="latents")}, image, z)
    assert fidelity(image.expand(2, -1, -1, -1), other.double()).tolist() == [3.0, 3.0]
    with pytest.raises(ConfigError, match=r"fidelity.mse.compares=latents: in space=pixels"):
        Fidelity({"mse": MSE(compares="latents")}, image, None)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: NLPD(levels=1), r"levels=1: expected an integer in 2\.\.6"),
        (lambda: NLPD(bands="some"), "bands='some': expected 'coarsest' or 'all'"),
        (lambda: NLPD(weight=0.0), "weight=0.0: expected a number > 0"),
        (lambda: MSE(compares="paper"), "compares='paper': expected 'pixels' or 'latents'"),
        (lambda: Perceptual(psi=NSS()), "psi=NSS: expected LPIPSFeatures or DISTSFeatures"),
        (
            lambda: Perceptual(psi=LPIPSFeatures(), compares="latents"),
            "LPIPSFeatures compares pixels",
        ),
        (lambda: Fidelity({}, torch.zeros(1, 3, 8, 8), None), "expected one or more terms"),
    ],
)
def test_wrong_values(make, told):
    with pytest.raises(ConfigError, match=told):
        make()
