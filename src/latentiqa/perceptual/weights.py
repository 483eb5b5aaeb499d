"""Weights of a psi: files that a user brings, and networks that are loaded once."""

from __future__ import annotations

import argparse
import functools
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from latentiqa.errors import ConfigError, LatentiqaError
from latentiqa.hashing import file_digest

Described = TypeVar("Described")
Network = TypeVar("Network", bound=nn.Module)


def once_a_device(
    load: Callable[[Described], Network],
) -> Callable[[Described, torch.device], Network]:
    """Make of what loads a network one that keeps it, for each description and device.

    Args:
        load: gets a hashable description. Equal ones have equal weights, wherever files lie.

    Returns:
        What gets the description and the device, and loads at the first call.
    """

    @functools.cache
    def kept(described: Described, device: torch.device) -> Network:
        # Whatever surrounds the first call: weights fit for gradients, no random number consumed.
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
            return load(described).to(device)

    return kept


class KnownByContent:
    """A frozen description of a network whose weight file the user brings.

    Attributes:
        content: hash of the file, a field of the description: what it holds counts.
        path: where it lies, which does not.
    """

    content: str
    path: str

    def _take(self, path: str, where: str) -> None:
        """Hash the file, in the dataclass's ``__post_init__``.

        Args:
            path: the file.
            where: where it is published, for the error.

        Raises:
            ConfigError: there is no such file.
        """
        if not Path(path).is_file():
            raise ConfigError(f"weights={path}: no such file; expected {where}")
        object.__setattr__(self, "content", file_digest(path))
        object.__setattr__(self, "path", path)


def read_weights(path: str, inside: str | None = None) -> dict[str, Tensor]:
    """The tensors of a file by name; no code in it is run.

    Args:
        path: ``*.safetensors``, or what ``torch.save`` wrote.
        inside: the key under which a training checkpoint holds them; files without that key, and
            safetensors, hold them at the top.

    Raises:
        ConfigError: the file is of another kind, or broken.
    """
    try:
        if Path(path).suffix == ".safetensors":
            return load_file(path)
        # Checkpoints of trainings often carry their options, which are plain values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ConfigError(
            f"weights={path}: could not be read without running code from it ({error}); expected "
            "tensors by name, in safetensors or torch.save's format. If you trust the file, load "
            "it, and save its state dict alone."
        ) from error
    if inside is not None and isinstance(found, dict):
        found = found.get(inside, found)
    if not isinstance(found, Mapping) or not any(isinstance(x, Tensor) for x in found.values()):
        raise ConfigError(
            f"weights={path}: holds a {type(found).__name__}; expected tensors by name."
        )
    return {str(key): value for key, value in found.items() if isinstance(value, Tensor)}


def fill(
    network: nn.Module, published: Mapping[str, Tensor], name_of: Callable[[str], str], path: str
) -> None:
    """Give every parameter and buffer of a network the published value.

    Args:
        network: changed in place; what is published beyond it is left.
        published: tensors by their published names.
        name_of: from the network's name of a tensor to the published one.
        path: the file, for errors.

    Raises:
        ConfigError: a tensor is missing or has another shape.
    """
    own: dict[str, Any] = network.state_dict()
    for name, value in own.items():
        # Counts training steps; nothing is computed from it, and old files lack it.
        if name.endswith("num_batches_tracked"):
            continue
        key = name_of(name)
        if key not in published:
            some = ", ".join(list(published)[:3])
            raise ConfigError(f"weights={path}: no {key!r} in it; it begins with {some}, ...")
        if published[key].shape != value.shape:
            raise ConfigError(
                f"weights={path}: {key!r} has shape {tuple(published[key].shape)}; expected "
                f"{tuple(value.shape)}."
            )
        value.copy_(published[key])


def load_whole(network: Any, folder: Path, said: str, **options: Any) -> Any:
    """A model of transformers in float32, all of it from the safetensors of a folder.

    transformers draws what it does not find at random, with no more than a warning.

    Args:
        network: its class.
        folder: in transformers' format.
        said: what the folder is to the user, for errors.
        **options: further ones of ``from_pretrained``.

    Raises:
        LatentiqaError: the files are broken, or tensors are missing.
    """
    try:
        model, told = network.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    except Exception as error:
        raise LatentiqaError(f"{said} could not be loaded: {error}. Fetch it again.") from error
    if absent := sorted(told["missing_keys"]):
        raise LatentiqaError(
            f"{folder / 'model.safetensors'}: {len(absent)} tensors are missing, {absent[0]!r} "
            f"among them; expected the weights that {folder / 'config.json'} describes."
        )
    return model
