"""`latentiqa pretrain`: both stages on a micro model, interrupted and resumed."""

from __future__ import annotations

import json

import pytest
import torch
from command_line import composed, succeed, type_in
from diffusers import StableDiffusionPipeline
from miniatures import recipes, write_autoencoder, write_biq2021, write_csv
from PIL import Image
from safetensors.torch import load_file

from latentiqa.commands.parts import plain, without_usual_limit
from latentiqa.data.images import read_image
from latentiqa.pretraining.sampling import sample
from latentiqa.runs import signature

EXPERIMENTS = recipes("pretrain")
SMALL_AUTOENCODER = (  # that of write_autoencoder
    "stage.autoencoder.latent_channels=8",
    "stage.autoencoder.encoder_block_out_channels=[8,8]",
    "stage.autoencoder.num_encoder_blocks=[1,1]",
    "stage.autoencoder.decoder_block_out_channels=[8,8]",
    "stage.autoencoder.num_decoder_blocks=[1,1]",
)
SMALL = (
    "crops.size=32",
    "crops.batch_size=2",
    "crops.val_crops=2",
    "every.val=2",
    "every.checkpoint=2",
    "every.log=1",
    "steps=4",
    "logger=csv",
)
AUTOENCODER = (
    "stage=autoencoder",
    "stage.perceptual=null",
    "stage.autoencoder.encoder_block_out_channels=[8,8]",
    "stage.autoencoder.num_encoder_blocks=[1,1]",
    "stage.autoencoder.decoder_block_out_channels=[8,8]",
    "stage.autoencoder.num_decoder_blocks=[1,1]",
    *SMALL,
)
DIFFUSION = (
    "stage=diffusion",
    "stage.alignment=null",
    "stage.recognition.layers=[mid.resnet.1]",
    "stage.unet.block_out_channels=[8,8]",
    "stage.unet.down_block_types=[DownBlock2D,CrossAttnDownBlock2D]",
    "stage.unet.up_block_types=[CrossAttnUpBlock2D,UpBlock2D]",
    "stage.unet.attention_head_dim=2",
    "stage.unet.norm_num_groups=4",
    "stage.text_encoder.hidden_size=16",
    "stage.text_encoder.intermediate_size=32",
    "stage.text_encoder.num_attention_heads=2",
    "stage.text_encoder.num_hidden_layers=1",
    *SMALL,
)


@pytest.fixture(autouse=True)
def short_sampling(monkeypatch):
    """The grids' samples in 2 steps, not 20: what they show is not looked at here."""

    def short(*arguments, **options):
        return sample(*arguments, **options | {"steps": 2})

    monkeypatch.setattr("latentiqa.pretraining.diffusion.sample", short)


@pytest.fixture
def photos(tmp_path):
    return ("dataset=csv", f"dataset.path={write_csv(tmp_path / 'photos', count=12)}")


def pretrain(home, *overrides):
    return succeed("pretrain", *overrides, f"paths.runs={home}")


def failing(home, *overrides):
    outcome = type_in("pretrain", *overrides, f"paths.runs={home}")
    assert outcome.status == 1
    assert "Traceback" not in outcome.err
    return outcome.err


def weights(folder):
    return load_file(folder / "diffusion_pytorch_model.safetensors")


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.fixture
def autoencoder(tmp_path, photos):
    done = pretrain(tmp_path / "first", *AUTOENCODER, *photos)
    return done.folder / "autoencoder"


def test_the_first_stage_leaves_weights_grids_logs_and_results(tmp_path, photos):
    done = pretrain(tmp_path / "runs", *AUTOENCODER, *photos)
    results = done.results
    assert results["steps"] == 4
    # Photos of the test part are not touched.
    assert results["n"]["train"] + results["n"]["val"] < 12
    assert {"val/loss", "val/l1", "val/psnr"} <= set(results["metrics"]["val"])
    assert results["seconds"] > 0
    assert results["config"]["steps"] == 4
    grids = sorted(path.name for path in (done.folder / "grids").iterdir())
    assert grids[0] == "reconstructions-000002.png"
    with Image.open(done.folder / "grids" / grids[0]) as grid:
        assert grid.height == 2 * 32 + 2
    header, *rows = (done.folder / "logs" / "metrics.csv").read_text().splitlines()
    assert "train/loss" in header
    assert len(rows) >= 4
    config = json.loads((done.folder / "autoencoder" / "config.json").read_text())
    assert config["scaling_factor"] != 1.0


@pytest.mark.parametrize(
    "stage", ["autoencoder", pytest.param("diffusion", marks=pytest.mark.slow)]
)
def test_a_training_in_legs_ends_with_the_weights_of_one_in_a_single_leg(
    stage, tmp_path, photos, request
):
    arguments = (*AUTOENCODER, *photos)
    output = "autoencoder"
    if stage == "diffusion":
        folder = request.getfixturevalue("autoencoder")
        arguments = (*DIFFUSION, *photos, f"stage.autoencoder_folder={folder}")
        output = "pipeline/unet"
    whole = pretrain(tmp_path / "whole", *arguments)
    for leg in (1, 2, 3):
        part = pretrain(tmp_path / "legs", *arguments, "minutes=0.000001")
        assert part.results["steps"] == leg
        assert "the same command goes on" in part.err
    last = pretrain(tmp_path / "legs", *arguments)
    assert last.results["steps"] == 4
    assert last.folder.name == whole.folder.name
    logs = {path.name for path in (last.folder / "logs").glob("*.csv")}
    assert logs == {"metrics.csv", "metrics-leg1.csv", "metrics-leg2.csv", "metrics-leg3.csv"}
    assert_same(weights(last.folder / output), weights(whole.folder / output))
    assert last.results["metrics"] == whole.results["metrics"]
    assert last.results["seconds"] >= part.results["seconds"] > 0


def test_crops_are_read_under_the_limit_on_pixels_of_the_run(tmp_path, photos, monkeypatch):
    usual = pretrain(tmp_path / "runs", *AUTOENCODER, *photos)
    limits = set()

    def read(path, max_pixels):
        limits.add(max_pixels)
        return read_image(path, max_pixels)

    monkeypatch.setattr("latentiqa.data.crops.read_image", read)
    other = pretrain(tmp_path / "runs", *AUTOENCODER, *photos, "data.max_pixels=130000000")
    assert limits == {130_000_000}
    assert other.folder != usual.folder


def test_runs_from_before_that_limit_could_be_set_keep_their_names():
    pretrain, assess = (composed(verb, "dataset=demo") for verb in ("pretrain", "assess"))
    names = [signature(without_usual_limit(plain(config))) for config in (pretrain, assess)]
    assert names == ["e45a534c66a4", "3f018d10a884"]


def test_a_finished_training_is_not_run_again(tmp_path, photos):
    first = pretrain(tmp_path / "runs", *AUTOENCODER, *photos)
    written = first.results_path.stat().st_mtime_ns
    again = pretrain(tmp_path / "runs", *AUTOENCODER, *photos)
    assert "finished" in again.err
    assert again.results_path.stat().st_mtime_ns == written


def test_the_second_stage_ends_in_a_pipeline(tmp_path, photos, autoencoder):
    folder = f"stage.autoencoder_folder={autoencoder}"
    done = pretrain(tmp_path / "runs", *DIFFUSION, *photos, folder)
    assert "val/diffusion" in done.results["metrics"]["val"]
    assert set(done.results["parameters"]) == {"unet", "text_encoder"}
    assert list((done.folder / "grids").glob("samples-*.png"))
    pipe = StableDiffusionPipeline.from_pretrained(done.folder / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a sharp photo", num_inference_steps=2, height=32, width=32).images[0].size == (
        32,
        32,
    )


@pytest.mark.slow
def test_the_second_stage_learns_from_crops_that_were_encoded_once(tmp_path, photos, autoencoder):
    arguments = (
        *DIFFUSION,
        *photos,
        f"stage.autoencoder_folder={autoencoder}",
        f"paths.store={tmp_path / 'store'}",
        "crops.cached=3",
    )
    whole = pretrain(tmp_path / "whole", *arguments)
    assert "computing 3 of 3 crops" in whole.err
    part = pretrain(tmp_path / "legs", *arguments, "minutes=0.000001")
    assert part.results["steps"] == 1
    assert "computing" not in part.err
    last = pretrain(tmp_path / "legs", *arguments)
    assert_same(*(weights(done.folder / "pipeline/unet") for done in (whole, last)))


def test_the_first_stage_needs_the_pictures_themselves(tmp_path, photos):
    message = failing(tmp_path / "runs", *AUTOENCODER, *photos, "crops.cached=3")
    assert "crops.cached=3: expected null" in message


@pytest.mark.slow
def test_other_weights_to_start_from_make_another_run(tmp_path, photos, autoencoder):
    arguments = (*DIFFUSION, *photos, f"stage.autoencoder_folder={autoencoder}")
    first = pretrain(tmp_path / "runs", *arguments)
    start = f"stage.start={first.folder / 'pipeline'}"
    second = pretrain(tmp_path / "runs", *arguments, start)
    assert second.folder != first.folder
    moved = autoencoder.rename(tmp_path / "moved")
    folder = f"stage.autoencoder_folder={moved}"
    again = pretrain(tmp_path / "runs", *DIFFUSION, *photos, folder)
    assert again.folder == first.folder


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps=0", "steps=0: expected an integer >= 1"),
        ("every.val=0", "every.val=0"),
        ("minutes=-1", "minutes=-1"),
        ("crops.size=8", "crops.size=8"),
        ("crops.zoom=0", "crops.zoom=0"),
        ("stage.schedule=wavy", "stage.schedule='wavy'"),
        ("stage.ema_decay=2", "stage.ema_decay=2"),
    ],
)
def test_wrong_values_are_explained(tmp_path, photos, override, message):
    assert message in failing(tmp_path / "runs", *AUTOENCODER, *photos, override)


def test_the_second_stage_asks_for_the_first(tmp_path, photos):
    home = tmp_path / "runs"
    assert "stage.autoencoder_folder is not set" in failing(home, *DIFFUSION, *photos)
    nowhere = "stage.autoencoder_folder=nowhere"
    assert "nowhere: no such folder" in failing(home, *DIFFUSION, *photos, nowhere)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_runs(name, tmp_path):
    """With the recipe's own models, or thinner ones, the smallest pictures, and two steps."""
    start = write_autoencoder(tmp_path / "autoencoder")
    thin = [f"stage.autoencoder_folder={start}", "stage.unet.block_out_channels=[8,8,8]"]
    weights = {
        "tiny_autoencoder": [f"stage.encoder_folder={start}", *SMALL_AUTOENCODER],
        "tiny_diffusion_start": [f"stage.autoencoder_folder={start}"],
        "alignment_linear": thin,
        "alignment_urepa": thin,
        "alignment_none": thin,
        "tiny_diffusion_read": [*thin, "stage.start=null"],
        "tiny_diffusion": [*thin, "stage.start=null"],
        "tiny_diffusion_finish": [*thin, "stage.start=null"],
        "tiny_diffusion_unrecognised": [*thin, "stage.start=null"],
    }
    done = pretrain(
        tmp_path / "runs",
        f"experiment={name}",
        f"dataset.root={write_biq2021(tmp_path / 'biq', train=24, test=4)}",
        "debug=fdr",
        "limit=4",
        "precision=32",
        "crops.size=32",
        "crops.batch_size=2",
        f"paths.store={tmp_path / 'store'}",
        *weights.get(name, []),
    )
    assert done.folder.name.startswith(f"{name}-")
    assert done.results["steps"] == 2
