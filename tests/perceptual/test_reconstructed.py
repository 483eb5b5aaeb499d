from __future__ import annotations

import shutil

import pytest
import torch
from diffusers import AutoencoderKL
from miniatures import micro_tiny

from latentiqa.errors import ConfigError
from latentiqa.perceptual import PooledPsi
from latentiqa.perceptual.nss import NSS
from latentiqa.perceptual.reconstructed import Reconstructed
from latentiqa.recipe import recipe_of


def kl() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
    )


@pytest.fixture(params=[micro_tiny, kl])
def autoencoder(request):
    torch.manual_seed(0)
    return request.param().eval()


def test_it_is_the_psi_of_decoded_latents(autoencoder, tmp_path):
    autoencoder.save_pretrained(tmp_path)
    image = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    psi = Reconstructed(NSS(), str(tmp_path))
    assert isinstance(psi, PooledPsi)
    with torch.no_grad():
        encoded = autoencoder.encode(image * 2 - 1)
        # Not AutoencoderTiny's own forward pass: it rounds latents to 8 bits.
        z = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        restored = autoencoder.decode(z).sample / 2 + 0.5
    expected = NSS().statistics(restored.clamp(0, 1), "mean")
    found = psi.statistics(image)
    assert {name: value.shape[1] for name, value in found.items()} == psi.widths()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-5)


def test_its_recipe_knows_the_weights_not_the_place(tmp_path):
    torch.manual_seed(0)
    micro_tiny().save_pretrained(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    micro_tiny().save_pretrained(tmp_path / "c")
    a, b, c = (recipe_of(Reconstructed(NSS(), str(tmp_path / name))) for name in "abc")
    assert a == b
    assert a["autoencoder"] != c["autoencoder"]
    assert str(tmp_path) not in str(a)


def test_a_missing_folder_is_named():
    with pytest.raises(ConfigError, match="nowhere: no such folder"):
        Reconstructed(NSS(), "nowhere")
