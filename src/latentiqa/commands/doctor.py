"""latentiqa doctor: what this machine has: versions, devices, weights, disk.

Usage: latentiqa doctor [key=value ...]

Nothing is downloaded or changed.

  latentiqa doctor
  latentiqa doctor paths.store=/data/features
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from latentiqa.backbones.source import BackboneSource
from latentiqa.commands.launch import Done, build, config_folder
from latentiqa.paths import cache_dir
from latentiqa.runs import environment


def run(config: DictConfig) -> Done:
    """Print the report; see the module's docstring."""
    console = Console(highlight=False)
    env = environment()
    console.print(_table("versions", {**env["versions"], "git": env["git_sha"] or "no checkout"}))
    console.print(_table("devices", devices()))
    console.print(_table("backbone weights", weights()))
    places = {"runs": config.paths.runs, "store": config.paths.store, "cache": str(cache_dir())}
    console.print(_table("disk", {name: disk(Path(path)) for name, path in places.items()}))
    return Done()


def devices() -> dict[str, str]:
    """CPU cores and GPUs that PyTorch sees."""
    import torch

    found = {"cpu": f"{os.cpu_count()} cores, {torch.get_num_threads()} PyTorch threads"}
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        found[f"cuda:{i}"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if torch.backends.mps.is_available():
        found["mps"] = "Apple GPU"
    return found


def weights() -> dict[str, str]:
    """Each backbone choice: embedded, present or to be downloaded, with the size."""
    found = {}
    for path in sorted((config_folder("conf") / "backbone").glob("*.yaml")):
        choice = OmegaConf.load(path)
        if OmegaConf.is_missing(choice, "source"):
            found[path.stem] = "yours: backbone.source=/path/to/folder"
            continue
        source: BackboneSource = build(choice)
        if source.is_embedded:
            found[path.stem] = "embedded"
        elif source.is_present():
            found[path.stem] = f"present ({source.source})"
        else:
            found[path.stem] = (
                f"absent: about {source.download_gb:g} GB from huggingface.co/{source.source} "
                "at first use"
            )
    return found


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
