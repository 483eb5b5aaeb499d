"""latentiqa doctor: what this machine has, or what is wrong with a dataset.

Usage: latentiqa doctor [key=value ...]

Versions, devices, weights, disk; with dataset=, its pictures and scores instead: what is missing,
unreadable, or there twice. Nothing is downloaded or changed.

  latentiqa doctor
  latentiqa doctor dataset=koniq10k dataset.root=/data/koniq10k
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from latentiqa.backbones.source import BackboneSource
from latentiqa.commands.launch import Done, build
from latentiqa.commands.parts import listed
from latentiqa.commands.progress import track
from latentiqa.commands.search_path import config_folder
from latentiqa.errors import check_integer
from latentiqa.paths import cache_dir
from latentiqa.runs import environment

if TYPE_CHECKING:
    from latentiqa.data.manifest import Manifest
    from latentiqa.hub import ModelFiles


def run(config: DictConfig) -> Done:
    """Print the report; see the module's docstring."""
    console = Console(highlight=False)
    if config.dataset is not None:
        return check_dataset(config, console)
    env = environment()
    console.print(_table("versions", {**env["versions"], "git": env["git_sha"] or "no checkout"}))
    console.print(_table("devices", devices()))
    console.print(_table("backbone weights", backbone_weights()))
    console.print(_table("psi weights", psi_weights()))
    places = {"runs": config.paths.runs, "store": config.paths.store, "cache": str(cache_dir())}
    console.print(_table("disk", {name: disk(Path(path)) for name, path in places.items()}))
    return Done()


def check_dataset(config: DictConfig, console: Console) -> Done:
    """Print what a dataset's folder holds; status 1 if something is wrong with its pictures."""
    from latentiqa.data.check import check_pictures

    check_integer("data.max_pixels", config.data.max_pixels, 1)
    manifest: Manifest = build(config.dataset)
    console.print(_table(manifest.dataset, describe(manifest)))
    with track("reading pictures", len(manifest)) as advance:
        findings = check_pictures(manifest, advance=advance, max_pixels=config.data.max_pixels)
    if findings.unreadable:
        console.print(f"{len(findings.unreadable)} pictures cannot be read:")
        console.print(listed(findings.unreadable), markup=False)
    for names in findings.copies:
        leak = ": IN TWO PARTS OF A SPLIT" if names in findings.leaks else ""
        console.print(f"the same file: {', '.join(names)}{leak}", markup=False)
    wrong = bool(findings.unreadable or findings.leaks)
    if not wrong:
        console.print(f"all {len(manifest):,} pictures can be read, and no copy is in two parts")
    return Done(status=int(wrong))


def describe(manifest: Manifest) -> dict[str, str]:
    """A dataset in a few lines: where it is from, how much of it is here, its scores and parts."""
    told = {}
    pictures = f"{len(manifest):,}"
    if source := manifest.source:
        told |= {"paper": source.paper, "home": source.home, "licence": source.licence}
        pictures += f" of {source.pictures:,} published"
    told["pictures"] = pictures
    told["scores"] = "none"
    if manifest.mos_range is not None:
        scores = [record.mos for record in manifest]
        low, high = manifest.mos_range
        better = "higher" if manifest.higher_is_better else "lower"
        told["scores"] = (
            f"{min(scores):g} to {max(scores):g} on {low:g} to {high:g}, {better} is better"
        )
    contents = {record.reference for record in manifest} - {None}
    told["contents"] = f"{len(contents):,}, kept together" if contents else "every picture its own"
    parts = Counter(record.part for record in manifest if record.part)
    told["official split"] = ", ".join(f"{n:,} {part}" for part, n in parts.items()) or "none"
    return told | {"fingerprint": manifest.fingerprint}


def devices() -> dict[str, str]:
    """CPU cores, how they take low precision, and GPUs that PyTorch sees."""
    import torch

    from latentiqa.precision import slowdown

    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} PyTorch threads"
    times = f"bfloat16 takes {slowdown(torch.bfloat16):.2g} times as long as float32"
    found = {"cpu": f"{cores}; {times}"}
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        found[f"cuda:{i}"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if torch.backends.mps.is_available():
        found["mps"] = "Apple GPU"
    return found


def backbone_weights() -> dict[str, str]:
    """Each backbone choice: embedded, present or to be downloaded, with the size."""
    found = {}
    for path in sorted((config_folder("conf") / "backbone").glob("*.yaml")):
        choice = OmegaConf.load(path)
        if OmegaConf.is_missing(choice, "source"):
            found[path.stem] = "yours: backbone.source=/path/to/folder"
            continue
        source: BackboneSource = build(choice)
        found[path.stem] = "embedded" if source.is_embedded else presence(source.published)
    return found


def psi_weights() -> dict[str, str]:
    """Each psi whose weights come from the hub or are a file of the user's."""
    found = {}
    for path in sorted((config_folder("conf") / "perceptual").glob("*.yaml")):
        choice = OmegaConf.load(path)
        if OmegaConf.is_missing(choice, "weights"):
            found[path.stem] = "yours: perceptual.weights=/path/to/file"
        elif "source" in choice:
            found[path.stem] = presence(build(choice).files)
    return found


def presence(files: ModelFiles) -> str:
    """Whether a model is here or would be downloaded, with the size."""
    if files.is_present():
        return f"present ({files.source})"
    return f"absent: about {files.download_gb:g} GB from huggingface.co/{files.source} at first use"


def disk(path: Path) -> str:
    """Free space where a folder is, or would be made."""
    path = path.absolute()
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    free = shutil.disk_usage(existing).free / 1e9
    writable = "" if os.access(existing, os.W_OK) else ", NOT WRITABLE"
    return f"{path}: {free:.1f} GB free{writable}"


def _table(title: str, rows: dict[str, str]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table
