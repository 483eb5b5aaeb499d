from __future__ import annotations

import logging
import shutil

import pytest
import torch
from diffusers import StableDiffusionPipeline
from huggingface_hub.errors import GatedRepoError
from pipelines import write_pipeline

from latentiqa.backbones.pixart import PixArt
from latentiqa.backbones.source import BackboneSource
from latentiqa.backbones.tiny_random import tiny_random_folder
from latentiqa.errors import ConfigError, LatentiqaError
from latentiqa.hashing import digest, file_digest

HUB = "owner/model"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "float8"}, "dtype='float8'"),
        ({"resolution": 100}, "multiple of 64"),
        ({"source": "nowhere"}, "no such folder, and not a hub id"),
    ],
)
def test_bad_values_are_refused_before_anything_is_loaded(arguments, message):
    with pytest.raises(ConfigError, match=message):
        BackboneSource(**({"name": "x", "source": "tiny_random"} | arguments))


def test_tiny_is_the_same_to_the_bit_each_time_it_is_built(tmp_path):
    first = BackboneSource("tiny_random", str(tiny_random_folder(tmp_path / "a"))).load()
    torch.rand(3)
    second = BackboneSource("tiny_random", str(tiny_random_folder(tmp_path / "b"))).load()
    assert first.identity == second.identity
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_building_tiny_leaves_the_random_state_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    tiny_random_folder(tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_tiny_is_a_stable_diffusion_pipeline_folder(tmp_path):
    pipe = StableDiffusionPipeline.from_pretrained(tiny_random_folder(tmp_path))
    pipe.set_progress_bar_config(disable=True)
    (image,) = pipe("a photo", num_inference_steps=2, height=64, width=64).images
    assert image.size == (64, 64)


def test_a_half_built_folder_is_never_left(tmp_path, monkeypatch):
    def fail(folder):
        (folder / "unet").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr("latentiqa.backbones.tiny_random.build_random", fail)
    with pytest.raises(KeyboardInterrupt):
        tiny_random_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_identity_follows_the_weights(micro_folder, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(micro_folder, folder)
    identity = BackboneSource("x", str(folder)).load().identity
    assert identity == BackboneSource("x", str(micro_folder)).load().identity
    model = BackboneSource("x", str(folder)).load()
    model.unet.conv_in.bias.data += 1
    model.unet.save_pretrained(folder / "unet")
    assert BackboneSource("x", str(folder)).load().identity != identity


def test_features_of_stable_diffusion_keep_their_address(micro_folder):
    """The files that an identity is made of, and their order: stores on disk depend on it."""
    names = [
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/tokenizer_config.json",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    expected = f"x@{digest([file_digest(micro_folder / name) for name in names])}"
    assert BackboneSource("x", str(micro_folder)).load().identity == expected


def test_a_missing_file_is_named(micro_folder, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(micro_folder, folder)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(LatentiqaError, match=r"unet/diffusion_pytorch_model.safetensors not found"):
        BackboneSource("x", str(folder)).load()


def test_a_truncated_file_is_an_error_of_ours(micro_folder, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(micro_folder, folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(LatentiqaError, match="could not be loaded"):
        BackboneSource("x", str(folder)).load()


@pytest.fixture
def hub_cache(micro_folder, tmp_path, monkeypatch):
    """A hub cache that holds the micro pipeline as owner/model, laid out as the hub's own."""
    repo = tmp_path / "hub" / "models--owner--model"
    shutil.copytree(micro_folder, repo / "snapshots" / COMMIT)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return COMMIT


def test_a_hub_id_loads_from_the_cache_with_its_commit_as_identity(hub_cache, tmp_path):
    source = BackboneSource("sd", HUB, revision="main", resolution=64)
    assert source.is_present()
    assert source.load().identity == f"{HUB}@{hub_cache}"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub cache, and a hub that has what lies in the folder; requests are noted."""
    published, asked = tmp_path / "published", []
    snapshot = tmp_path / "cache" / "models--owner--model" / "snapshots" / COMMIT
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))

    def download(source, *, revision, allow_patterns):
        asked.append((source, revision, allow_patterns))
        for path in (path for name in allow_patterns for path in published.glob(name)):
            target = snapshot / path.relative_to(published)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        refs = snapshot.parents[1] / "refs"
        refs.mkdir(exist_ok=True)
        (refs / "main").write_text(COMMIT)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return published, snapshot, asked


def test_only_what_loading_needs_is_downloaded_and_shards_as_their_index_says(hub, caplog):
    published, snapshot, asked = hub
    pipe = write_pipeline("flux", published)
    shutil.rmtree(published / "transformer")
    pipe.transformer.save_pretrained(published / "transformer", max_shard_size="20KB")
    extras = "vae/diffusion_pytorch_model.fp16.safetensors", "flux1-dev.safetensors"
    for extra in extras:
        (published / extra).write_bytes(b"large")
    source = BackboneSource("flux", HUB, revision="main", download_gb=33.8)
    with caplog.at_level(logging.WARNING):
        model = source.load()
    assert model.identity == f"{HUB}@{COMMIT}"
    assert caplog.text.count("about 33.8 GB") == 1
    assert asked[0] == (HUB, "main", ["model_index.json"])
    assert len(asked) == 3
    found = {str(path.relative_to(snapshot)) for path in snapshot.rglob("*") if path.is_file()}
    there = {str(path.relative_to(published)) for path in published.rglob("*") if path.is_file()}
    assert there - found == set(extras)
    assert source.is_present()
    source.load()
    assert len(asked) == 3  # what is here is not asked for again
    (snapshot / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    assert not source.is_present()


def test_what_reading_needs_is_looked_for_before_the_download(hub, monkeypatch):
    published, snapshot, _asked = hub
    write_pipeline("pixart", published)
    monkeypatch.setattr(PixArt, "PACKAGES", ("no_package.protobuf", "torch", "no_piece"))
    source = BackboneSource("pixart", HUB, revision="main")
    with pytest.raises(LatentiqaError, match=r"no_package.protobuf and no_piece are of.*\[t5\]"):
        source.load()
    assert [path.name for path in snapshot.iterdir()] == ["model_index.json"]
    monkeypatch.undo()
    BackboneSource("pixart", str(published)).load()  # with a tokenizer.json they are not needed


def test_a_gated_model_tells_what_to_do(monkeypatch):
    def refuse(*_args, **_options):
        raise GatedRepoError.__new__(GatedRepoError, "403")  # without a response to show

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(
        LatentiqaError, match=r"accept its terms at https://huggingface.co/owner/ab"
    ):
        BackboneSource("sd", "owner/absent").load()


def test_a_download_is_said_with_its_size_and_a_failing_one_tells_the_way_out(caplog):
    source = BackboneSource("sd", "owner/absent", revision="main", download_gb=2.1)
    assert not source.is_present()
    with caplog.at_level(logging.WARNING), pytest.raises(LatentiqaError, match="backbone=tiny"):
        source.load()
    assert "about 2.1 GB" in caplog.text
    assert "owner/absent" in caplog.text
