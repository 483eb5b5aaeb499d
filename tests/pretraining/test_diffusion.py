from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from latentiqa.backbones.addresses import layer_modules
from latentiqa.backbones.source import BackboneSource
from latentiqa.data.captions import WORDS, Degradation, levels, sample_degradations
from latentiqa.errors import ConfigError
from latentiqa.pretraining.alignment import LinearAlignment, URepa
from latentiqa.pretraining.diffusion import snr_weight
from latentiqa.pretraining.recognition import PRIOR, Recognition

from .conftest import SCHEDULER, encoder

CAPTIONS = ["a sharp photo, excellent quality", "a very noisy photo, bad quality"]
LEVELS = torch.tensor([levels(()), levels((Degradation("gaussian_noise", 4),))])


def losses(training, draws=1, seed=3):
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    batch = {"image": image, "caption": CAPTIONS, "levels": LEVELS}
    generator = torch.Generator().manual_seed(seed)
    return training.losses(training.trained, batch, generator, draws), image


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_loss_is_that_of_diffusers_scheduler(diffusion, prediction_type):
    training = diffusion(scheduler=SCHEDULER | {"prediction_type": prediction_type})
    with torch.no_grad():
        ours, image = losses(training)
        generator = torch.Generator().manual_seed(3)
        torch.rand(2, generator=generator)  # which captions are dropped: none
        posterior = training.autoencoder.encode(image * 2 - 1).latent_dist
        z0 = posterior.mode() * training.autoencoder.config.scaling_factor
        t = (torch.rand(2, generator=generator) * 1000).long()
        noise = torch.randn(z0.shape, generator=generator)
        scheduler = DDIMScheduler(**SCHEDULER)
        ids = training.tokenizer(
            CAPTIONS, padding="max_length", max_length=48, return_tensors="pt"
        ).input_ids
        context = training.trained.text_encoder(ids).last_hidden_state
        output = training.trained.unet(scheduler.add_noise(z0, noise, t), t, context).sample
        target = noise if prediction_type == "epsilon" else scheduler.get_velocity(z0, noise, t)
    expected = torch.nn.functional.mse_loss(output, target)
    assert ours["diffusion"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert ours["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_min_snr_weighs_the_clean_latents_alike_in_both_parametrisations():
    abar = torch.tensor([0.999, 0.9, 0.5, 0.01], dtype=torch.float64)
    snr = abar / (1 - abar)
    # ||e - e'||^2 = SNR ||z0 - z0'||^2 and ||v - v'||^2 = (SNR + 1) ||z0 - z0'||^2
    epsilon = snr_weight(abar, 5.0, "epsilon") * snr
    v = snr_weight(abar, 5.0, "v_prediction") * (snr + 1)
    torch.testing.assert_close(epsilon, snr.clamp_max(5.0))
    torch.testing.assert_close(v, snr.clamp_max(5.0))
    assert snr_weight(abar, None, "epsilon").tolist() == [1, 1, 1, 1]


def test_small_timesteps_come_more_often_with_a_power_above_one(diffusion):
    seen = []
    training = diffusion(timestep_power=3.0)
    training.trained.unet.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[1]))
    with torch.no_grad():
        losses(training, draws=200)
    t = torch.cat(seen)
    # P(t < 125) = 0.125^(1/3) = 0.5
    assert 0.4 < (t < 125).float().mean() < 0.6
    assert t.max() < 1000


def test_each_draw_of_a_crop_keeps_its_caption_and_its_latents(diffusion):
    training = diffusion()
    calls = []
    training.trained.unet.register_forward_pre_hook(
        lambda _m, inputs, keywords: calls.append((inputs, keywords)), with_kwargs=True
    )
    with torch.no_grad():
        losses(training, draws=3)
    [(_inputs, keywords)] = calls
    context = keywords["encoder_hidden_states"]
    assert len(context) == 6
    for draw in range(3):
        torch.testing.assert_close(context[2 * draw : 2 * draw + 2], context[:2])


def test_both_models_and_the_projections_learn_and_the_rest_is_frozen(diffusion):
    training = diffusion(alignment=URepa(encoder, {"mid.resnet.1": ["a"]}, hidden=8))
    terms, _ = losses(training)
    terms["loss"].backward()
    trained = {name for name, p in training.named_parameters() if p.grad is not None}
    assert {name.split(".")[0] for name in trained} == {"trained", "alignment"}
    frozen = {name for name, p in training.named_parameters() if not p.requires_grad}
    assert {name.split(".")[0] for name in frozen} == {"ema", "autoencoder"}
    for part in ("unet", "text_encoder"):
        assert any(name.startswith(f"trained.{part}") for name in trained)
    assert terms["loss"] > terms["diffusion"]


def test_without_captions_the_text_encoder_stays_as_it_is(diffusion):
    training = diffusion(caption_dropout=1.0)
    terms, _ = losses(training)
    terms["loss"].backward()
    learning = {name for name, p in training.trained.named_parameters() if p.grad is not None}
    assert {name.split(".")[0] for name in learning} == {"unet"}


def test_dropped_captions_are_the_unconditional_prompt(diffusion):
    training = diffusion(caption_dropout=0.5)
    seen = []
    training.trained.text_encoder.register_forward_pre_hook(lambda _m, x: seen.append(x[0]))
    with torch.no_grad():
        for seed in range(100):
            losses(training, seed=seed)
    empty = training.tokens([""])[0]
    share = torch.cat(seen).eq(empty).all(dim=1).float().mean()
    assert 0.4 < share < 0.6


def test_degradations_are_recognised_with_and_without_their_caption(diffusion):
    recognition = Recognition(["mid.resnet.1", "up.0.resnet.0"], weight=2.0)
    training = diffusion(recognition=recognition, caption_dropout=0.5)
    terms, _ = losses(training, seed=0)
    with torch.no_grad():
        keep = training.recognition
        maps = {}
        for layer in keep.layers:
            layer_modules(training.trained.unet)[layer].register_forward_hook(
                lambda _m, _i, output, layer=layer: maps.update({layer: output})
            )
        losses(training, seed=0)
        expected = []
        for layer, x in maps.items():
            pooled = torch.cat([x.mean((2, 3)), x.std((2, 3), correction=0)], dim=1)
            p = keep.heads[layer.replace(".", "_")](pooled).sigmoid()
            entropy = -(LEVELS * p.log() + (1 - LEVELS) * (1 - p).log())
            expected.append(entropy.mean())
    assert len(expected) == 2
    assert terms["recognition"].item() == pytest.approx(sum(expected).item() / 2, rel=1e-4)
    total = terms["diffusion"] + 2 * terms["recognition"]
    assert terms["loss"].item() == pytest.approx(total.item(), rel=1e-5)
    terms["loss"].backward()
    assert all(p.grad is not None for p in recognition.parameters())


def test_recognition_needs_two_samples_to_train(diffusion):
    training = diffusion(recognition=Recognition(["mid.resnet.1"]), caption_dropout=1.0)
    batch = {"image": torch.rand(1, 3, 32, 32), "caption": CAPTIONS[:1], "levels": LEVELS[:1]}
    arguments = (training.trained, batch, torch.Generator().manual_seed(0))
    with pytest.raises(ConfigError, match=r"two or more, by crops\.batch_size"):
        training.losses(*arguments, 1)
    assert training.losses(*arguments, 2)["recognition"] > 0


def test_recognition_starts_from_what_is_known_without_a_look(diffusion):
    training = diffusion(recognition=Recognition(["mid.resnet.1"]))
    head = training.recognition.heads["mid_resnet_1"][1]
    torch.testing.assert_close(head.bias.sigmoid(), torch.full((len(WORDS),), PRIOR))
    rng = np.random.default_rng(0)
    drawn = [levels(sample_degradations(rng)) for _ in range(2000)]
    assert np.mean(drawn) == pytest.approx(PRIOR, abs=0.01)


def test_without_denoising_the_layers_behind_the_last_reader_neither_run_nor_learn(diffusion):
    pairs = {"down.0.resnet.0": ["a"], "mid.resnet.0": ["a"]}
    training = diffusion(denoising=0, alignment=LinearAlignment(encoder, pairs))
    reached = []
    training.trained.unet.up_blocks[0].register_forward_hook(lambda *_: reached.append(1))
    terms, _ = losses(training)
    assert terms.keys() == {"loss", "alignment"}
    assert terms["loss"].item() == terms["alignment"].item()
    terms["loss"].backward()
    assert not reached
    learned = {n for n, p in training.trained.unet.named_parameters() if p.grad is not None}
    assert any(name.startswith("down_blocks.0") for name in learned)
    assert any(name.startswith("mid_block.resnets.0") for name in learned)
    assert not any(name.startswith("up_blocks") for name in learned)


def test_the_loss_of_what_was_described_is_that_of_the_picture(diffusion):
    training = diffusion(alignment=LinearAlignment(encoder, {"mid.resnet.0": ["a"]}))
    expected, image = losses(training, draws=2)
    batch = {**training.describe(image), "caption": CAPTIONS, "levels": LEVELS}
    generator = torch.Generator().manual_seed(3)
    terms = training.losses(training.trained, batch, generator, 2)
    for name, value in expected.items():
        assert terms[name].item() == value.item(), name


def test_the_exported_folder_is_a_pipeline_and_a_backbone(diffusion, tmp_path):
    training = diffusion()
    training.export(tmp_path)
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    [image] = pipe(CAPTIONS[0], num_inference_steps=2, height=64, width=64).images
    assert image.size == (64, 64)
    backbone = BackboneSource("micro", str(tmp_path / "pipeline"), resolution=64).load()
    assert backbone.tokenizer("a blurry photo").input_ids == (
        training.tokenizer("a blurry photo").input_ids
    )
    weights = training.average.unet.state_dict()
    for name, value in backbone.unet.state_dict().items():
        torch.testing.assert_close(value, weights[name].half().float(), rtol=0, atol=0)


@pytest.mark.parametrize(("denoising", "last"), [(1.0, "up.1.attn.1"), (0.0, "mid.resnet.1")])
def test_magnitude_is_that_of_all_layers_that_run(diffusion, denoising, last):
    alignment = LinearAlignment(encoder, {"mid.resnet.1": ["a"]})
    training = diffusion(alignment=alignment, denoising=denoising, magnitude=0.5)
    layers = layer_modules(training.trained.unet)
    running = list(layers)[: 1 + list(layers).index(last)]
    maps = {}
    for layer in running:
        layers[layer].register_forward_hook(
            lambda _m, _i, output, layer=layer: maps.update(
                {layer: output if isinstance(output, torch.Tensor) else output[0]}
            )
        )
    terms, _ = losses(training)
    assert training.tapped()[-1] == last
    rms = [value.square().mean().sqrt().item() for value in maps.values()]
    expected = sum(math.log(value) ** 2 for value in rms) / len(running)
    assert terms["magnitude"].item() == pytest.approx(expected, rel=1e-4)
    total = terms["alignment"] + 0.5 * terms["magnitude"] + denoising * terms.get("diffusion", 0)
    assert terms["loss"].item() == pytest.approx(total.item(), rel=1e-5)


def test_magnitude_is_held_where_the_learning_rate_lets_it_grow(diffusion):
    grown = {}
    for magnitude in (0.0, 1.0):
        alignment = LinearAlignment(encoder, {"mid.resnet.1": ["a"]})
        training = diffusion(alignment=alignment, denoising=0.0, magnitude=magnitude)
        optimizer = torch.optim.Adam([p for p in training.parameters() if p.requires_grad], 3e-2)
        for seed in range(40):
            terms, _ = losses(training, seed=seed)
            optimizer.zero_grad()
            terms["loss"].backward()
            optimizer.step()
        training.magnitude = 1.0
        grown[magnitude] = losses(training)[0]["magnitude"].item()
    assert grown[1.0] < 0.5 * grown[0.0]


def test_training_starts_from_the_weights_of_a_pipeline(diffusion, tmp_path):
    first = diffusion()
    first.export(tmp_path)
    torch.manual_seed(9)
    second = diffusion(start=str(tmp_path / "pipeline"), unet={}, text_encoder={})
    ours, theirs = (losses(training)[0]["diffusion"].item() for training in (first, second))
    # Half precision on disk.
    assert ours == pytest.approx(theirs, rel=1e-2)
    assert second.trained.unet.dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"draws": 0}, r"stage\.draws=0"),
        ({"caption_dropout": 1.5}, r"stage\.caption_dropout=1.5"),
        ({"timestep_power": 0}, r"stage\.timestep_power=0"),
        ({"ema_decay": 1.0}, r"stage\.ema_decay=1.0"),
        ({"warmup_steps": -1}, r"stage\.warmup_steps=-1"),
        ({"magnitude": -1.0}, r"stage\.magnitude=-1.0"),
        ({"denoising": -1.0}, r"stage\.denoising=-1.0"),
        ({"denoising": 0}, r"stage\.denoising=0: expected a weight > 0, or 0 with"),
        (
            {"recognition": Recognition(["mid.resnet.9"])},
            r"stage\.recognition\.layers: the U-Net has no layer mid\.resnet\.9",
        ),
        (
            {"alignment": LinearAlignment(encoder, {"mid.resnet.9": ["a"]})},
            r"no layer mid\.resnet\.9; expected some of down\.0",
        ),
    ],
)
def test_bad_values_say_what_was_expected(diffusion, changes, message):
    with pytest.raises(ConfigError, match=message):
        diffusion(**changes)


@pytest.mark.parametrize(
    ("key", "expected"),
    [("autoencoder_folder", "the autoencoder/ folder"), ("start", "a pipeline/ folder")],
)
def test_a_folder_of_other_things_is_named(diffusion, tmp_path, key, expected):
    with pytest.raises(ConfigError, match=rf"(?s)stage\.{key}={tmp_path}: .*expected {expected}"):
        diffusion(**{key: str(tmp_path)})
