"""Which maps and statistics a student should read: validation SRCC of a ridge before any training.

python experiments/student/starts.py OUTPUT BIQ2021 [--limit 100]

Each of EfficientNet-Lite0 and -Lite2 sees every training picture of the official split once, at its
own size; 250 of them are for validation. Nothing of the test part is opened. Writes starts.json and
starts.md to OUTPUT.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentiqa.commands.progress import track
from latentiqa.data.images import read_image
from latentiqa.data.manifest import Manifest
from latentiqa.data.readers.biq2021 import read_biq2021
from latentiqa.data.splits import make_split
from latentiqa.files import write_atomic
from latentiqa.heads import RidgeHead
from latentiqa.hyperfeatures.pooling import pool_all, statistics_of
from latentiqa.runs import environment, write_json
from latentiqa.student.trunks import LiteTrunk

VALIDATION = 0.125
"""Of the training part, as in the study `dpiqa`."""

STAGES = {
    "lite0": ("block.4", "block.7", "block.10", "block.14", "block.15"),
    "lite2": ("block.6", "block.10", "block.14", "block.19", "block.20"),
}
"""The last map of each stage, from 1/8 of the picture on."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--limit", type=int)
    options = parser.parse_args(arguments)
    manifest = read_biq2021(options.dataset)
    split = make_split(manifest, "official", (0.7, 0.1, 0.2), VALIDATION)
    parts = split.train[: options.limit], split.val[: options.limit]
    rows = [row for variant in STAGES for row in rows_of(variant, manifest, *parts)]
    counts = {"train": len(parts[0]), "val": len(parts[1])}
    results = {"rows": rows, "n": counts, "split_hash": split.hash, **environment()}
    write_json(options.output / "starts.json", results)
    table = table_of(rows)
    write_atomic(options.output / "starts.md", table)
    print(table)


def rows_of(
    variant: str, manifest: Manifest, train: Sequence[str], val: Sequence[str]
) -> list[dict[str, Any]]:
    """Validation SRCC of each choice of a network's maps and statistics.

    Args:
        variant: of the EfficientNet.
        manifest: of the pictures.
        train: names of those that are fitted on.
        val: names of those that strength is chosen by.
    """
    trunk = LiteTrunk(variant, ("block.*", "head"))
    features = features_of(trunk, manifest, [*train, *val])
    y = torch.tensor([manifest.target(manifest.by_name[name].mos) for name in [*train, *val]])
    stages = STAGES[variant]
    choices = {"stages": stages, "stages, head": (*stages, "head"), "all": trunk.maps}
    rows = []
    for maps, names in choices.items():
        for pooling in ("mean_std", "mean_std_correlation"):
            chosen = [f"{name}/{s}" for name in names for s in statistics_of(pooling)]
            x, n = torch.cat([features[key].float() for key in chosen], dim=1), len(train)
            fit = RidgeHead(refit=False).fit(x[:n], y[:n], x[n:], y[n:])
            row = {"variant": variant, "maps": maps, "pooling": pooling, "values": x.shape[1]}
            rows.append(row | {key: fit[key] for key in ("val_srcc", "alpha")})
    return rows


def features_of(trunk: LiteTrunk, manifest: Manifest, names: Sequence[str]) -> dict[str, Tensor]:
    """``<map>/<statistic>`` -> (N, F) float16 of N pictures; correlations fill 1 GB in float32."""
    network = trunk.build().eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    found: list[Mapping[str, Tensor]] = []
    with torch.inference_mode(), track(trunk.variant, len(names)) as advance:
        for name in names:
            image = read_image(manifest.by_name[name].path)[None]
            maps = dict(zip(trunk.maps, network(image), strict=True))
            pooled = pool_all(maps, "mean_std_correlation")
            found.append({key: value.half() for key, value in pooled.items()})
            advance()
    return {key: torch.cat([one[key] for one in found]) for key in found[0]}


def table_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown, one row a choice."""
    lines = ["| network | maps | statistics | values | validation SRCC |"]
    lines += ["| --- | --- | --- | ---: | ---: |"]
    for row in rows:
        cells = [f"{row['variant']}", row["maps"], f"`{row['pooling']}`", f"{row['values']:,}"]
        lines.append(f"| {' | '.join(cells)} | {row['val_srcc']:.3f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
