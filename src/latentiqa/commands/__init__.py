"""The console script: one verb each, Hydra overrides after it."""

from __future__ import annotations

import sys
from importlib import import_module

VERBS = {
    "train": "extract what is missing, fit a head, evaluate once on the test part",
    "distill": "a small fast network learns to score from a trained run",
    "evaluate": "a trained run on another dataset",
    "export": "a distilled student as ONNX or torch.export, for use elsewhere",
    "score": "scores for pictures and folders",
    "extract": "hyperfeatures of a whole dataset into the store",
    "cost": "what a score of a trained run costs: parameters, operations, time, memory",
    "trace": "what a guided trajectory does to one picture: distances, score, maps",
    "enhance": "raise a quality model's score of pictures, in the latents of a diffusion model",
    "compare": "quality models by the pictures they make: judged by each other, and by people",
    "pretrain": "train a small latent diffusion model on photos",
    "assess": "what a diffusion backbone can do: reconstruction, denoising, captions, samples",
    "report": "tables from the results.json of many runs",
    "split": "splits of a dataset as files, for runs that must share them",
    "doctor": "what this machine has: versions, devices, weights, disk",
}

OVERVIEW = """\
latentiqa rates pictures without a reference, with the features of frozen latent diffusion models.

Usage: latentiqa VERB [key=value ...]

{verbs}

  latentiqa score photos/                         scores, nothing to download
  latentiqa train experiment=demo                 the main job, nothing to download either
  latentiqa score photos/ run=runs/demo-...       scores with what it trained

`latentiqa VERB --help` tells what to type; `latentiqa VERB --cfg job` shows the whole config."""


def main() -> None:
    """Entry point of ``latentiqa``."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        verbs = "\n".join(f"  {verb:<10}{summary}" for verb, summary in VERBS.items())
        print(OVERVIEW.format(verbs=verbs))
        return
    verb, *overrides = arguments
    if verb not in VERBS:
        sys.exit(f"latentiqa: no verb {verb!r}; expected one of {', '.join(VERBS)}.")
    if {"-h", "--help"} & set(overrides):
        # Only the module's text is needed: nothing heavy is imported for it.
        print((import_module(f"latentiqa.commands.{verb}").__doc__ or "").strip())
        return

    from latentiqa.commands.launch import launch

    sys.exit(launch(verb, overrides))
