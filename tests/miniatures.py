"""Small datasets in the layouts of the real ones."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from PIL import Image
from torchvision_style import random_resnet50, random_vgg16
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2Model,
)

from latentiqa.backbones.tiny_random import byte_tokenizer
from latentiqa.commands.search_path import config_folder


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (24, 16)) -> Path:
    """A picture of noise, (width, height) = size, in the format of the path's suffix."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_biq2021(root: Path, train: int = 6, test: int = 3, size: int = 16) -> Path:
    """BIQ2021 in the authors' layout: names with blanks and parentheses, trailing commas.

    Scores rise evenly from 0 to 1 over the pictures in a fixed mixed order; pictures are noise.
    """
    count = train + test
    ranks = np.random.default_rng(0).permutation(count)
    rows = [(f"ss{1 + i % 3:02d} ({i + 1}).jpg", ranks[i] / (count - 1)) for i in range(count)]
    for seed, (name, _) in enumerate(rows):
        write_image(root / "Images" / name, seed, (size, size))
    train_lines = ["Image Name,MOS,,", *(f"{name},{mos:.4f},," for name, mos in rows[:train])]
    test_lines = ["Image Name,MOS", *(f"{name},{mos:.4f}" for name, mos in rows[train:])]
    for part, lines in (("Train", train_lines), ("Test", test_lines)):
        table = root / f"{part} (Images and MOS).csv"
        table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def write_csv(folder: Path, count: int = 6, header: str = "path,mos", rows: str = "") -> Path:
    """Pictures p0.png, p1.png, ... in ``folder`` and a manifest; ``rows`` replaces its rows."""
    for seed in range(count):
        write_image(folder / f"p{seed}.png", seed)
    lines = rows or "\n".join(f"p{i}.png,{i}" for i in range(count))
    table = folder / "scores.csv"
    table.write_text(f"{header}\n{lines}\n", encoding="utf-8")
    return table


def micro_tiny(latent_channels: int = 4) -> AutoencoderTiny:
    """The smallest `AutoencoderTiny`: f2, random weights."""
    return AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        decoder_block_out_channels=(8, 8),
        num_decoder_blocks=(1, 1),
        latent_channels=latent_channels,
    )


def write_autoencoder(folder: Path) -> Path:
    """The smallest first stage, 8 channels, in diffusers' format; always the same weights."""
    # Of other draws some say the same of every picture.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        micro_tiny(latent_channels=8).save_pretrained(folder)
    return folder


def recipe(name: str) -> str:
    """The text of a recipe in experiments/, after that of the recipes it is made from."""
    path = next(config_folder("experiments").glob(f"*/experiment/{name}.yaml"))
    text = path.read_text()
    bases = re.findall(r"^  - (?!_self_)(\w+)$", text, re.MULTILINE)
    return "".join([*map(recipe, bases), text])


def recipes(verb: str) -> list[str]:
    """Names of all recipes of a verb: train, pretrain, distill, enhance or compare."""
    names = {path.stem for path in config_folder("experiments").glob("*/experiment/*.yaml")}
    return sorted(name for name in names if verb_of(recipe(name)) == verb)


def verb_of(text: str) -> str:
    """The verb that a recipe is for, by a group that no other verb has."""
    marks = {
        "compare": "\nmodels:",
        "pretrain": "override /stage",
        "distill": "override /student",
        "enhance": "override /space",
    }
    return next((verb for verb, mark in marks.items() if mark in text), "train")


def write_weights(psi: str, folder: Path) -> Path:
    """Random weights of a psi as its authors publish them: a file, or a folder of a tiny model."""
    if psi in ("clip", "dinov2"):
        return write_vit(psi, folder / psi)
    path = folder / f"{psi}.pth"
    if psi == "dists":
        features = {f"features.{k}": v for k, v in random_vgg16().state_dict().items()}
        torch.save(features | {"classifier.0.bias": torch.zeros(4)}, path)
        return path
    net = random_resnet50()
    if psi.startswith("reiqa"):
        model = {f"module.encoder.{k}": v for k, v in net.state_dict().items()}
        options = argparse.Namespace(head="mlp", feat_dim=128)
        torch.save({"opt": options, "model": model, "epoch": 25}, path)
        return path
    prefix = {"arniqa": "model", "contrique": "encoder"}[psi]
    numbered = torch.nn.Sequential(*net.children()).state_dict()
    encoder = {f"{prefix}.{k}": v for k, v in numbered.items()}
    torch.save(encoder | {"projector.0.weight": torch.zeros(4, 4)}, path)
    return path


def write_clip(folder: Path) -> Path:
    """The smallest CLIP with a tokenizer: one token a byte. It sees 32 pixels."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 64, "projection_dim": 16}
    tokenizer = byte_tokenizer(folder)
    tokenizer.save_pretrained(folder)
    special = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id")}
    special |= {"pad_token_id": tokenizer.eos_token_id}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        text = CLIPTextConfig(vocab_size=len(tokenizer), **sizes, **special)
        vision = CLIPVisionConfig(image_size=32, patch_size=8, **sizes)
        both = {"text_config": text.to_dict(), "vision_config": vision.to_dict()}
        CLIPModel(CLIPConfig(projection_dim=16, **both)).save_pretrained(folder)
    told = {"do_resize": True, "do_center_crop": True, "do_normalize": True, "resample": 3}
    told |= {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    told |= {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    return folder


def write_vit(psi: str, folder: Path) -> Path:
    """The smallest CLIP (a whole one, as on the hub) or DINOv2, with its preprocessing."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    seen = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    normal = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if psi == "clip":
            own = {"intermediate_size": 64, "projection_dim": 16}
            vision = CLIPVisionConfig(image_size=32, patch_size=8, **sizes, **own)
            text = CLIPTextConfig(vocab_size=64, **sizes, **own)
            both = {"text_config": text.to_dict(), "vision_config": vision.to_dict()}
            CLIPModel(CLIPConfig(projection_dim=16, **both)).save_pretrained(folder)
        else:
            config = Dinov2Config(image_size=56, patch_size=14, mlp_ratio=2, **sizes)
            Dinov2Model(config).save_pretrained(folder)
            seen = {"size": {"shortest_edge": 64}, "crop_size": {"height": 56, "width": 56}}
    told = {"do_resize": True, "do_center_crop": True, "do_normalize": True, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(told | seen | normal))
    return folder
