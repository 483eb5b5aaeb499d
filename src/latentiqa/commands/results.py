"""What the verbs that end in a results.json share."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from latentiqa.commands.launch import Done, build
from latentiqa.commands.parts import Filled, backbone_of
from latentiqa.recipe import recipe_of
from latentiqa.runs import environment, peak_memory_mb, read_json

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger
    from torch import Tensor

    from latentiqa.data.manifest import Manifest
    from latentiqa.data.views import Views
    from latentiqa.heads import Head

log = logging.getLogger(__name__)

EVALUATIONS = "evaluations"
"""Their folder in that of a run."""


class Clock:
    """Seconds by stage of a run."""

    def __init__(self) -> None:
        self.started = self.last = time.perf_counter()
        self.stages: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """End a stage."""
        now = time.perf_counter()
        self.stages[stage] = round(now - self.last, 2)
        self.last = now


def provenance(
    manifest: Manifest, filled: Sequence[Filled], views: Views, clock: Clock
) -> dict[str, Any]:
    """What every results.json says of data, features, cost and environment."""
    stores = {
        f.extractor.name: {
            "key": f.store.key,
            "n_features": sum(f.extractor.widths.values()),
            "extracted": f.n_extracted,
        }
        for f in filled
    }
    return {
        "dataset": manifest.dataset,
        "dataset_fingerprint": manifest.fingerprint,
        "dataset_kind": manifest.source.kind if manifest.source else None,
        "views": recipe_of(views),  # at test time: no mirrored copies
        "backbone": backbone_of([f.extractor for f in filled]),
        "features": " + ".join(stores),
        "stores": stores,
        "store_key": filled[0].store.key,
        "n_features": sum(store["n_features"] for store in stores.values()),
        "extracted": sum(store["extracted"] for store in stores.values()),
        "seconds": round(clock.last - clock.started, 2),
        "stages": clock.stages,
        "peak_memory_mb": peak_memory_mb(),
        **environment(),
    }


def score_part(
    head: Head, x: Tensor, manifest: Manifest, names: Sequence[str], part: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Predict one part and compare with its scores.

    Args:
        head: fitted.
        x: hyperfeatures ``(N, K, F)`` of K views a picture.
        manifest: the dataset.
        names: the part's pictures, N.
        part: its name, for the rows.

    Returns:
        The metrics and the rows of predictions.csv, the pictures' attributes among them.
    """
    from latentiqa.metrics import correlations

    pred = head.predict(x).tolist()
    records = [manifest.by_name[name] for name in names]
    target = [manifest.target(record.mos) for record in records]
    rows = [
        # An attribute that is called like one of the columns gives way to it.
        {**r.attributes, "part": part, "name": r.name, "mos": r.mos, "target": t, "pred": p}
        for r, t, p in zip(records, target, pred, strict=True)
    ]
    return correlations(pred, target), rows


def announce(results_path: Path) -> Done:
    """Print the test metrics and, as the last line, the path of results.json."""
    results = read_json(results_path)
    console = Console(stderr=True, highlight=False)
    test, part = results["metrics"]["test"], results.get("part", "test")
    table = Table(title=f"{results['name']}: {results['dataset']}, {part} part")
    for column in ("SRCC", "PLCC", "PLCC (logistic)", "KRCC", "RMSE", "pictures"):
        table.add_column(column, justify="right")
    shown = [test[key] for key in ("srcc", "plcc", "plcc_logistic", "krcc", "rmse")]
    table.add_row(*("–" if value is None else f"{value:.4f}" for value in shown), str(test["n"]))
    console.print(table)
    for note in results["notes"]:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    # Unwrapped and alone on stdout, for scripts.
    print(results_path)
    return Done(objective=results["metrics"].get("val", {}).get("srcc"))


def set_logs_aside(folder: Path) -> None:
    """Rename the curves of the leg before: the CSV logger begins its file anew."""
    current = folder / "metrics.csv"
    if current.exists():
        current.rename(folder / f"metrics-leg{len(list(folder.glob('metrics*.csv')))}.csv")


@contextmanager
def track_run(config: DictConfig, folder: Path, values: dict[str, Any]) -> Iterator[Logger | None]:
    """The run's logger, finished whatever happens.

    Yields:
        A Lightning logger, or ``None`` with ``logger=none``.
    """
    logger = build(config.logger, save_dir=str(folder)) if config.logger else None
    status = "failed"
    try:
        if logger:
            logger.log_hyperparams(values)
        yield logger
        status = "success"
    finally:
        if logger:
            logger.finalize(status)
            # W&B's process would otherwise wait for the end of the program, a whole sweep long.
            if hasattr(logger.experiment, "finish"):
                logger.experiment.finish(exit_code=0 if status == "success" else 1)
