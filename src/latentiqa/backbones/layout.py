"""Diffusers' pipeline format: what a folder holds, and which files loading it needs.

A folder says what it is in its ``model_index.json``: the class of the pipeline, and of each part.
Nothing is concluded from names of folders or of models on the hub.
"""

from __future__ import annotations

import json
from pathlib import Path

from latentiqa.errors import LatentiqaError
from latentiqa.hub import Wanted

INDEX = "model_index.json"

FAMILIES = {
    "StableDiffusionPipeline": "stable_diffusion.StableDiffusion",
    "StableDiffusionImg2ImgPipeline": "stable_diffusion.StableDiffusion",
    "StableDiffusionXLPipeline": "stable_diffusion_xl.StableDiffusionXL",
    "LDMPipeline": "unconditional.UnconditionalLDM",
    "PixArtAlphaPipeline": "pixart.PixArt",
    "PixArtSigmaPipeline": "pixart.PixArt",
    "StableDiffusion3Pipeline": "stable_diffusion_3.StableDiffusion3",
    "FluxPipeline": "flux.Flux",
}
"""Class of a pipeline -> what loads its folder, in this package; imported where it is used."""

# Parts of pipelines that no family here has.
UNUSED = {"safety_checker", "feature_extractor", "image_encoder"}


def read_index(folder: Path) -> tuple[str, dict[str, str | None]]:
    """The class of the pipeline, and of each part by its name, ``None`` for one left out.

    Raises:
        LatentiqaError: there is no index, it is broken, or its pipeline is not supported.
    """
    path = folder / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        pipeline = index["_class_name"]
        classes = {name: kind[1] for name, kind in index.items() if isinstance(kind, list)}
    except FileNotFoundError as error:
        raise LatentiqaError(
            f"backbone folder {folder}: {INDEX} not found; expected diffusers' pipeline format, "
            "as save_pretrained of a pipeline writes it."
        ) from error
    except (ValueError, KeyError, IndexError, AttributeError) as error:
        raise LatentiqaError(
            f"{path}: could not be read as diffusers' pipeline index ({error!r}). Save the "
            "pipeline again with save_pretrained."
        ) from error
    if pipeline not in FAMILIES:
        raise LatentiqaError(
            f"{path}: pipeline {pipeline!r} is not supported; expected one of "
            f"{', '.join(FAMILIES)}."
        )
    return pipeline, classes


def pipeline_files(folder: Path, variant: str | None) -> tuple[Wanted, ...]:
    """The files that loading a pipeline needs, sorted by parts; the index itself is not listed.

    Args:
        folder: holds the index.
        variant: file name variant of the weights (``fp16``), or none.

    Raises:
        LatentiqaError: see `read_index`.
    """
    files: list[Wanted] = []
    _, classes = read_index(folder)
    for name, kind in sorted(classes.items()):
        if kind and name not in UNUSED:
            files += _part_files(name, kind, variant)
    return tuple(files)


def _part_files(name: str, kind: str, variant: str | None) -> list[Wanted]:
    if name == "scheduler":
        return [f"{name}/scheduler_config.json"]
    if "Tokenizer" in kind:
        config, whole = f"{name}/tokenizer_config.json", f"{name}/tokenizer.json"
        if kind.startswith("T5"):
            return [(whole, f"{name}/spiece.model"), config]
        return [(f"{name}/merges.txt", whole), config, (f"{name}/vocab.json", whole)]
    stem = f"{name}/model" if name.startswith("text_encoder") else f"{name}/diffusion_pytorch_model"
    marked = f".{variant}" if variant else ""
    weights = f"{stem}{marked}.safetensors", f"{stem}.safetensors.index{marked}.json"
    return [f"{name}/config.json", weights]
