from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from memory_tracking import bytes_kept

from latentiqa.backbones.addresses import layer_modules
from latentiqa.dpiqa.attention import SharedPromptAttention
from latentiqa.dpiqa.teacher import Design, Teacher
from latentiqa.errors import ConfigError
from latentiqa.noise import image_noise


def plain_maps(backbone, latents, states, taps):
    """What diffusers' own U-Net shows at t = 1, without anything of ours around it."""
    backbone.unet.set_attn_processor(AttnProcessor2_0())
    seen = {}
    layers = layer_modules(backbone.unet)
    hooks = [
        layers[tap].register_forward_hook(
            lambda _m, _i, out, tap=tap: seen.update({tap: out[0] if type(out) is tuple else out})
        )
        for tap in taps
    ]
    with torch.no_grad():
        backbone.unet(latents, 1, states)
    for hook in hooks:
        hook.remove()
    return [seen[tap] for tap in taps]


def seen_by_decoder(teacher, image, names):
    """The maps that the teacher decodes."""
    seen = []
    hook = teacher.decoder.register_forward_pre_hook(lambda _m, inputs: seen.extend(inputs[0]))
    with torch.no_grad():
        teacher(image, names)
    hook.remove()
    return seen


def test_with_adapters_at_zero_it_sees_what_diffusers_computes(attentive, pictures):
    image, names = pictures
    teacher = Teacher(attentive, Design(side=8, width=16, narrowing=(4,)))
    assert teacher.text_adapter is not None
    assert teacher.image_adapter is not None
    adapted = seen_by_decoder(teacher, image[:3], names[:3])
    teacher.text_adapter.gamma.data.zero_()
    for parameter in teacher.image_adapter.parameters():
        parameter.data.zero_()
    seen = seen_by_decoder(teacher, image[:3], names[:3])
    assert teacher.taps == ["up.0.upsample.0", "up.1.upsample.0", "up.2.upsample.0", "up.3.attn.1"]
    states = teacher.prompts.expand(3, -1, -1)
    assert states.shape == (3, 495, 64)
    expected = plain_maps(attentive, attentive.encode(image[:3]), states, teacher.taps)
    for one, other, plain in zip(seen, adapted, expected, strict=True):
        torch.testing.assert_close(one, plain, atol=1e-5, rtol=1e-4)
        assert (other - plain).abs().max() > 1e-3  # random adapters do show


def test_shared_prompts_are_attended_to_as_each_picture_s_own(attentive):
    torch.manual_seed(0)
    z, text = torch.randn(3, 4, 8, 8), torch.randn(1, 11, 64)
    with torch.no_grad():
        expected = attentive.unet(z, 1, text.expand(3, -1, -1)).sample
        deaf = attentive.unet(z, 1, torch.zeros(3, 11, 64)).sample
        attentive.unet.set_attn_processor(SharedPromptAttention())
        shared = attentive.unet(z, 1, text).sample
        own = attentive.unet(z, 1, text.expand(3, -1, -1)).sample
    assert (expected - deaf).abs().max() > 1e-2
    torch.testing.assert_close(shared, expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(own, expected)


def test_a_score_is_of_the_picture_alone(teacher_of, pictures):
    image, names = pictures
    teacher = teacher_of(latents="sample")
    with torch.no_grad():
        together = teacher(image[:3], names[:3])
        alone = teacher(image[1:2], names[1:2])
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-4)


def latents_seen(teacher, image, names):
    seen = []
    hook = teacher.backbone.unet.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs))
    with torch.no_grad():
        teacher(image, names)
    hook.remove()
    assert seen[0][1] == 1
    return seen[0][0]


def test_what_the_autoencoder_is_shown_and_what_is_taken_of_it(teacher_of, micro, pictures):
    image, names = pictures[0][:2], pictures[1][:2]
    scale = micro.vae.config.scaling_factor
    with torch.no_grad():
        symmetric, unit = (micro.vae.encode(x).latent_dist for x in (image * 2 - 1, image))
    noise = image_noise(names, 1, (4, 8, 8), seed=0)
    for design, expected in (
        ({}, symmetric.mean),
        ({"input_range": "unit"}, unit.mean),
        ({"latents": "sample"}, symmetric.mean + symmetric.std * noise),
    ):
        seen = latents_seen(teacher_of(**design), image, names)
        torch.testing.assert_close(seen, expected * scale, atol=1e-4, rtol=1e-4)


def test_prompts_can_be_none_or_learnt(teacher_of, micro):
    none = teacher_of(prompts="none")
    assert torch.equal(none.prompts, micro.context("")["encoder_hidden_states"][0])
    assert none.text_adapter is None
    assert "prompts" not in none.parameter_counts()
    assert teacher_of().parameter_counts()["prompts"] == 5 * 64


@pytest.mark.parametrize("tuning", ["frozen", "lora", "full"])
def test_what_is_trained_has_a_gradient_and_the_rest_has_none(teacher_of, pictures, tuning):
    """None behind the last tap either, for which DDP would wait."""
    if tuning == "lora":
        pytest.importorskip("peft")
    image, names = pictures
    teacher = teacher_of(tuning=tuning, layers=["up.*.resnet.0"])
    for name, parameter in teacher.named_parameters():
        if "lora_B" in name:  # begins at zero, behind which nothing has a gradient
            torch.nn.init.normal_(parameter)
    teacher(image[:2], names[:2]).square().sum().backward()
    named = dict(teacher.named_parameters())
    assert {n for n, p in named.items() if p.grad is not None} == {
        n for n, p in named.items() if p.requires_grad
    }
    unet = {n.removeprefix("backbone.unet.") for n, p in named.items() if p.requires_grad}
    unet &= {n for n, _ in teacher.backbone.unet.named_parameters()}
    assert bool(unet) == (tuning != "frozen")
    assert all("lora_" in name for name in unet) == (tuning != "full")
    assert not any(n.startswith(("conv_out", "up_blocks.3.resnets.1")) for n in unet)
    assert not any(p.requires_grad for p in teacher.backbone.vae.parameters())
    assert not any(p.requires_grad for p in teacher.backbone.text_encoder.parameters())


@pytest.mark.parametrize(
    "layers",
    [["down.0.*"], ["down.1.attn.0"], ["down.*"], ["mid.*"]],
    ids=str,
)
def test_no_adapter_waits_for_a_gradient_that_does_not_come(teacher_of, pictures, layers):
    image, names = pictures
    teacher = teacher_of(tuning="frozen", layers=layers)
    teacher(image[:2], names[:2]).square().sum().backward()
    named = dict(teacher.named_parameters())
    assert {n for n, p in named.items() if p.grad is not None} == {
        n for n, p in named.items() if p.requires_grad
    }


@pytest.mark.parametrize("layers", [None, ["up.3.resnet.0"]])
def test_checkpointing_changes_no_gradient(micro_folder, pictures, layers):
    from latentiqa.backbones.stable_diffusion import StableDiffusion

    gradients, kept = [], []
    for checkpointing in (False, True):
        backbone = StableDiffusion.from_folder(micro_folder)
        design = Design(
            *("learnt", 5), side=8, width=16, layers=layers, checkpointing=checkpointing
        )
        teacher = Teacher(backbone, design)
        with bytes_kept() as counted:
            scores = teacher(pictures[0][:2], pictures[1][:2]).sum()
        kept.append(sum(counted))
        scores.backward()
        gradients.append({n: p.grad for n, p in teacher.named_parameters() if p.grad is not None})
    assert kept[1] < 0.8 * kept[0]
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@pytest.mark.parametrize("tuning", ["frozen", "lora", "full"])
def test_trained_weights_make_the_same_teacher_again(micro_folder, pictures, tuning):
    from latentiqa.backbones.stable_diffusion import StableDiffusion

    if tuning == "lora":
        pytest.importorskip("peft")
    image, names = pictures[0][:2], pictures[1][:2]
    design = Design(tuning=tuning, side=8, width=16, narrowing=(4,))
    teacher = Teacher(StableDiffusion.from_folder(micro_folder), design)
    with torch.no_grad():
        for parameter in teacher.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
        expected = teacher(image, names)
        state = teacher.trained_state()
        known = state["prompts"]
        again = Teacher(StableDiffusion.from_folder(micro_folder), design, seed=1, prompts=known)
        assert not torch.allclose(again(image, names), expected)
        again.load_trained(state)
        assert torch.equal(again(image, names), expected)
    assert not any("vae" in key or "text_encoder" in key for key in state)
    assert any("unet" in key for key in state) == (tuning != "frozen")
    with pytest.raises(ConfigError, match=r"do not fit the design: text_adapter"):
        again.load_trained({k: v for k, v in state.items() if "text_adapter" not in k})


def test_the_gradient_reaches_the_picture(teacher_of, pictures):
    image = pictures[0][:1].requires_grad_()
    teacher_of(tuning="frozen")(image, ["a.png"]).sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


def test_it_takes_pictures_of_any_size_that_the_unet_halves(teacher_of):
    teacher = teacher_of()
    with torch.no_grad():
        assert teacher.quality(torch.rand(1, 3, 64, 128), ["a.png"]).shape == (1, 4, 8, 8)
        with pytest.raises(ConfigError, match=r"pictures of 96 x 64 pixels"):
            teacher(torch.rand(1, 3, 64, 96), ["a.png"])


def test_the_score_is_float32_under_autocast(teacher_of, pictures):
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        scores = teacher_of()(pictures[0], pictures[1])
    assert scores.dtype == torch.float32
    assert len(scores.unique()) == len(scores)


def test_the_embedded_model_of_three_levels_can_be_a_teacher(pictures):
    from latentiqa.backbones.source import BackboneSource

    backbone = BackboneSource("tiny", "tiny", resolution=64).load()
    teacher = Teacher(backbone, Design("learnt", 5, side=8, width=16, tuning="frozen"))
    assert teacher.taps == ["up.0.upsample.0", "up.1.upsample.0", "up.2.resnet.1"]
    with torch.no_grad():
        assert teacher(pictures[0][:2], pictures[1][:2]).isfinite().all()
    sampled = Teacher(backbone, Design("learnt", 5, side=8, width=16, latents="sample"))
    with pytest.raises(ConfigError, match="no posterior to draw from"):
        sampled(pictures[0][:2], pictures[1][:2])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"prompts": "many"}, "prompts='many': expected one of coarse, fine, learnt, none"),
        ({"tuning": "half"}, "tuning='half': expected one of"),
        ({"latents": "mean"}, "latents='mean': expected one of mode, sample"),
        ({"input_range": "x"}, "input_range='x': expected one of"),
        ({"image_adapter": "yes"}, "image_adapter='yes': expected true or false"),
        ({"learnt": 0}, "learnt=0: expected an integer >= 1"),
        ({"width": 8}, "width=8: expected an integer >= 16"),
        ({"narrowing": []}, r"narrowing=\[\]: expected one or more"),
        ({"layers": ["xx"]}, "'xx' names no stage"),
    ],
    ids=str,
)
def test_wrong_designs_are_explained(wrong, told):
    with pytest.raises(ConfigError, match=told):
        Design(**wrong)


def test_what_cannot_be_trained_is_refused(micro, tmp_path):
    from pipelines import write_pipeline

    from latentiqa.backbones.source import BackboneSource

    write_pipeline("ldm", tmp_path / "ldm")
    other = BackboneSource("ldm", str(tmp_path / "ldm"), resolution=64).load()
    with pytest.raises(ConfigError, match="expected a Stable Diffusion 1 or 2"):
        Teacher(other, Design())
    micro.unet.to(torch.bfloat16)
    with pytest.raises(ConfigError, match=r"set backbone\.dtype=float32"):
        Teacher(micro, Design())
