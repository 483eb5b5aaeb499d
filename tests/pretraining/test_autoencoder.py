from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderTiny
from miniatures import micro_tiny

from latentiqa.backbones.ldm import load_autoencoder
from latentiqa.errors import ConfigError
from latentiqa.pretraining.autoencoder import AutoencoderTraining

from .conftest import ADAM, micro_autoencoder


def distance(a, b):
    return (a - b).abs().amax(dim=(1, 2, 3))


@pytest.fixture
def image():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_the_terms_are_those_of_the_formula(image):
    torch.manual_seed(0)
    training = AutoencoderTraining(
        micro_autoencoder(), ADAM, distance, perceptual_weight=0.5, kl_weight=0.1
    )
    with torch.no_grad():
        losses = training.losses(training.trained, image, None)
        posterior = training.trained.encode(image * 2 - 1).latent_dist
        restored = training.trained.decode(posterior.mode()).sample / 2 + 0.5
    kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
    l1, lpips = (restored - image).abs().mean(), distance(restored, image).mean()
    torch.testing.assert_close(losses["kl"], kl)
    torch.testing.assert_close(losses["l1"], l1)
    torch.testing.assert_close(losses["loss"], l1 + 0.5 * lpips + 0.1 * kl)
    torch.testing.assert_close(losses["latent_rms"], posterior.mode().square().mean().sqrt())


def test_training_samples_the_posterior_and_the_same_generator_the_same_sample(image):
    torch.manual_seed(0)
    training = AutoencoderTraining(micro_autoencoder(), ADAM)
    with torch.no_grad():
        mode = training.losses(training.trained, image, None)["l1"]
        one, again, other = (
            training.losses(training.trained, image, torch.Generator().manual_seed(seed))["l1"]
            for seed in (1, 1, 2)
        )
    assert one == again
    assert len({mode.item(), one.item(), other.item()}) == 3


def test_an_autoencoder_without_posterior_has_no_kl(image):
    torch.manual_seed(0)
    training = AutoencoderTraining(micro_tiny(), ADAM)
    losses = training.losses(training.trained, image, torch.Generator())
    assert "kl" not in losses
    torch.testing.assert_close(losses["loss"], losses["l1"])


def test_validation_tells_the_mean_psnr_of_the_pictures(image, monkeypatch):
    """Not the PSNR of their mean error: one picture is much nearer than the other."""
    training = AutoencoderTraining(micro_tiny(), ADAM)
    restored = image + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1) * (image < 0.5)
    losses = {"loss": torch.zeros(()), "reconstruction": restored}
    monkeypatch.setattr(training, "losses", lambda *_args, **_kwargs: losses)
    logged = {}
    monkeypatch.setattr(training, "log", lambda name, value, **_: logged.update({name: value}))
    training.validation_step({"image": image}, 0)
    errors = (restored - image).square().mean(dim=(1, 2, 3))
    assert logged["val/psnr"].item() == pytest.approx((-10 * errors.log10()).mean().item())


def test_it_learns(image):
    torch.manual_seed(0)
    training = AutoencoderTraining(micro_tiny(), ADAM)
    optimizer = torch.optim.Adam(training.trained.parameters(), lr=1e-2)
    values = []
    for _ in range(20):
        loss = training.losses(training.trained, image, None)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.8 * values[0]


@pytest.mark.parametrize("make", [micro_tiny, micro_autoencoder])
def test_exported_latents_have_unit_variance(make, image, tmp_path):
    torch.manual_seed(0)
    training = AutoencoderTraining(make(), ADAM)
    with torch.no_grad():
        training.latent_rms = training.losses(training.average, image, None)["latent_rms"].item()
    training.export(tmp_path)
    loaded = load_autoencoder(tmp_path / "autoencoder")
    with torch.no_grad():
        encoded = loaded.encode(image * 2 - 1)
    latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
    scaled = latents * loaded.config.scaling_factor
    assert scaled.square().mean().sqrt().item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("make", [micro_tiny, micro_autoencoder])
def test_a_kept_encoder_keeps_its_latents(make, image, tmp_path):
    torch.manual_seed(0)
    first = make()
    first.register_to_config(scaling_factor=0.5)
    first.save_pretrained(tmp_path)
    training = AutoencoderTraining(make(), ADAM, encoder_folder=str(tmp_path))
    decoder = {k: v.clone() for k, v in training.trained.decoder.state_dict().items()}
    optimizer = ADAM([p for p in training.parameters() if p.requires_grad])
    training.losses(training.trained, image, None)["loss"].backward()
    optimizer.step()
    training.latent_rms = 3.0
    training.export(tmp_path)
    for model in (training.trained, load_autoencoder(tmp_path / "autoencoder")):
        for name, value in model.encoder.state_dict().items():
            assert torch.equal(value, first.encoder.state_dict()[name])
        assert model.config.scaling_factor == 0.5
    now = training.trained.decoder.state_dict()
    assert not any(torch.equal(value, decoder[name]) for name, value in now.items())


def test_an_encoder_of_another_shape_is_refused(tmp_path):
    wide = AutoencoderTiny(
        encoder_block_out_channels=(16, 16),
        num_encoder_blocks=(1, 1),
        decoder_block_out_channels=(8, 8),
        num_decoder_blocks=(1, 1),
    )
    wide.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"(?s)stage\.encoder_folder=.*size mismatch"):
        AutoencoderTraining(micro_tiny(), ADAM, encoder_folder=str(tmp_path))


@pytest.mark.parametrize("key", ["start", "encoder_folder"])
def test_a_folder_of_other_things_is_named(tmp_path, key):
    with pytest.raises(ConfigError, match=rf"(?s)stage\.{key}=.*expected the autoencoder/ folder"):
        AutoencoderTraining(micro_tiny(), ADAM, **{key: str(tmp_path)})
