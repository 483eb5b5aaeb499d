r"""latentiqa evaluate: a trained run on another dataset.

Usage: latentiqa evaluate dataset=NAME [run=FOLDER] [key=value ...]

Extracts what is missing with the run's own method and scores with its head; run=null is the student
inside the package. The last line printed is the path of results.json, in the run's folder under
evaluations/; of the package's scorer in the folder embedded/ below paths.runs. Pictures that the
head was fitted on are refused.

  latentiqa evaluate run=runs/demo-0123456789ab dataset=csv dataset.path=my.csv
  latentiqa evaluate run=runs/demo-0123456789ab dataset=biq2021 dataset.root=BIQ2021 \
      part=test split=official

  part=all or train, val, test of the split; split=0, official or a file that
  `latentiqa split` wrote; data.on_error=skip; data.max_pixels=120000000
"""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig

from latentiqa.commands.launch import Done
from latentiqa.commands.parts import (
    check_values,
    fill_stores,
    inspect,
    is_other_rank,
    notes_of,
    plain,
    rated_dataset,
    read_stores,
    split_of,
    trainer_factory,
)
from latentiqa.commands.results import EVALUATIONS, Clock, announce, provenance, score_part
from latentiqa.commands.trained import find_run, load_run
from latentiqa.errors import ConfigError, DataError
from latentiqa.hashing import digest
from latentiqa.runs import write_json, write_predictions

log = logging.getLogger(__name__)

PARTS = ("all", "train", "val", "test")


def run(config: DictConfig) -> Done:
    """Evaluate one run on one dataset; see the module's docstring."""
    check_values(config)
    if config.part not in PARTS:
        raise ConfigError(f"part={config.part!r}: expected one of {', '.join(PARTS)}.")
    finished = find_run(config.run, config.paths.runs)
    trained = finished.results
    manifest = rated_dataset(config)
    split = None if config.part == "all" else split_of(config, manifest)
    if split is None:
        names, split_hash = list(manifest.names), digest(manifest.names)
    else:
        names, split_hash = list(getattr(split, config.part)), split.hash
    sign = digest(
        [
            *(trained["signature"], manifest.fingerprint, config.part, split_hash),
            *(config.data.on_error, config.data.max_pixels),
        ]
    )
    home = Path(config.paths.runs) / "embedded" if finished.is_embedded else finished.folder
    folder = home / EVALUATIONS / f"{manifest.dataset}-{sign}"
    results_path = folder / "results.json"
    if results_path.exists() and not config.force:
        log.info("this evaluation is finished (force=true runs it again)")
        return announce(results_path)

    make_trainer = trainer_factory(config)
    clock = Clock()
    keys = inspect(manifest.subset(names).records, config.data)
    names = [name for name in names if name in keys]
    clock.lap("inspect")
    loaded = load_run(finished)
    _refuse_seen(keys, loaded.seen_images, finished.folder)
    filled = fill_stores(config, loaded.extractors, loaded.views, manifest, keys, make_trainer)
    if is_other_rank():
        return Done()
    clock.lap("extract")
    x = read_stores(filled, [keys[name] for name in names], loaded.views)
    metrics, rows = score_part(loaded.head, x, manifest, names, config.part)
    clock.lap("test")
    write_predictions(folder / "predictions.csv", rows)
    results = {
        "kind": "evaluate",
        "name": trained["name"],
        "signature": sign,
        "run": trained["signature"],
        "trained_on": trained["dataset"],
        "trained_fingerprint": trained["dataset_fingerprint"],
        "trained_split_hash": trained["split_hash"],
        "trained_n": trained.get("n"),
        "zero_shot": trained.get("zero_shot", False),
        "part": config.part,
        "metrics": {"test": metrics},
        "split_hash": split_hash,
        **provenance(manifest, filled, loaded.views, clock),
        "notes": list(dict.fromkeys([*trained["notes"], *notes_of(manifest.note)])),
        "config": {**trained["config"], "evaluation": plain(config, split)},
    }
    write_json(results_path, results)
    return announce(results_path)


def _refuse_seen(keys: dict[str, str], seen_images: frozenset[str], run: Path) -> None:
    """Pictures that the head was fitted on are no test, under whatever name."""
    from latentiqa.data.images import content_of

    seen = set(map(content_of, seen_images))
    known = [name for name, key in keys.items() if content_of(key) in seen]
    if known:
        split = run / "split.json"
        its_own = f" (split={split})" if split.is_file() else ""
        raise DataError(
            f"{len(known)} of {len(keys)} pictures were in the run's training or validation part, "
            f"for example {known[0]}: evaluate on part=test of the split that it was trained with"
            f"{its_own}, or on other pictures."
        )
