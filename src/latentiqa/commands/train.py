"""latentiqa train: extract what is missing, fit a head, evaluate once on the test part.

Usage: latentiqa train [group=choice ...] [key=value ...]

The last line printed is the path of results.json. The run's folder is named by its config: the
same run asked for again is skipped when it is finished, and goes on when it was interrupted.

  latentiqa train experiment=demo
  latentiqa train dataset=csv dataset.path=my.csv guidance=none head=mlp

  groups    backbone timesteps layers guidance perceptual head dataset trainer logger callbacks
            experiment sweep debug
  often     split=0 (seed) or official, seed=0, pooling=mean, paths.runs=runs, force=true,
            data.on_error=skip, limit=100 (pictures a part)

Several runs:  latentiqa train -m experiment=demo guidance=none,pmg layers=up,mid_up
The config:    latentiqa train experiment=demo --cfg job
A choice's keys and values are in conf/<group>/<choice>.yaml.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from latentiqa.commands.launch import Done, build
from latentiqa.commands.parts import (
    check_data,
    check_method,
    extraction_options,
    inspect,
    is_other_rank,
    load_lgdm,
    notes_of,
    plain,
    split_of,
    trainer_factory,
)
from latentiqa.commands.results import announce, score_part, track_run
from latentiqa.errors import DataError
from latentiqa.runs import (
    environment,
    peak_memory_mb,
    signature,
    write_atomic,
    write_json,
    write_predictions,
)

log = logging.getLogger(__name__)


def run(config: DictConfig) -> Done:
    """Train and evaluate one run; see the module's docstring."""
    check_data(config)
    described = check_method(config)
    head = build(config.head)
    manifest = build(config.dataset)
    split = split_of(config, manifest)
    values = plain(config)
    sign = signature(values, dataset=manifest.fingerprint, split=split.hash)
    folder = Path(config.paths.runs) / f"{config.name}-{sign}"
    results_path = folder / "results.json"
    if results_path.exists() and not config.force:
        log.info("this run is finished (force=true runs it again)")
        return announce(results_path)

    started = time.perf_counter()
    log.info(
        "%s: %d train, %d val, %d test pictures of %s (%s split)",
        folder,
        *(len(part) for part in (split.train, split.val, split.test)),
        manifest.dataset,
        split.kind,
    )
    import torch

    from latentiqa.data.splits import check_disjoint
    from latentiqa.heads import save_head
    from latentiqa.hyperfeatures.extraction import extract, open_store, read_features

    check_disjoint(manifest, split)
    write_atomic(folder / "config.yaml", _yaml(values))
    write_atomic(folder / "split.json", split.to_json())
    wanted = manifest.subset([*split.train, *split.val, *split.test])
    keys = inspect(wanted.records, config.data.on_error)
    parts = {p: [n for n in getattr(split, p) if n in keys] for p in ("train", "val", "test")}
    _refuse_leaks(parts, keys)
    inspected = time.perf_counter()

    lgdm = load_lgdm(config, described)
    store = open_store(config.paths.store, lgdm, described["resize"])
    make_trainer = trainer_factory(config)
    n_extracted = extract(
        lgdm,
        store,
        manifest.records,
        keys,
        described["resize"],
        make_trainer,
        **extraction_options(config),
    )
    if is_other_rank():
        return Done()
    extracted = time.perf_counter()

    names = list(lgdm.widths)
    x = {p: read_features(store, [keys[n] for n in parts[p]], names) for p in parts}
    y = {
        p: torch.tensor([manifest.target(manifest.by_name[n].mos) for n in parts[p]]) for p in parts
    }
    with track_run(config, folder, values) as logger:
        fit = head.fit(
            x["train"],
            y["train"],
            x["val"],
            y["val"],
            logger=logger,
            fast_dev_run=config.fast_dev_run,
        )
        log.info("%s: validation SRCC %.4f", type(head).__name__, fit["val_srcc"])
        scored = {p: score_part(head, x[p], manifest, parts[p], p) for p in ("val", "test")}
        fitted = time.perf_counter()
        save_head(
            head,
            folder / "head",
            {"features": names, "train_images": sorted(keys[n] for n in parts["train"])},
        )
        write_predictions(
            folder / "predictions.csv", [r for _, rows in scored.values() for r in rows]
        )
        # Validation as the head saw it when it chose, before it was fitted again with it.
        metrics = {"val": {"srcc": fit["val_srcc"]}, "test": scored["test"][0]}
        results: dict[str, Any] = {
            "kind": "train",
            "name": config.name,
            "signature": sign,
            "dataset": manifest.dataset,
            "metrics": metrics,
            "fit": fit,
            "n": {part: len(names_) for part, names_ in parts.items()},
            "n_features": x["train"].shape[1],
            "split_hash": split.hash,
            "dataset_fingerprint": manifest.fingerprint,
            "store_key": store.key,
            "backbone": lgdm.backbone.identity,
            "seconds": round(fitted - started, 2),
            "stages": {
                "inspect": round(inspected - started, 2),
                "extract": round(extracted - inspected, 2),
                "fit_and_test": round(fitted - extracted, 2),
            },
            "extracted": n_extracted,
            "peak_memory_mb": peak_memory_mb(),
            "notes": notes_of(described["backbone"].note, manifest.note),
            **environment(),
            "config": values,
        }
        write_json(results_path, results)
        if logger:
            logger.log_metrics({f"test/{k}": v for k, v in metrics["test"].items()})
    return announce(results_path)


def _refuse_leaks(parts: dict[str, list[str]], keys: dict[str, str]) -> None:
    """The same picture under two names must not be in two parts."""
    seen: dict[str, tuple[str, str]] = {}
    for part, names in parts.items():
        for name in names:
            content = keys[name].split(":", 1)[0]
            other = seen.setdefault(content, (part, name))
            if other[0] != part:
                raise DataError(
                    f"{name} ({part}) and {other[1]} ({other[0]}) are the same picture to the "
                    "byte; remove one, or give both the same reference so that they stay together."
                )


def _yaml(values: dict[str, Any]) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(values))
