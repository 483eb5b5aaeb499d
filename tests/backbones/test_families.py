"""Each family from a folder in diffusers' format, against its own pipeline."""

from __future__ import annotations

import copy
import functools
import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import on_csv, places, succeed
from miniatures import write_csv
from pipelines import FAMILIES, write_pipeline
from safetensors.torch import load_file

from latentiqa.backbones.process import Rates
from latentiqa.backbones.source import BackboneSource
from latentiqa.errors import ConfigError, LatentiqaError
from latentiqa.guidance import PMG, StepSize
from latentiqa.trajectory import Timesteps, ddim_step, trajectory, tweedie

CHANNELS = {"ldm": 3}
SIDE = {"ldm": 16}
LAYERS = {"sdxl": "up.*.resnet.*", "ldm": "up.*.resnet.*"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A family's folder and its pipeline, made once."""
    root = tmp_path_factory.mktemp("families")

    @functools.cache
    def write(family: str):
        return root / family, write_pipeline(family, root / family)

    return write


@pytest.fixture(scope="module")
def load(written):
    """A family's backbone, loaded once."""
    return functools.cache(lambda family: BackboneSource(family, str(written(family)[0])).load())


def latents(family: str, batch: int = 2, wider: int = 0) -> torch.Tensor:
    """Of pictures of 64 pixels, or wider by so many latents."""
    side = SIDE.get(family, 8)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, CHANNELS.get(family, 4), side, side + wider, generator=generator)


@torch.no_grad()
def sampled(model: Any, z: torch.Tensor, context: Any, timesteps: list[int], end: Rates):
    """Down the timesteps and from the last one to ``end``, as this house steps."""
    path = [*((t, model.rates(t)) for t in timesteps), (-1, end)]
    for (t, rates), (_, rates_prev) in pairwise(path):
        noise, _ = model.predict_noise(z, t, context)
        z = ddim_step(tweedie(z, noise, rates), noise, rates_prev)
    return z


@pytest.mark.parametrize("family", ["sdxl", "pixart", "pixart_sigma"])
def test_two_steps_are_those_of_the_familys_pipeline(family, written, load):
    _, pipe = written(family)
    model, z = load(family), latents(family, wider=4)
    own = {"use_resolution_binning": False} if "pixart" in family else {}
    expected = pipe(
        ["a photo"] * 2, latents=z, num_inference_steps=2, guidance_scale=1.0,
        height=64, width=96, output_type="latent", **own,
    ).images  # fmt: skip
    timesteps = pipe.scheduler.timesteps.tolist()
    # DDIM of these configs ends in the noise of timestep 0, or in none.
    last = float(pipe.scheduler.final_alpha_cumprod)
    end = Rates(last**0.5, (1 - last) ** 0.5)
    found = sampled(model, z, model.context("a photo", 2), timesteps, end)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    other = sampled(model, z, model.context("zzz", 2), timesteps, end)
    assert not torch.allclose(other, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["sd3", "flux", "flux_schnell"])
def test_two_steps_of_a_flow_are_eulers_steps_of_its_pipeline(family, written, load):
    _, pipe = written(family)
    model, z = load(family), latents(family, wider=4)
    start = pipe._pack_latents(z, 2, 4, 8, 12) if "flux" in family else z
    own = {"max_sequence_length": 256} if family == "flux_schnell" else {}
    expected = pipe(
        ["a photo"] * 2, latents=start, sigmas=[0.9, 0.4], num_inference_steps=2,
        guidance_scale=1.0, height=64, width=96, output_type="latent", **own,
    ).images  # fmt: skip
    if "flux" in family:
        expected = pipe._unpack_latents(expected, 64, 96, 8)
    assert pipe.scheduler.timesteps.tolist() == pytest.approx([900, 400])
    found = sampled(model, z, model.context("a photo", 2), [900, 400], Rates(1, 0))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    other = sampled(model, z, model.context("zzz", 2), [900, 400], Rates(1, 0))
    assert not torch.allclose(other, expected, atol=1e-4, rtol=1e-4)


def test_unconditional_steps_and_decoding_are_those_of_the_pipeline(written, load):
    _, pipe = written("ldm")
    model = load("ldm")
    expected = pipe(
        batch_size=2, generator=torch.Generator().manual_seed(0), num_inference_steps=2,
        output_type="np",
    ).images  # fmt: skip
    last = float(pipe.scheduler.final_alpha_cumprod)
    end = Rates(last**0.5, (1 - last) ** 0.5)
    timesteps = pipe.scheduler.timesteps.tolist()
    z = sampled(model, latents("ldm"), model.context("", 2), timesteps, end)
    with torch.no_grad():
        found = model.decode(z).clamp(0, 1).permute(0, 2, 3, 1)
    torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-4, rtol=1e-4)
    with pytest.raises(ConfigError, match="is unconditional; expected an empty prompt"):
        model.context("a photo")


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_a_flows_velocity_means_noise_and_estimate(family, load):
    """``z_0 = z_t - s v``, ``e = z_t + (1 - s) v``, and Euler's step is ``z_t + (s' - s) v``."""
    model, z = load(family), latents(family)
    with torch.no_grad():
        context = model.context("", 2)
        v = model.denoise(z, 300, context)
        noise, _ = model.predict_noise(z, 300, context)
    z0 = tweedie(z, noise, model.rates(300))
    torch.testing.assert_close(noise, z + 0.7 * v)
    torch.testing.assert_close(z0, z - 0.3 * v, atol=1e-5, rtol=1e-5)
    stepped = ddim_step(z0, noise, model.rates(100))
    torch.testing.assert_close(stepped, z - 0.2 * v, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_to_latents_and_back_with_a_gradient(family, load, pictures):
    model, image = load(family), pictures[0][:2]
    with torch.no_grad():
        z = model.encode(image)
    assert z.shape == latents(family).shape
    decoded = model.decode(z.requires_grad_())
    assert decoded.shape == image.shape
    (gradient,) = torch.autograd.grad((decoded - image).square().sum(), z)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_latents_are_scaled_and_shifted_as_the_autoencoder_says(written, load, pictures):
    vae = written("sd3")[1].vae
    with torch.no_grad():
        mode = vae.encode(pictures[0] * 2 - 1).latent_dist.mode()
        z = load("sd3").encode(pictures[0])
    torch.testing.assert_close(z, (mode - 0.1) * vae.config.scaling_factor)


@pytest.mark.parametrize("family", FAMILIES)
def test_maps_have_the_channels_and_the_order_that_is_said(family, load):
    model, z = load(family), latents(family, wider=4)
    addresses = model.expand(["*"])
    with torch.no_grad():
        _, maps = model.predict_noise(z, 50, model.context("", 2), addresses)
    assert list(maps) == addresses  # maps come in the order in which layers ran
    assert {name: x.shape[1] for name, x in maps.items()} == {
        name: model.channels(name) for name in addresses
    }
    if family in LAYERS:
        assert maps["up.0.resnet.0"].shape[-2:] == (z.shape[-2] // 2, z.shape[-1] // 2)
    else:
        assert {x.shape[-2:] for x in maps.values()} == {(4, 6)}
        assert [name for name in addresses if "single" in name] == (
            ["single.0", "single.1"] if family == "flux" else []
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pass_ends_after_the_last_tap_with_the_same_map(family, load):
    model, z = load(family), latents(family)
    known = model.expand(["*"])
    context, last = model.context("", 2), known[len(known) // 2 - 1]
    with torch.no_grad():
        _, full = model.predict_noise(z, 50, context, [last])
        ran: list[str] = []
        hooks = [
            module.register_forward_pre_hook(lambda *_: ran.append("further"))
            for module in (model.denoiser.get_submodule(n) for n in END[family].split())
        ]
        cut = model.maps(z, 50, context, [last])
        for hook in hooks:
            hook.remove()
    assert torch.equal(cut[last], full[last])
    assert ran == []


END = {
    "sdxl": "conv_out", "ldm": "conv_out", "pixart": "transformer_blocks.1 proj_out",
    "sd3": "transformer_blocks.1 proj_out", "flux": "single_transformer_blocks.0 proj_out",
}  # fmt: skip


@pytest.mark.parametrize("family", ["pixart", "sd3", "flux"])
def test_a_map_holds_the_pictures_tokens_where_they_lie(family, load):
    """Latents changed in one corner change the first block's map there the most."""
    model, z = load(family), latents(family, 1, wider=4)
    changed = z.clone()
    changed[..., :2, 10:] += 3  # the patch in the first row and the last column
    with torch.no_grad():
        context = model.context("")
        before, after = (model.maps(x, 50, context, ["block.0"])["block.0"] for x in (z, changed))
    moved = (after - before).square().sum(1).flatten()
    assert moved.argmax() == 5


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_can_be_replaced(family, load):
    model, z = load(family), latents(family)
    context = model.context("", 2)
    if family == "ldm":
        assert context == {}
        return
    learnt = context | {"encoder_hidden_states": context["encoder_hidden_states"] + 1}
    with torch.no_grad():
        told, untold = (model.predict_noise(z, 50, c)[0] for c in (learnt, context))
    assert not torch.allclose(told, untold)


@pytest.mark.parametrize("family", FAMILIES)
def test_sides_are_multiples_of_what_is_said(family, load):
    model = load(family)
    assert model.multiple == {"ldm": 8}.get(family, 16)
    image = torch.zeros(1, 3, 2 * model.multiple, 3 * model.multiple)
    with torch.no_grad():
        z = model.encode(image)
        noise, _ = model.predict_noise(z, 50, model.context(""))
    assert noise.shape == z.shape


@pytest.mark.parametrize("family", FAMILIES)
def test_everything_happens_on_the_models_device(family, load):
    """Tensors of two devices do not go together: on the meta device, where there is no GPU."""
    model = copy.deepcopy(load(family)).to("meta")
    z = latents(family).to("meta")
    # T5 looks at values of its mask, of which there are none on that device.
    context = {name: x.to("meta") for name, x in load(family).context("", 2).items()}
    noise, maps = model.predict_noise(z, 50, context, model.expand(["*"]))
    made = [noise, *maps.values(), model.decode(z), model.encode(model.decode(z))]
    assert {x.device.type for x in made} == {"meta"}


@pytest.mark.parametrize("family", FAMILIES)
def test_lower_precision_gives_results_in_the_inputs_dtype(family, written, pictures):
    model = BackboneSource(family, str(written(family)[0]), dtype="bfloat16").load()
    z = model.encode(pictures[0][:1])
    noise, maps = model.predict_noise(z, 900, model.context(""), model.expand(["*"])[:1])
    assert z.dtype == noise.dtype == model.decode(z).dtype == torch.float32
    assert noise.isfinite().all()
    assert next(iter(maps.values())).dtype == torch.bfloat16


@pytest.mark.parametrize("family", FAMILIES)
def test_lgdm_with_pmg_from_pictures_to_features(family, written, tmp_path):
    layers = [f"layers.patterns=[{LAYERS[family]}]"] if family in LAYERS else ["layers=blocks"]
    psi = "sd" if family in LAYERS else "blocks"
    outcome = succeed(
        "extract", "backbone=folder", f"backbone.source={written(family)[0]}",
        "backbone.resolution=64", *layers, f"perceptual={psi}", "guidance=pmg",
        "timesteps.values=[60,20]", *on_csv(write_csv(tmp_path / "pictures", 2)),
        *places(tmp_path),
    )  # fmt: skip
    [shard] = Path(outcome.out.strip()).rglob("*.safetensors")
    features = load_file(shard)
    assert {name.split("/")[0] for name in features} >= {"60", "20"}
    for name, value in features.items():
        assert value.isfinite().all(), name
        assert not torch.equal(value[0], value[1]), name


@pytest.mark.parametrize("family", FAMILIES)
def test_guidance_moves_the_estimate_towards_the_picture(family, load, pictures):
    """Through the decoder alone, and through the denoiser too."""
    model, (image, names) = load(family), pictures
    for route in ("latent", "score"):
        errors = {}
        for weight in (0.0, 0.3):
            guide = PMG(measurement=StepSize(weight), route=route).bind(image[:2], model)
            seen = []
            steps = trajectory(
                model, model.encode(image[:2]), Timesteps([600, 500, 10]), names=names[:2],
                context=model.context("", 2), taps=model.expand(["*"])[:1],
                guide=lambda step, guide=guide, seen=seen: seen.append(guide(step)) or seen[-1],
                through_unet=route == "score",
            )  # fmt: skip
            assert [t for t, _ in steps] == [600, 500, 10]
            with torch.no_grad():
                errors[weight] = (model.decode(seen[0]) - image[:2]).square().sum().item()
        assert errors[0.3] < errors[0.0]


def test_sd3_without_t5_has_zeros_in_its_place(tmp_path):
    pipe = write_pipeline("sd3", tmp_path / "sd3", with_t5=False)
    model = BackboneSource("sd3", str(tmp_path / "sd3")).load()
    expected, _, pooled, _ = pipe.encode_prompt("a photo", None, None, device="cpu")
    context = model.context("a photo")
    torch.testing.assert_close(context["encoder_hidden_states"], expected)
    torch.testing.assert_close(context["pooled_projections"], pooled)


INDEX = "model_index.json"


def changed_config(folder, copy, part, drop=(), **changes):
    shutil.copytree(folder, copy)
    path = copy / part
    config = json.loads(path.read_text())
    kept = {key: value for key, value in config.items() if key not in drop}
    path.write_text(json.dumps(kept | changes))
    return BackboneSource("x", str(copy))


def test_latents_of_a_vq_autoencoder_without_a_scale_stay_as_they_are(written, tmp_path, pictures):
    """CompVis' folders are older than the key; diffusers would take Stable Diffusion's scale."""
    folder, pipe = written("ldm")
    part, drop = "vqvae/config.json", ["scaling_factor"]
    model = changed_config(folder, tmp_path / "old", part, drop).load()
    with torch.no_grad():
        expected = pipe.vqvae.encode(pictures[0] * 2 - 1).latents
        found = model.encode(pictures[0])
        torch.testing.assert_close(found, expected)
        shown = (pipe.vqvae.decode(expected).sample + 1) / 2
        torch.testing.assert_close(model.decode(found), shown)


def test_what_is_computed_otherwise_is_refused(written, tmp_path):
    folder, _ = written("sdxl")
    part, drop = "scheduler/scheduler_config.json", ["beta_schedule"]
    edm = {"_class_name": "EDMEulerScheduler"}
    source = changed_config(folder, tmp_path / "edm", part, drop, **edm)
    with pytest.raises(ConfigError, match="EDMEulerScheduler names no beta_schedule"):
        source.load()
    means = {"latents_mean": [0.1] * 4, "latents_std": [1.0] * 4}
    source = changed_config(folder, tmp_path / "means", "vae/config.json", **means)
    with pytest.raises(ConfigError, match="latents_mean is set"):
        source.load()


def test_what_a_folder_is_its_index_says(written, tmp_path):
    folder, _ = written("pixart")
    with pytest.raises(LatentiqaError, match=r"pipeline 'SanaPipeline' is not supported; .*Flux"):
        changed_config(folder, tmp_path / "a", INDEX, _class_name="SanaPipeline").load()
    other = ["diffusers", "SD3Transformer2DModel"]
    with pytest.raises(ConfigError, match=r"transformer is SD3.*; expected PixArtTransformer2D"):
        changed_config(folder, tmp_path / "b", INDEX, transformer=other).load()
    with pytest.raises(ConfigError, match=r"text_encoder is absent; expected T5EncoderModel"):
        changed_config(folder, tmp_path / "c", INDEX, text_encoder=[None, None]).load()
    (tmp_path / "c" / "model_index.json").write_text("{")
    with pytest.raises(LatentiqaError, match="could not be read as diffusers' pipeline index"):
        BackboneSource("x", str(tmp_path / "c")).load()
    (tmp_path / "c" / "model_index.json").unlink()
    with pytest.raises(LatentiqaError, match=r"model_index.json not found; expected diffusers'"):
        BackboneSource("x", str(tmp_path / "c")).load()


def test_pixart_by_the_name_that_older_folders_have_for_its_class(written, load, tmp_path):
    old = ["diffusers", "Transformer2DModel"]
    source = changed_config(written("pixart")[0], tmp_path / "old", INDEX, transformer=old)
    z, context = latents("pixart"), load("pixart").context("", 2)
    with torch.no_grad():
        found, expected = (m.denoise(z, 50, context) for m in (source.load(), load("pixart")))
    assert torch.equal(found, expected)


def test_weights_in_shards_are_found_and_missing_ones_named(written, load, tmp_path):
    folder = tmp_path / "sharded"
    pipe = write_pipeline("sd3", folder)
    shutil.rmtree(folder / "transformer")
    pipe.transformer.save_pretrained(folder / "transformer", max_shard_size="20KB")
    source = BackboneSource("x", str(folder))
    shards = sorted((folder / "transformer").glob("*-of-*.safetensors"))
    assert len(shards) > 1
    z, context = latents("sd3"), load("sd3").context("", 2)
    with torch.no_grad():
        found, expected = (m.denoise(z, 50, context) for m in (source.load(), load("sd3")))
    assert torch.equal(found, expected)
    shards[1].unlink()
    assert not source.is_present()
    with pytest.raises(LatentiqaError, match=f"transformer/{shards[1].name} not found"):
        source.load()


def test_layers_of_a_u_net_on_a_transformer_name_what_there_is(load):
    with pytest.raises(ConfigError, match=r"'up.\*' matches no layer of this Flux.*block.0, .*sin"):
        load("flux").expand(["up.*"])
