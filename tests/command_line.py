"""Whole commands on a micro backbone: in this process where possible, else in one of their own."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

TO_THE_END = "from latentiqa.commands import main; main()"


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it printed."""

    status: int
    out: str
    err: str

    @property
    def results_path(self) -> Path:
        """The last line on stdout, as `train` and `evaluate` promise."""
        return Path(self.out.splitlines()[-1])

    @property
    def results(self) -> dict[str, Any]:
        return json.loads(self.results_path.read_text())

    @property
    def folder(self) -> Path:
        return self.results_path.parent

    def predictions(self, part: str = "test") -> list[dict[str, str]]:
        with (self.folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file) if row["part"] == part]


def type_in(verb: str, *overrides: str) -> Outcome:
    """Run a command in this process, as the console script would."""
    from latentiqa.commands.launch import launch

    out, err, status = io.StringIO(), io.StringIO(), 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = launch(verb, overrides)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    return Outcome(status, out.getvalue(), err.getvalue())


def composed(verb: str, *overrides: str, hydra_too: bool = False) -> DictConfig:
    """The config that a command would run with."""
    from hydra import compose, initialize_config_dir

    from latentiqa.commands.search_path import config_folder, register_search_path

    register_search_path()
    with initialize_config_dir(str(config_folder("conf")), version_base="1.3"):
        return compose(verb, list(overrides), return_hydra_config=hydra_too)


def succeed(verb: str, *overrides: str) -> Outcome:
    outcome = type_in(verb, *overrides)
    assert outcome.status == 0, outcome.err
    return outcome


def spawn(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", TO_THE_END, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )


def finish(process: subprocess.Popen[str]) -> Outcome:
    out, err = process.communicate(timeout=240)
    return Outcome(process.returncode, out, err)


def places(folder: Path) -> list[str]:
    """Where runs and features go."""
    return [f"paths.runs={folder / 'runs'}", f"paths.store={folder / 'store'}"]


def on_csv(table: Path) -> list[str]:
    """A dataset of one's own, in parts large enough for a head."""
    return ["dataset=csv", f"dataset.path={table}", "fractions=[0.5,0.25,0.25]"]
