"""Results of runs and evaluations as `train` and `evaluate` leave them, without running either."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from latentiqa.hashing import digest
from latentiqa.metrics import correlations
from latentiqa.runs import write_predictions


def write_run(
    folder: Path,
    name: str = "lgdm",
    dataset: str = "koniq10k",
    kind: str | None = "authentic",
    split: int | str = 0,
    seed: int = 0,
    noise: float = 0.5,
    pictures: int = 40,
    choices: dict[str, str] | None = None,
    attributes: dict[str, Sequence[str]] | None = None,
    **test: Any,
) -> Path:
    """A run of `train` with random predictions.

    Args:
        folder: below which its folder is made.
        name: of the run.
        dataset: name; its hash stands for its content.
        kind: of the dataset.
        split: its pictures are those of the test part of this split.
        seed: of the predictions.
        noise: how far they are from the human scores.
        pictures: in the test part.
        choices: of config groups.
        attributes: column of predictions.csv -> cells.
        **test: figures in the place of those of the predictions.

    Returns:
        Its folder.
    """
    choices = {"dataset": dataset, **(choices or {})}
    config = {"seed": 0, "split": split, "fractions": [0.7, 0.1, 0.2], "choices": choices}
    content = {
        "kind": "train",
        "name": name,
        "dataset": dataset,
        "dataset_fingerprint": digest(dataset),
        "dataset_kind": kind,
        "split_hash": digest([dataset, split]),
        "store_key": digest([name, choices]),
        "n": {"train": 7 * pictures // 2, "val": pictures // 2, "test": pictures},
        "config": config,
        "notes": [f"{dataset}: a caveat"],
    }
    content["signature"] = digest(content)
    figures = _write_rows(
        folder / content["signature"], dataset, split, pictures, seed, noise, attributes or {}
    )
    content["metrics"] = {"val": {"srcc": 0.5}, "test": {**figures, **test}}
    return _write(folder / content["signature"], content)


def write_evaluation(
    run: Path,
    dataset: str = "kadid10k",
    kind: str | None = "synthetic",
    part: str = "all",
    seed: int = 0,
    noise: float = 0.5,
    pictures: int = 60,
    attributes: dict[str, Sequence[str]] | None = None,
    **test: Any,
) -> Path:
    """An evaluation of a run of `write_run` on another dataset; returns its folder."""
    trained = json.loads((run / "results.json").read_text())
    folder = run / "evaluations" / f"{dataset}-{part}"
    figures = _write_rows(folder, dataset, part, pictures, seed, noise, attributes or {})
    content = {
        **{key: trained[key] for key in ("name", "store_key")},
        "kind": "evaluate",
        "signature": digest([trained["signature"], dataset, part]),
        "run": trained["signature"],
        "trained_on": trained["dataset"],
        "trained_fingerprint": trained["dataset_fingerprint"],
        "trained_split_hash": trained["split_hash"],
        "part": part,
        "dataset": dataset,
        "dataset_fingerprint": digest(dataset),
        "dataset_kind": kind,
        "split_hash": digest([dataset, 0 if part == "test" else part]),
        "metrics": {"test": {**figures, **test}},
        "config": {**trained["config"], "evaluation": {"run": str(run), "split": 0}},
        "notes": trained["notes"],
    }
    return _write(folder, content)


def change(folder: Path, **values: Any) -> None:
    """Change a results.json; a key whose value is ``...`` is removed."""
    path = folder / "results.json"
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not ...}))


def _write(folder: Path, content: dict[str, Any]) -> Path:
    (folder / "results.json").write_text(json.dumps(content))
    return folder


def _write_rows(
    folder: Path,
    dataset: str,
    split: int | str,
    pictures: int,
    seed: int,
    noise: float,
    attributes: dict[str, Sequence[str]],
) -> dict[str, Any]:
    """Write predictions.csv; the human scores are the same for each method."""
    target = np.random.default_rng(int(digest([dataset, split]), 16)).random(pictures)
    pred = target + noise * np.random.default_rng(seed).normal(size=pictures)
    rows = [
        {
            "part": "test",
            "name": f"{split}-{i}.png",
            "mos": 1 + 4 * target[i],
            "target": target[i],
            "pred": pred[i],
            **{column: cells[i] for column, cells in attributes.items()},
        }
        for i in range(pictures)
    ]
    write_predictions(folder / "predictions.csv", rows)
    return correlations(pred, target)
