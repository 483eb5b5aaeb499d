"""latentiqa cost: what a score of a finished run costs on this machine.

Usage: latentiqa cost PICTURE run=FOLDER [key=value ...]

Scores one picture again and again, alone, and prints parameters, floating-point operations (two a
multiplication and addition), the median time and the largest memory of the process; reading the
file is not part of it, resizing is. One run a call, as memory is the process's. cost.json in the
run's folder says the same, and `latentiqa report` reads it: '+columns.GFLOP=cost.gflop'. run=null
is a scorer inside the package; nothing is written then.

  latentiqa cost photo.jpg run=runs/demo-0123456789ab
  latentiqa cost photo.jpg rounds=20

  rounds=10, warm_up=2; trainer=gpu
"""

from __future__ import annotations

import logging

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from latentiqa.commands.launch import Done
from latentiqa.commands.parts import device_of, one_picture, quieten
from latentiqa.commands.trained import find_run
from latentiqa.errors import check_integer
from latentiqa.report.tables import cell
from latentiqa.runs import environment, write_json

log = logging.getLogger(__name__)

POSITIONAL = "input"

SHOWN = {"parameters": "parameters", "gflop": "GFLOP", "ms": "ms", "peak_memory_mb": "peak MB"}
"""Columns of the table."""


def run(config: DictConfig) -> Done:
    """Measure one run; see the module's docstring."""
    path = one_picture(config)
    check_integer("rounds", config.rounds, 1)
    check_integer("warm_up", config.warm_up, 1)
    finished, device = find_run(config.run, config.paths.runs), device_of(config)

    import torch

    from latentiqa.cost import cost_of
    from latentiqa.data.images import read_image
    from latentiqa.metric import load_metric

    quieten()
    image = read_image(path, config.data.max_pixels)[None].to(device)
    metric = load_metric(finished.folder, device)
    cost = cost_of(lambda: metric(image, [path.name]), device, config.rounds, config.warm_up)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    cost |= {"picture": [image.shape[-1], image.shape[-2]], "device": name}
    cost |= {"threads": torch.get_num_threads(), **environment()}
    table = Table(title=f"{finished.results['name']}: a picture on {name}")
    for title in SHOWN.values():
        table.add_column(title, justify="right")
    table.add_row(*(cell(key, cost[key]) for key in SHOWN))
    Console(stderr=True, highlight=False).print(table)
    if not finished.is_embedded:
        write_json(finished.folder / "cost.json", cost)
        print(finished.folder / "cost.json")
    return Done()
