from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from pipelines import write_pipeline

from latentiqa.backbones.source import BackboneSource
from latentiqa.backbones.stable_diffusion import StableDiffusion
from latentiqa.errors import ConfigError
from latentiqa.genziqa.attention import logits, read_attention
from latentiqa.genziqa.explain import heat_maps
from latentiqa.genziqa.prompts import encode
from latentiqa.genziqa.rater import Design, PromptRater
from latentiqa.genziqa.score import SCORES, Seen, bias, contrast, loss, paper
from latentiqa.noise import generator_of, image_noise

ZERO_SHOT = {"context": 0, "tuning": "none"}


def at_timestep(backbone, image, names, t, prompt):
    """Logits by layer and the error of the noise, of one prompt, in diffusers' own terms."""
    text = backbone.context(prompt, len(image))["encoder_hidden_states"]
    z0 = backbone.encode(image)
    noise = image_noise(names, t, z0.shape[1:], seed=0)
    z_t = backbone.scheduler.add_noise(z0, noise, torch.tensor([t]))
    layers = ["down.0.attn.0", "down.1.attn.0", "down.2.attn.0", "mid.attn.0"]
    layers += [f"up.{i}.attn.{j}" for i in (1, 2, 3) for j in (0, 1)]
    output, found = read_attention(
        backbone.unet,
        layers,
        lambda: backbone.unet(z_t, t, text).sample,
        logits,
        need_output=True,
    )
    assert output is not None
    return found, output - noise


@torch.no_grad()
@pytest.mark.parametrize("score", SCORES)
def test_scores_are_the_paper_s_formulas(score, rater_of, attentive, pictures):
    """S_l by a plain log-sum-exp over whole logits; b by plain norms; the mean over timesteps."""
    image, names = pictures[0][:2], pictures[1][:2]
    rater = rater_of(**ZERO_SHOT, score=score, timesteps=[9, 45])
    expected = []
    for t in (45, 9):
        good, off_good = at_timestep(attentive, image, names, t, "Good Photo.")
        bad, off_bad = at_timestep(attentive, image, names, t, "Bad Photo.")
        s_good, s_bad = (
            torch.stack([(0.14 * a).exp().sum(2).log().mean((1, 2)) / 0.14 for a in found.values()])
            for found in (good, bad)
        )
        b = off_good.flatten(1).norm(dim=1) - off_bad.flatten(1).norm(dim=1)
        mse = off_bad.square().mean((1, 2, 3)) - off_good.square().mean((1, 2, 3))
        mean = (s_good + s_bad).mean(0) / 2
        share = s_good.exp() / (s_good.exp() + s_bad.exp())
        found = {"paper": mean + b, "attention": mean, "bias": -b, "loss": mse}
        expected.append((found | {"contrast": 100 * share.mean(0)})[score])
    together = torch.stack(expected).mean(0)
    assert (together[0] - together[1]).abs() > 1e-6
    torch.testing.assert_close(100 * rater(image, names), together, atol=2e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"walk": "ddim", "eta": 1.0}, {"latents": "sample"}])
def test_a_score_is_of_the_picture_alone(changes, rater_of, pictures):
    image, names = pictures
    rater = rater_of(**changes)
    together = rater(image[:3], names[:3])
    alone = rater(image[1:2], names[1:2])
    torch.testing.assert_close(together[1:2], alone, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(rater(image[1:2], names[:1]), alone, atol=1e-7)


@torch.no_grad()
def test_good_is_up(attentive):
    """Every contrast rises with what speaks for the good prompt."""
    noise, off = torch.zeros(1, 4, 2, 2), torch.ones(1, 4, 2, 2)
    pooled = torch.tensor([[[60.0], [50.0]]])
    seen, weights = Seen(pooled, noise, torch.stack([off, 2 * off])), torch.ones(1)
    turned = Seen(pooled.flip(1), noise, torch.stack([2 * off, off]))
    for score in (bias, loss, contrast):
        assert score(seen, weights) > score(turned, weights)
    assert paper(seen, weights).item() == pytest.approx(55 + 4 - 8)  # the paper's own sign


@torch.no_grad()
def test_what_is_averaged_over(attentive, pictures):
    image, names = pictures[0][:2], pictures[1][:2]

    def score(**changes):
        design = Design(**ZERO_SHOT | {"timesteps": [9], "score": "contrast"} | changes)
        return PromptRater(attentive, design)(image, names)

    plain = score()
    assert not torch.allclose(score(tokens="text"), plain)
    assert not torch.allclose(score(layers=["up.*"]), plain)
    assert not torch.allclose(score(sharpness=1.4), plain)
    assert not torch.allclose(score(pair=["a sharp photo", "a blurry photo"]), plain)
    assert not torch.allclose(score(input_range="clip"), plain)
    torch.testing.assert_close(score(layer_weights="learnt"), plain)
    torch.testing.assert_close(1 - score(pair=["Bad Photo.", "Good Photo."]), plain)


@torch.no_grad()
def test_a_walk_takes_the_steps_of_diffusers_schedulers(attentive, pictures):
    """Deterministic DDIM, and Euler's in units of noise over signal: both are the same walk."""
    image, names = pictures[0][:2], pictures[1][:2]
    design = Design(**ZERO_SHOT, walk="ddim", timesteps=[80, 60, 40], score="loss")
    rater = PromptRater(attentive, design)
    seen = []
    hook = attentive.unet.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0][:2]))
    encoded = encode(attentive, design.pair)
    z0 = attentive.encode(image)
    looks = list(rater.looks(z0, names, encoded.context, None, need_noise=True))
    hook.remove()
    ddim = DDIMScheduler.from_config(attentive.scheduler.config, timestep_spacing="leading")
    ddim.set_timesteps(50)  # steps of 20
    euler = EulerDiscreteScheduler.from_config(attentive.scheduler.config)
    euler.set_timesteps(timesteps=[80, 60, 40])
    for (t, look, noise), (t_next, _, _), z_t, z_next in zip(
        looks, looks[1:], seen, seen[1:], strict=False
    ):
        e = look.predicted.mean(dim=0)
        torch.testing.assert_close(ddim.step(e, t, z_t).prev_sample, z_next, atol=1e-5, rtol=1e-5)
        signal, signal_next = ddim.alphas_cumprod[t] ** 0.5, ddim.alphas_cumprod[t_next] ** 0.5
        euler.scale_model_input(z_t, t)
        by_euler = euler.step(e, torch.tensor(float(t)), z_t / signal).prev_sample
        torch.testing.assert_close(by_euler * signal_next, z_next, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(signal * z0 + (1 - signal**2) ** 0.5 * noise, z_t)
    assert [t for t, _, _ in looks] == [80, 60, 40]


ATTENTIONS = [
    *(f"down_blocks.{i}.attentions.0" for i in (0, 1, 2)),
    "mid_block.attentions.0",
    *(f"up_blocks.{i}.attentions.{j}" for i in (1, 2, 3) for j in (0, 1)),
]
PROJECTIONS = [
    f"{attention}.transformer_blocks.0.attn2.{projection}"
    for attention in ATTENTIONS
    for projection in ("to_q", "to_k", "to_v", "to_out.0")
]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"tuning": "lora"},
            {"context.vectors"}
            | {
                f"backbone.unet.{name}.lora_{side}.default.weight"
                for name in PROJECTIONS
                for side in "AB"
            },
        ),
        (
            {"tuning": "projections", "context": 0},
            {f"backbone.unet.{name}.weight" for name in PROJECTIONS}
            | {f"backbone.unet.{name}.bias" for name in PROJECTIONS if "to_out" in name},
        ),
        ({"tuning": "none"}, {"context.vectors"}),
        (
            {"tuning": "none", "context": 0, "layer_weights": "learnt"},
            {"layer_logits"},
        ),
        (
            # Two whole attentions, then the queries and keys of the one where the pass ends.
            {"tuning": "lora", "score": "contrast", "layers": ["down.2.*"]},
            {"context.vectors"}
            | {
                f"backbone.unet.{name}.lora_{side}.default.weight"
                for name in PROJECTIONS[:10]
                for side in "AB"
            },
        ),
    ],
    ids=["lora", "projections", "context", "layers", "cut"],
)
def test_what_is_trained_has_a_gradient_and_nothing_else_has(rater_of, pictures, changes, expected):
    image, names = pictures
    rater = rater_of(**changes)
    for name, parameter in rater.named_parameters():
        if "lora_B" in name:  # begins at zero, behind which nothing has a gradient
            torch.nn.init.normal_(parameter)
    rater.training_scores(image[:2], names[:2], step=3).square().sum().backward()
    with_gradient = {n for n, p in rater.named_parameters() if p.grad is not None}
    assert with_gradient == {n for n, p in rater.named_parameters() if p.requires_grad}
    assert with_gradient == expected
    assert all(p.grad.abs().sum() > 0 for p in rater.parameters() if p.requires_grad)
    assert set(rater.trained_state()) == expected
    assert sum(rater.parameter_counts().values()) == sum(
        p.numel() for p in rater.parameters() if p.requires_grad
    )


def test_lora_begins_where_the_backbone_is(micro_folder, attentive, rater_of, pictures):
    image, names = pictures[0][:2], pictures[1][:2]
    with torch.no_grad():
        plain = rater_of(**ZERO_SHOT)(image, names)
        torch.testing.assert_close(rater_of(context=0)(image, names), plain)


@pytest.mark.parametrize("tuning", ["lora", "projections", "none"])
def test_trained_weights_make_the_same_rater_again(micro_folder, pictures, tuning):
    image, names = pictures[0][:2], pictures[1][:2]
    design = Design(tuning=tuning, context=4, layer_weights="learnt", timesteps=[9])
    rater = PromptRater(StableDiffusion.from_folder(micro_folder), design)
    with torch.no_grad():
        for parameter in rater.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn_like(parameter)
        expected = rater(image, names)
        again = PromptRater(StableDiffusion.from_folder(micro_folder), design)
        assert not torch.allclose(again(image, names), expected)
        again.load_trained(rater.trained_state())
        assert torch.equal(again(image, names), expected)


def test_training_draws_timesteps_below_a_hundred_and_fresh_noise(rater_of, pictures, monkeypatch):
    image, names = pictures[0][:2], pictures[1][:2]
    rater, asked = rater_of(**ZERO_SHOT), []
    look = rater.look

    def spied(z_t, t, *args, **kwargs):
        asked.append((t, z_t))
        return look(z_t, t, *args, **kwargs)

    monkeypatch.setattr(rater, "look", spied)
    with torch.no_grad():
        scores = [rater.training_scores(image, names, step) for step in (0, 1, 2, 0)]
    timesteps = [t for t, _ in asked]
    generator = generator_of(0, "step 1", "timestep")
    assert timesteps[1] == torch.randint(100, (), generator=generator)
    assert len(set(timesteps)) == 3
    assert torch.equal(scores[0], scores[3])  # a resumed training draws the same
    assert torch.equal(asked[0][1], asked[3][1])
    assert max(timesteps) < 100
    asked.clear()
    rater.design = replace(rater.design, train_below=1)
    with torch.no_grad():
        for step in (0, 1):
            rater.training_scores(image, names, step)
    (first, one), (second, another) = asked
    assert first == second == 0
    assert not torch.allclose(one, another)  # the noise is a step's own


@torch.no_grad()
def test_what_reads_attention_alone_ends_after_the_last_layer_that_is_read(attentive, pictures):
    """Though the score itself needs the noise, which the whole U-Net predicts."""
    design = Design(**ZERO_SHOT, layers=["mid.*"], attributes={"sharp": ["Sharp.", "Blurry."]})
    rater, ran = PromptRater(attentive, design), []
    hook = attentive.unet.conv_out.register_forward_hook(lambda *_: ran.append(1))
    rater.attributes(pictures[0][:1], ["a.png"])
    heat_maps(rater, pictures[0][:1], "a.png")
    assert not ran
    rater(pictures[0][:1], ["a.png"])
    assert len(ran) == len(design.timesteps)
    hook.remove()


@torch.no_grad()
def test_fixed_prompts_that_do_not_fit_are_refused(attentive, rater_of, pictures):
    long = "Photo. " * attentive.tokenizer.model_max_length
    rater = rater_of(**ZERO_SHOT, pair=[long + "Good.", long + "Bad."])
    with pytest.raises(ConfigError, match=r"tokens, but the text encoder takes \d+; use fewer"):
        rater(pictures[0][:1], ["a.png"])


def test_the_gradient_reaches_the_picture(rater_of, pictures):
    image = pictures[0][:1].requires_grad_()
    rater_of(**ZERO_SHOT)(image, ["a.png"]).sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


@torch.no_grad()
@pytest.mark.parametrize("family", ["sdxl", "pixart", "sd3", "flux", "ldm"])
def test_zero_shot_scores_of_other_families(family, pictures, tmp_path):
    """The noise of any that takes a prompt; attention of those that attend to it alone."""
    write_pipeline(family, tmp_path / family)
    backbone = BackboneSource(family, str(tmp_path / family), resolution=64).load()
    image, names = pictures[0][:2], pictures[1][:2]
    by_noise = PromptRater(backbone, Design(**ZERO_SHOT, timesteps=[45], score="loss"))
    if family == "ldm":
        with pytest.raises(ConfigError, match="is unconditional"):
            by_noise(image, names)
        return
    assert by_noise(image, names).isfinite().all()
    design = Design(**ZERO_SHOT, timesteps=[45], score="contrast")
    if family in ("sd3", "flux"):
        with pytest.raises(ConfigError, match="has no attention to the prompt alone"):
            PromptRater(backbone, design)
    else:
        score = PromptRater(backbone, design)(image, names)
        assert ((score > 0) & (score < 1) & (score != 0.5)).all()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"score": "x"}, "score='x': expected one of paper, attention, contrast"),
        ({"pair": ["Good"]}, "expected two prompts"),
        ({"pair": "ab"}, "pair='ab': expected two prompts"),
        ({"attributes": {"blur": ["a", "a"]}}, r"attributes\.blur=\['a', 'a'\]: expected two"),
        ({"context": -1}, "context=-1: expected an integer >= 0"),
        ({"context_position": "x"}, "expected one of front, middle, end"),
        ({"layers": ["xx"]}, "'xx' names no stage"),
        ({"timesteps": [9, 9]}, r"timesteps=\[9, 9\]: expected each once"),
        ({"timesteps": [1000]}, r"^timesteps=\[1000\]: expected one or more integers in 0..999"),
        ({"eta": 2}, r"^eta=2: expected a value in \[0, 1\]"),
        ({"attributes": {"score": ["A.", "B."]}}, "a table of scores has its own score"),
        ({"train_below": 1001}, "expected at most 1000"),
        ({"sharpness": 0.0}, r"sharpness=0\.0: expected a positive number"),
        ({"score": "loss", "layer_weights": "learnt"}, "which reads no layer"),
        ({"tuning": "full"}, "tuning='full': expected one of lora, projections, none"),
    ],
    ids=str,
)
def test_wrong_designs_are_explained(wrong, told):
    with pytest.raises(ConfigError, match=told):
        Design(**wrong)


def test_what_cannot_be_trained_is_refused(micro):
    micro.unet.to(torch.bfloat16)
    with pytest.raises(ConfigError, match=r"set backbone\.dtype=float32"):
        PromptRater(micro, Design())
