"""A folder with a Stable Diffusion 1.5 of random weights, true in every size: 4.3 GB.

python experiments/map_enhance/random_sd15.py FOLDER

It says what arithmetic at this size does, rounding and memory, and nothing about pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from latentiqa.backbones.tiny_random import build_random
from latentiqa.files import build_folder

VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "norm_num_groups": 32,
}

UNET: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
}

TEXT: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}


def main(arguments: list[str] | None = None) -> None:
    """Build it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    given = parser.parse_args(arguments)
    print(build_folder(given.folder, lambda folder: build_random(folder, VAE, UNET, TEXT)))


if __name__ == "__main__":
    main()
