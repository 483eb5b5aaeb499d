"""PMG as a callback of diffusers: img2img of a photo without and with guidance, at equal seeds.

python experiments/pmg_callback/pmg_callback.py

Writes pmg_callback.png and results.json beside this script.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import skimage.data
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from PIL import Image, ImageDraw

from latentiqa.backbones.source import BackboneSource
from latentiqa.guidance import PMG, StepSize
from latentiqa.guidance.callback import PMGCallback
from latentiqa.perceptual.sd import BackboneFeatures

HERE = Path(__file__).parent
SIDE, SEED, STRENGTHS = 256, 0, (0.4, 0.7, 1.0)
PROMPT = ""


def main() -> None:
    """Make the pictures, measure them, lay them out."""
    began = time.perf_counter()
    folder = BackboneSource("tiny", "tiny").folder()
    pipe = StableDiffusionImg2ImgPipeline.from_pretrained(folder, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    photo = Image.fromarray(skimage.data.astronaut()).crop((100, 0, 356, 256))
    guidance = {
        "no guidance": None,
        "PMG, measurement": PMG(measurement=StepSize(0.1)),
        "PMG, both terms": PMG(BackboneFeatures(), StepSize(0.1), StepSize(0.1)),
    }
    rows, psnr = [], {}
    for name, pmg in guidance.items():
        # The two lines: a callback, and the pipeline as ever.
        callback = PMGCallback(photo, pmg) if pmg else None
        made = [
            pipe(
                PROMPT,
                image=photo,
                strength=strength,
                num_inference_steps=12,
                guidance_scale=1.0,
                generator=torch.Generator().manual_seed(SEED),
                callback_on_step_end=callback,
            ).images[0]
            for strength in STRENGTHS
        ]
        rows.append((name, made))
        psnr[name] = {s: round(decibels(m, photo), 2) for s, m in zip(STRENGTHS, made, strict=True)}
    results = {"psnr_to_photo": psnr, "seconds": round(time.perf_counter() - began, 1)}
    (HERE / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    # Five bits a channel halve the file.
    rounded = [round(value / 255 * 31) * 255 // 31 for value in range(256)]
    layout(photo, rows, psnr).point(3 * rounded).save(HERE / "pmg_callback.png", optimize=True)
    print(json.dumps(results))


def decibels(made: Image.Image, photo: Image.Image) -> float:
    """PSNR."""
    a, b = (
        torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).double()
        for image in (made, photo)
    )
    return (10 * torch.log10(255**2 / (a - b).square().mean())).item()


def layout(photo: Image.Image, rows: list, psnr: dict) -> Image.Image:
    """The photo on the left, a row for each guidance, a column for each strength."""
    gap, text = 6, 18
    width = (len(STRENGTHS) + 1) * (SIDE + gap)
    sheet = Image.new("RGB", (width, len(rows) * (SIDE + text + gap)), "white")
    draw = ImageDraw.Draw(sheet)
    sheet.paste(photo, (0, text))
    draw.text((2, 3), "the photo", fill="black")
    for i, (name, made) in enumerate(rows):
        top = i * (SIDE + text + gap)
        for j, (strength, image) in enumerate(zip(STRENGTHS, made, strict=True)):
            left = (j + 1) * (SIDE + gap)
            sheet.paste(image, (left, top + text))
            label = f"{name}, strength {strength}: {psnr[name][strength]:.1f} dB"
            draw.text((left + 2, top + 3), label, fill="black")
    return sheet


if __name__ == "__main__":
    main()
