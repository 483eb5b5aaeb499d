"""latentiqa train: extract what is missing, fit a head, evaluate once on the test part.

Usage: latentiqa train [group=choice ...] [key=value ...]

The last line printed is the path of results.json. The run's folder is named by its config: the
same run asked for again is skipped when it is finished, and goes on when it was interrupted. With
method=dpiqa or genziqa a U-Net is trained first, which gives the scores itself.

  latentiqa train experiment=demo
  latentiqa train dataset=csv dataset.path=my.csv guidance=none head=mlp
  latentiqa train method=psi features=efficientnet
  latentiqa train method=dpiqa trainer=gpu method.teacher.tuning=frozen
  latentiqa train method=genziqa method.rater.tuning=none method.rater.context=0 \
      method.rater.score=contrast                               # zero-shot

  groups    method backbone timesteps layers guidance perceptual features views head dataset
            trainer logger callbacks experiment sweep debug
  often     split=0 (seed), official or a file of `latentiqa split`, seed=0, pooling=mean,
            paths.runs=runs, force=true, data.on_error=skip, data.flips=true, limit=100
            (pictures a part)

Several runs:  latentiqa train -m experiment=demo guidance=none,pmg layers=up,mid_up
The config:    latentiqa train experiment=demo --cfg job
A choice's keys and values are in conf/<group>/<choice>.yaml.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from latentiqa.commands.launch import Done, build
from latentiqa.commands.parts import (
    Method,
    check_method,
    check_values,
    feature_names,
    fill_stores,
    inspect,
    is_other_rank,
    load_extractors,
    notes_of,
    plain,
    rated_dataset,
    read_stores,
    split_of,
    trainer_factory,
)
from latentiqa.commands.rater import train_rater
from latentiqa.commands.results import (
    EVALUATIONS,
    Clock,
    announce,
    provenance,
    score_part,
    set_logs_aside,
    track_run,
)
from latentiqa.errors import DataError
from latentiqa.files import write_atomic
from latentiqa.runs import signature, write_json, write_predictions

if TYPE_CHECKING:
    from latentiqa.data.manifest import Manifest
    from latentiqa.data.splits import Split
    from latentiqa.heads import Head

log = logging.getLogger(__name__)

TrainMethod = Callable[..., dict[str, Any]]
"""Trains a method and leaves it in the run's folder; `train_rater` tells the arguments."""


@dataclass(frozen=True)
class Plan:
    """A run with all its values checked, before a picture is read or a weight loaded."""

    method: Method
    head: Head
    manifest: Manifest
    split: Split
    values: dict[str, Any]
    signature: str
    folder: Path
    notes: tuple[str, ...] = ()


def plan_run(config: DictConfig, notes: Sequence[str] = (), **content: str) -> Plan:
    """Check the config and read the dataset's lists.

    Args:
        config: of the run.
        notes: that go wherever its numbers go, beside those of backbone and dataset.
        **content: hashes of what else the config only points to.

    Raises:
        LatentiqaError: a value is outside its range, or the lists are not what they should be.
    """
    from latentiqa.heads import IdentityHead

    check_values(config)
    method = check_method(config)
    head = IdentityHead() if method.rater else build(config.head)
    manifest = rated_dataset(config)
    split = split_of(config, manifest)
    values = plain(config, split)
    sign = signature(values, dataset=manifest.fingerprint, split=split.hash, **content)
    folder = Path(config.paths.runs) / f"{config.name}-{sign}"
    noted = notes_of(method.note, manifest.note, *notes)
    return Plan(method, head, manifest, split, values, sign, folder, tuple(dict.fromkeys(noted)))


def run(config: DictConfig) -> Done:
    """Train and evaluate one run; see the module's docstring."""
    return carry_out(config, plan_run(config), train_rater)


def carry_out(config: DictConfig, plan: Plan, train: TrainMethod) -> Done:
    """Train and evaluate a run that has been planned.

    Args:
        config: of the run.
        plan: from `plan_run`.
        train: trains the method before it is asked for features, for methods that are trained.
    """
    results_path = plan.folder / "results.json"
    if results_path.exists() and not config.force:
        log.info("this run is finished (force=true runs it again)")
        return announce(results_path)

    import torch

    from latentiqa.heads import save_head

    make_trainer = trainer_factory(config)
    manifest, split, head = plan.manifest, plan.split, plan.head
    log.info(
        "%s: %d train, %d val, %d test pictures of %s (%s split)",
        plan.folder,
        *(len(part) for part in (split.train, split.val, split.test)),
        manifest.dataset,
        split.kind,
    )
    write_atomic(plan.folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(plan.values)))
    write_atomic(plan.folder / "split.json", split.to_json())
    clock = Clock()
    wanted = manifest.subset([*split.train, *split.val, *split.test])
    keys = inspect(wanted.records, config.data)
    parts = {p: [n for n in getattr(split, p) if n in keys] for p in ("train", "val", "test")}
    refuse_leaks(parts, keys)
    _refuse_few(parts)
    if not is_other_rank():
        # With force=true: not the results of what is here from now on, nor what it was evaluated
        # on. When this is interrupted, the same command without it goes on.
        results_path.unlink(missing_ok=True)
        shutil.rmtree(plan.folder / EVALUATIONS, ignore_errors=True)
    clock.lap("inspect")

    views = plan.method.views
    # A rater was shown the first part, mirrored too, when it was trained; its head learns nothing.
    flips = config.data.flips and plan.method.rater is None
    read = {p: names for p, names in parts.items() if p != "train" or plan.method.rater is None}
    if plan.method.is_trained and not is_other_rank():
        set_logs_aside(plan.folder / "logs")
    with track_run(config, plan.folder, plan.values) as logger:
        training: dict[str, Any] = {}
        seen: set[str] = set()
        if plan.method.is_trained:
            training = train(
                config, plan.method, manifest, parts, keys, plan.folder, make_trainer, logger
            )
            seen |= set(training.pop("seen_images", []))
            clock.lap("train")
        extractors = load_extractors(config, plan.method, plan.folder)
        mirrored = parts["train"] if flips else []
        asked = {name: keys[name] for names in read.values() for name in names}
        filled = fill_stores(config, extractors, views, manifest, asked, make_trainer, mirrored)
        if is_other_rank():
            return Done()
        clock.lap("extract")

        x = {
            part: read_stores(filled, [keys[n] for n in names], views, flips and part == "train")
            for part, names in read.items()
        }
        targets = {r.name: manifest.target(r.mos) for r in wanted}
        y = {p: torch.tensor([targets[n] for n in parts[p]]) for p in parts}
        learnt = "train" if "train" in read else "val"
        fit = head.fit(
            x[learnt],
            y[learnt],
            x["val"],
            y["val"],
            logger=logger,
            fast_dev_run=config.fast_dev_run,
        )
        log.info("%s: validation SRCC %.4f", type(head).__name__, fit["val_srcc"])
        test, rows = score_part(head, x["test"], manifest, parts["test"], "test")
        clock.lap("fit_and_test")
        # Validation too: the head was chosen on it, and ridge is fitted again with it.
        fitted_on = [] if plan.method.is_zero_shot else [*parts["train"], *parts["val"]]
        seen |= {keys[name] for name in fitted_on}
        meta = {"features": feature_names(extractors), "seen_images": sorted(seen)}
        save_head(head, plan.folder / "head", meta)
        write_predictions(plan.folder / "predictions.csv", rows)
        results = {
            "kind": "train",
            "name": config.name,
            "signature": plan.signature,
            # Validation as the head saw it when it chose, before a refit that includes it.
            "metrics": {"val": {"srcc": fit["val_srcc"]}, "test": test},
            "n": {part: len(members) for part, members in parts.items()},
            "split": split.kind,
            "split_hash": split.hash,
            **provenance(manifest, filled, views, clock),
            "zero_shot": plan.method.is_zero_shot,
            "notes": list(plan.notes),
            "fit": fit | training,
            "config": plan.values,
        }
        write_json(results_path, results)
        if logger:
            final = {f"test/{name}": value for name, value in test.items()}
            # Of the choice; val/srcc is its whole course, over alphas or epochs.
            logger.log_metrics(final | {"val/best_srcc": fit["val_srcc"]})
    return announce(results_path)


def _refuse_few(parts: dict[str, list[str]]) -> None:
    """Correlations need three pictures: told before hours are spent on features."""
    for part, names in parts.items():
        if len(names) < 3:
            raise DataError(
                f"the {part} part has {len(names)} readable pictures: expected at least 3; use a "
                "larger dataset or other fractions."
            )


def refuse_leaks(parts: Mapping[str, Sequence[str]], keys: Mapping[str, str]) -> None:
    """The same picture under two names must not be in two parts.

    Raises:
        DataError: one is.
    """
    from latentiqa.data.images import content_of

    seen: dict[str, tuple[str, str]] = {}
    for part, names in parts.items():
        for name in names:
            other = seen.setdefault(content_of(keys[name]), (part, name))
            if other[0] != part:
                raise DataError(
                    f"{name} ({part}) and {other[1]} ({other[0]}) are the same picture to the "
                    "byte; remove one, or give both the same reference so that they stay together."
                )
