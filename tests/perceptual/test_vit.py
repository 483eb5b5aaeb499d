from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file, save_file
from skimage import data
from transformers import CLIPVisionModelWithProjection, Dinov2Model

from latentiqa.commands.launch import build
from latentiqa.commands.search_path import config_folder
from latentiqa.errors import ConfigError, LatentiqaError
from latentiqa.perceptual.preprocessing import Preprocessing, half
from latentiqa.perceptual.vit import CLIPFeatures, DINOv2Features, VisionTransformer
from latentiqa.recipe import recipe_of

try:  # transformers 5
    from transformers.models.bit.image_processing_pil_bit import (
        BitImageProcessorPil as BitProcessor,
    )
    from transformers.models.clip.image_processing_pil_clip import (
        CLIPImageProcessorPil as CLIPProcessor,
    )
except ImportError:
    from transformers import BitImageProcessor as BitProcessor
    from transformers import CLIPImageProcessor as CLIPProcessor

COMMIT = "0123456789abcdef0123456789abcdef01234567"
KINDS = {"clip": CLIPFeatures, "dinov2": DINOv2Features}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def folder(kind, weights_of) -> Path:
    return weights_of(kind)


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """A photo of low contrast, (H, W, 3) 8 bits: no cubic overshoots the range."""
    return (64 + data.astronaut()[50:410, 100:341] * 0.5).astype(np.uint8)


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.tensor(pixels).permute(2, 0, 1)[None] / 255


@pytest.mark.parametrize("told", [{}, {"size": 224, "crop_size": 224}, {"resample": 2}])
def test_preprocessing_is_that_of_transformers(kind, folder, photo, tmp_path, told):
    config = json.loads((folder / "preprocessor_config.json").read_text()) | told
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(config))
    found = Preprocessing.from_file(path)(as_tensor(photo))
    processor = (CLIPProcessor if kind == "clip" else BitProcessor).from_dict(config)
    expected = processor(Image.fromarray(photo), return_tensors="pt")["pixel_values"]
    difference = (found - expected).abs() * min(config["image_std"]) * 255
    # Pillow rounds to 8 bits after rows and after columns.
    assert difference.max() < 1.6
    assert difference.mean() < 0.4


def test_half_size_is_that_of_pillow(photo):
    height, width = photo.shape[:2]
    expected = np.asarray(Image.fromarray(photo).resize((width // 2, height // 2)))
    difference = (half(as_tensor(photo)) - as_tensor(expected)).abs() * 255
    assert difference.max() < 1.6


def test_layers_are_those_of_transformers(kind, folder, pictures):
    image = pictures[0][:2]
    found = VisionTransformer(KINDS[kind].family, folder)
    if kind == "clip":
        net = CLIPVisionModelWithProjection.from_pretrained(folder)
        blocks = net.vision_model.encoder.layers
    else:
        net = Dinov2Model.from_pretrained(folder)
        blocks = net.encoder.layer
    outputs = []
    for block in blocks:
        block.register_forward_hook(
            lambda *call: outputs.append(call[2][0] if isinstance(call[2], tuple) else call[2])
        )
    with torch.no_grad():
        out = net.eval()(found.preprocess(image))
    embedding = out.image_embeds if kind == "clip" else out.last_hidden_state[:, 0]
    layers = found(image)
    assert list(layers) == ["block.0", "block.1", "embedding"]
    for own, other in zip(layers.values(), [*outputs, embedding], strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)


def test_maps_have_the_patches_in_their_places(kind, folder):
    network = VisionTransformer(KINDS[kind].family, folder, ["block.1"])
    side = network.preprocess(torch.rand(1, 3, 64, 64)).shape[-1] // network.patch
    tokens = torch.arange(1.0 + side * side).view(1, -1, 1).expand(1, -1, 5)
    network.forward = lambda image: {"block.1": tokens}
    maps = network.maps(torch.rand(1, 3, 64, 64))["block.1"]
    expected = torch.arange(1.0, 1 + side * side).view(side, side)
    assert torch.equal(maps, expected.expand(1, 5, side, side))


def test_blocks_after_the_last_wanted_one_are_not_loaded(kind, folder, pictures):
    family, image = KINDS[kind].family, pictures[0][:1]
    short, whole = (VisionTransformer(family, folder, [x]) for x in ("block.0", "*"))
    assert sum(p.numel() for p in short.parameters()) < sum(p.numel() for p in whole.parameters())
    torch.testing.assert_close(short(image)["block.0"], whole(image)["block.0"])


def test_tokens_have_length_1_and_gradients_reach_the_picture(kind, folder, pictures):
    psi = KINDS[kind](str(folder), layers=["block.*", "embedding"])
    random_state = torch.get_rng_state()
    with torch.inference_mode():
        psi(pictures[0][:2])
    assert torch.equal(torch.get_rng_state(), random_state)
    image = pictures[0][:2].clone().requires_grad_()
    features = psi(image)
    for feature in features:
        torch.testing.assert_close(feature.flatten(1).square().sum(1), torch.ones(2))
    sum(feature[..., :5].sum() for feature in features).backward()
    assert image.grad.isfinite().all()
    assert (image.grad.abs().sum(dim=(1, 2, 3)) > 0).all()


def test_statistics_are_pooled_patches_and_the_embedding(kind, folder, pictures):
    psi = KINDS[kind](str(folder), layers=["block.1", "embedding"])
    image = pictures[0][:2]
    found = psi.statistics(image, "mean_std")
    assert {name: value.shape[1] for name, value in found.items()} == psi.widths("mean_std")
    assert psi.widths("mean_std")["embedding"] == {"clip": 16, "dinov2": 32}[kind]
    layers = VisionTransformer(psi.family, folder)(image)
    torch.testing.assert_close(found["block.1/mean"], layers["block.1"][:, 1:].mean(1))
    torch.testing.assert_close(found["embedding"], layers["embedding"])


def test_another_size_has_more_patches(kind, folder):
    patch = {"clip": 8, "dinov2": 14}[kind]
    psi = KINDS[kind](str(folder), layers="block.1", size=7 * patch)
    [tokens] = psi(torch.rand(1, 3, 64, 100))
    assert tokens.shape == (1, 1 + 49, 32)
    with pytest.raises(ConfigError, match=rf"size=20: expected a multiple .* {patch} pixels"):
        KINDS[kind](str(folder), size=20)


def test_the_recipe_knows_the_weights_not_the_place(kind, folder, copy):
    psi = KINDS[kind](str(folder))
    described = {"layers": ["block.*"], "size": None, "weights": psi.weights}
    assert recipe_of(psi) == {"class": type(psi).__name__} | described
    assert psi == KINDS[kind](str(copy), layers="block.*")
    assert hash(psi) == hash(KINDS[kind](str(copy)))
    weights = load_file(copy / "model.safetensors")
    next(iter(weights.values())).add_(1)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert psi != KINDS[kind](str(copy))


def test_a_hub_id_is_loaded_from_the_cache_and_known_by_its_commit(
    kind, folder, tmp_path, monkeypatch, pictures
):
    hub = tmp_path / "hub"
    shutil.copytree(folder, hub / "models--owner--model" / "snapshots" / COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    psi = KINDS[kind]("owner/model", COMMIT)
    assert psi.weights == f"owner/model@{COMMIT}"
    for own, other in zip(
        psi(pictures[0][:1]), KINDS[kind](str(folder))(pictures[0][:1]), strict=True
    ):
        assert torch.equal(own, other)
    with pytest.raises(ConfigError, match=r"block.0 to block.1, embedding"):
        KINDS[kind]("owner/model", COMMIT, layers=["block.2"])


def test_a_download_is_said_with_its_size_and_a_failing_one_tells_the_way_out(
    kind, caplog, monkeypatch
):
    # A command that ran before has taken the log into its own hands.
    monkeypatch.setattr(logging.getLogger("latentiqa"), "propagate", True)
    psi = KINDS[kind]("owner/absent", COMMIT, download_gb=1.7)
    with pytest.raises(
        LatentiqaError, match=r"owner/absent .* could not be downloaded.* folder as"
    ):
        psi.widths()
    assert "owner/absent" in caplog.text
    assert "about 1.7 GB" in caplog.text


def test_the_configs_pin_a_commit(kind):
    config = OmegaConf.load(config_folder("conf") / f"perceptual/{kind}.yaml")
    assert build(config).weights == f"{config.source}@{config.revision}"


def test_bad_values_are_explained(kind, folder):
    make = KINDS[kind]
    with pytest.raises(ConfigError, match="source='nowhere': no such folder, and not a hub id"):
        make("nowhere")
    for revision in (None, "main", COMMIT[:39]):
        with pytest.raises(ConfigError, match="expected a commit of the hub, 40 hex digits"):
            make("owner/model", revision)
    with pytest.raises(ConfigError, match=r"expected one or more of block.0 to block.1, embedding"):
        make(str(folder), layers=["up.*"])
    with pytest.raises(ConfigError, match="size=0: expected an integer >= 1"):
        make(str(folder), size=0)


def test_a_folder_of_something_else_is_explained(kind, copy):
    other = {"clip": DINOv2Features, "dinov2": CLIPFeatures}[kind]
    with pytest.raises(ConfigError, match=r"model_type .* expected"):
        other(str(copy))
    told = json.loads((copy / "preprocessor_config.json").read_text()) | {"do_center_crop": False}
    (copy / "preprocessor_config.json").write_text(json.dumps(told))
    with pytest.raises(ConfigError, match=r"preprocessor_config.json: .* expected that pictures"):
        KINDS[kind](str(copy))
    (copy / "preprocessor_config.json").unlink()
    with pytest.raises(ConfigError, match=r"preprocessor_config.json not found"):
        KINDS[kind](str(copy))


def test_missing_tensors_and_broken_files_are_explained(kind, copy):
    path = copy / "model.safetensors"
    weights = load_file(path)
    gone = next(name for name in weights if "patch_embedding" in name)
    del weights[gone]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(LatentiqaError, match=r"1 tensors are missing, .*patch_embedding"):
        KINDS[kind](str(copy))(torch.rand(1, 3, 64, 64))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(LatentiqaError, match="could not be loaded"):
        KINDS[kind](str(copy))(torch.rand(1, 3, 64, 64))
