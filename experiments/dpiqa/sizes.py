"""DP-IQA's teacher at the size of Stable Diffusion 1.5 and its student, beside what the paper says.

python experiments/dpiqa/sizes.py OUTPUT [--forward]

Parameters and shapes are read off them on PyTorch's meta device: no memory, no arithmetic.
--forward gives the teacher random weights, too (5 GB in float32), and scores one picture of 512 x
512. Writes sizes.json and sizes.md to OUTPUT.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from latentiqa.backbones.stable_diffusion import StableDiffusion
from latentiqa.backbones.tiny_random import SCHEDULER, VAE, byte_tokenizer
from latentiqa.dpiqa.teacher import Design, Teacher
from latentiqa.files import write_atomic
from latentiqa.runs import environment, peak_memory_mb, write_json
from latentiqa.student.network import Design as StudentDesign
from latentiqa.student.network import Student
from latentiqa.student.trunks import TransformersTrunk

PROMPTS = 495
SIDE = 512
PAPER = {
    "U-Net": "about 860 M",
    "text adapter": "MLP 768-768-768 and a vector",
    "image adapter": "77.4 M",
    "decoder": "42.9 M",
    "all that is trained": "about 0.98 B",
    "latents": "4x64x64",
    "prompts": "495x768",
    "image adapter's maps": "320x64x64, 640x32x32, 1280x16x16, 1280x8x8",
    "up blocks' maps": "1280x16x16, 1280x32x32, 640x64x64, 320x64x64",
    "F_quality": "8x64x64",
    "score": "1",
    "student (EfficientNet-B7)": "about 81 M",
    "student's deepest map": "2560x16x16",
    "student's F": "8x64x64",
}
"""Of arXiv 2405.19996 and its public code; a U-Net's own size is Stable Diffusion's."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Count, write and print."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--forward", action="store_true")
    options = parser.parse_args(arguments)
    teacher = true_size_teacher("meta")
    sizes = {name: f"{n / 1e6:.2f} M" for name, n in parameters(teacher).items()} | shapes(teacher)
    sizes |= student_sizes()
    results: dict[str, Any] = {"kind": "sizes", "sizes": sizes, "paper": PAPER, **environment()}
    if options.forward:
        results["forward"] = forward(true_size_teacher("cpu"))
    write_json(options.output / "sizes.json", results)
    write_atomic(options.output / "sizes.md", table_of(results))
    print(table_of(results))


def true_size_teacher(device: str) -> Teacher:
    """The paper's design on a Stable Diffusion 1.5 of random weights."""
    scheduler = DDIMScheduler(**SCHEDULER)  # its numbers are read
    with tempfile.TemporaryDirectory() as scratch, torch.device(device):
        blocks = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
        backbone = StableDiffusion(
            vae=AutoencoderKL(**VAE | blocks),
            unet=UNet2DConditionModel(
                sample_size=64, cross_attention_dim=768, attention_head_dim=8
            ),
            # Of CLIP's ViT-L/14 only the width matters here: the prompts' features are given.
            text_encoder=CLIPTextModel(CLIPTextConfig(hidden_size=768, num_hidden_layers=1)),
            tokenizer=byte_tokenizer(Path(scratch)),
            scheduler=scheduler,
        )
        return Teacher(backbone, Design(), prompts=torch.randn(PROMPTS, 768))


def parameters(teacher: Teacher) -> dict[str, int]:
    """Number of trained parameters of each part, and of all."""
    named = {"unet": "U-Net"}
    counts = teacher.parameter_counts()
    parts = {named.get(part, part.replace("_", " ")): n for part, n in counts.items()}
    return parts | {"all that is trained": sum(counts.values())}


def shapes(teacher: Teacher) -> dict[str, str]:
    """What comes out of each part for one picture of 512 x 512, without the batch's dimension."""
    device = teacher.prompts.device
    image = torch.empty(1, 3, SIDE, SIDE, device=device)
    taken: list[Tensor] = []
    hook = teacher.decoder.register_forward_pre_hook(lambda _, inputs: taken.extend(inputs[0]))
    quality = teacher.quality(image, ["a.png"])
    hook.remove()
    assert teacher.image_adapter is not None
    return {
        "latents": shape_of(teacher.backbone.encode(image)),
        "prompts": "x".join(map(str, teacher.prompts.shape)),
        "image adapter's maps": ", ".join(map(shape_of, teacher.image_adapter(image))),
        "up blocks' maps": ", ".join(map(shape_of, taken)),
        "F_quality": shape_of(quality),
        "score": shape_of(teacher.decoder.regress(quality.flatten(1))),
    }


def student_sizes() -> dict[str, str]:
    """Parameters and shapes of the paper's student, on the meta device."""
    with torch.device("meta"):
        # transformers' own values of the config are those of B7.
        trunk = TransformersTrunk(config={"model_type": "efficientnet"})
        student = Student(StudentDesign(trunk, score="map", width=512), quality=True)
        image = torch.empty(1, 3, SIDE, SIDE)
    assert student.quality is not None
    deepest = student.trunk(image)[-1]
    return {
        "student (EfficientNet-B7)": f"{sum(p.numel() for p in student.parameters()) / 1e6:.2f} M",
        "student's deepest map": shape_of(deepest),
        "student's F": shape_of(student.quality(deepest)),
    }


def shape_of(batch: Tensor) -> str:
    """``CxHxW`` of ``(B, C, H, W)``."""
    return "x".join(map(str, batch.shape[1:]))


def forward(teacher: Teacher) -> dict[str, float]:
    """Score one random picture; a score that is no number is an error."""
    image = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    started = time.perf_counter()
    with torch.no_grad():
        score = teacher(image, ["a.png"])
    seconds = time.perf_counter() - started
    if not torch.isfinite(score).all():
        raise SystemExit(f"the score is {score.item()}: expected a number")
    return {
        "score": score.item(),
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
        "peak_memory_mb": peak_memory_mb(),
    }


def table_of(results: dict[str, Any]) -> str:
    """Ours beside the paper's, as Markdown, and the forward pass below."""
    lines = ["| part | here | paper |", "| --- | --- | --- |"]
    lines += [f"| {part} | {size} | {PAPER[part]} |" for part, size in results["sizes"].items()]
    if told := results.get("forward"):
        lines += [
            "",
            f"One picture of {SIDE} x {SIDE} in float32, random weights: a finite score after "
            f"{told['seconds']} seconds on {told['threads']} threads, "
            f"{told['peak_memory_mb'] / 1000:.1f} GB.",
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
