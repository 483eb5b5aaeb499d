"""What a picture may be of, degraded by and worth: LIQE's prompts, one text feature each.

Zhang et al., Blind Image Quality Assessment via Vision-Language Correspondence (LIQE), CVPR 2023,
publish the words; DP-IQA (Fu et al., arXiv 2405.19996) takes them over. They are kept to the
letter, ``still_life`` and American spelling too.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from latentiqa.backbones.stable_diffusion import StableDiffusion
from latentiqa.backbones.text import tokenise

TEMPLATE = "a photo of a {scene} with {distortion} artifacts, which is of {quality} quality"

QUALITIES = ("bad", "poor", "fair", "good", "perfect")

SCENES = (
    *("animal", "cityscape", "human", "indoor", "landscape", "night", "plant", "still_life"),
    "others",
)

COARSE_DISTORTIONS = (
    *("jpeg2000 compression", "jpeg compression", "noise", "blur", "color", "contrast"),
    *("overexposure", "underexposure", "spatial", "quantization", "other"),
)
"""The kinds of distortion, with which there are 495 prompts."""

FINE_DISTORTIONS = (
    *("jpeg2000 compression", "jpeg compression", "white noise", "gaussian blur", "fastfading"),
    *("fnoise", "contrast", "lens", "motion", "diffusion", "shifting", "color quantization"),
    *("oversaturation", "desaturation", "white with color", "impulse", "multiplicative"),
    *("white noise with denoise", "brighten", "darken", "shifting the mean", "jitter"),
    *("noneccentricity patch", "pixelate", "quantization", "color blocking", "sharpness"),
    *("realistic blur", "realistic noise", "underexposure", "overexposure"),
    *("realistic contrast change", "other realistic"),
)
"""Distortions of the databases that LIQE was trained on, with which there are 1485 prompts."""

AT_ONCE = 64
"""Prompts that are encoded together."""


def prompts(distortions: Sequence[str]) -> list[str]:
    """Every quality, scene and distortion in words; the distortion changes fastest.

    Args:
        distortions: `COARSE_DISTORTIONS`, `FINE_DISTORTIONS` or others.

    Example:
        >>> texts = prompts(COARSE_DISTORTIONS)
        >>> len(texts), texts[2]
        (495, 'a photo of a animal with noise artifacts, which is of bad quality')
        >>> len(prompts(FINE_DISTORTIONS))
        1485
    """
    return [
        TEMPLATE.format(quality=quality, scene=scene, distortion=distortion)
        for quality, scene, distortion in product(QUALITIES, SCENES, distortions)
    ]


@torch.no_grad()
def prompt_features(backbone: StableDiffusion, texts: Sequence[str]) -> Tensor:
    """One vector a prompt: the final state of the text encoder at the end of the text.

    Stable Diffusion carries CLIP's text encoder without CLIP's projection, so this is the feature
    before it. Prompts that are longer than the encoder reads are cut, which those here are only
    by the small embedded models.

    Args:
        backbone: its tokenizer and text encoder are used.
        texts: K prompts.

    Returns:
        ``(K, D)`` float32, D the width that the U-Net attends to.
    """
    parts = []
    for start in range(0, len(texts), AT_ONCE):
        tokens = tokenise(backbone.tokenizer, list(texts[start : start + AT_ONCE]))
        encoded = backbone.text_encoder(tokens.input_ids.to(backbone.device))
        parts.append(encoded.pooler_output.float())
    return torch.cat(parts)
