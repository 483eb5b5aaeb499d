"""latentiqa pretrain: train a small latent diffusion model on photos, without any scores.

Usage: latentiqa pretrain stage=autoencoder|diffusion [experiment=NAME] [key=value ...]

Two stages: the autoencoder, then the text-conditioned denoiser on its latents, which needs
stage.autoencoder_folder=FOLDER (an `autoencoder/` folder of the first stage). Crops of the training
photos are degraded on the fly and captioned with what was done. A run goes on from its last
checkpoint when the same command is given again; minutes=30 ends a leg after half an hour.

  latentiqa pretrain stage=autoencoder dataset=biq2021 dataset.root=BIQ2021 split=official
  latentiqa pretrain experiment=tiny_diffusion dataset.root=BIQ2021 minutes=60

The run's folder holds checkpoints/, grids/ (PNG), logs/ (a file a leg) and results.json; the
averaged weights are in autoencoder/ or, of the second stage, in pipeline/, a folder in diffusers'
format.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from latentiqa.commands.launch import Done, build
from latentiqa.commands.parts import (
    callbacks_of,
    check_values,
    device_of,
    inspect,
    is_other_rank,
    plain,
    quieten,
    split_of,
    without_usual_limit,
)
from latentiqa.errors import ConfigError, DataError, check_integer
from latentiqa.files import write_atomic
from latentiqa.hashing import digest, folder_digest
from latentiqa.runs import environment, peak_memory_mb, read_json, signature, write_json

if TYPE_CHECKING:
    from latentiqa.data.crops import CropModule
    from latentiqa.data.manifest import Manifest
    from latentiqa.data.splits import Split
    from latentiqa.pretraining.cache import CropCache

log = logging.getLogger(__name__)

STARTS = ("autoencoder_folder", "encoder_folder", "start")
"""Keys of `stage` that are folders of weights: known by content, not by place."""


@dataclass(frozen=True)
class Plan:
    """A training with its values checked, before a picture is read.

    Attributes:
        weights: hashes of the folders of weights that it starts from, by key of `stage`.
    """

    manifest: Manifest
    split: Split
    values: dict[str, Any]
    folder: Path
    signature: str
    weights: dict[str, str]

    @property
    def checkpoint(self) -> Path:
        """Where the training goes on from."""
        return self.folder / "checkpoints" / "last.ckpt"


def plan_run(config: DictConfig) -> Plan:
    """Check the config and read the dataset's lists.

    Raises:
        LatentiqaError: a value is outside its range, or the lists are not what they should be.
    """
    check_values(config)
    for key in ("steps", "every.val", "every.checkpoint", "every.log"):
        check_integer(key, OmegaConf.select(config, key), 1)
    manifest = build(config.dataset)
    split = split_of(config, manifest)
    values = plain(config, split)
    weights = {}
    for key in STARTS:
        folder = values["stage"].get(key)
        if isinstance(folder, str):
            weights[key] = folder_digest(folder)
    told = without_usual_limit(values)
    sign = signature(told, dataset=manifest.fingerprint, split=split.hash, **weights)
    folder = Path(config.paths.runs) / f"{config.name}-{sign}"
    return Plan(manifest, split, values, folder, sign, weights)


def run(config: DictConfig) -> Done:
    """Train one stage; see the module's docstring."""
    plan = plan_run(config)
    results_path = plan.folder / "results.json"
    if results_path.exists() and not config.force:
        finished = read_json(results_path)
        if finished["steps"] >= config.steps:
            log.info("this run is finished (force=true runs it again)")
            return announce(results_path)

    quieten()
    import torch
    from lightning import seed_everything

    seed_everything(config.seed, verbose=False)
    stage = build(config.stage, seed=config.seed, grids=str(plan.folder / "grids"))
    crops = crops_of(config, plan)
    log.info(
        "%s: %.1f M parameters, crops of %d photos of %s, %d held out",
        plan.folder,
        sum(p.numel() for p in stage.parameters() if p.requires_grad) / 1e6,
        len(crops.train.records),
        plan.manifest.dataset,
        len(crops.val.records),
    )
    write_atomic(plan.folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(plan.values)))
    write_atomic(plan.folder / "split.json", plan.split.to_json())
    from latentiqa.commands.results import set_logs_aside, track_run
    from latentiqa.pretraining.legs import Legs

    legs = Legs(config.minutes)
    if not is_other_rank():
        set_logs_aside(plan.folder / "logs")
    with track_run(config, plan.folder, plan.values) as logger:
        cache = cache_of(config, plan, stage, crops)
        trainer = trainer_of(config, plan, [legs, *cache], logger)
        resume = plan.checkpoint if plan.checkpoint.exists() and not config.force else None
        if resume:
            log.info("going on from %s", resume)
        trainer.fit(stage, crops, ckpt_path=resume)
        trainer.save_checkpoint(plan.checkpoint)
        validation = trainer.validate(stage, crops, verbose=False)[0]
        if not trainer.is_global_zero:
            return Done()
        stage.export(plan.folder)
        write_json(
            results_path,
            {
                "kind": "pretrain",
                "name": config.name,
                "signature": plan.signature,
                "steps": trainer.global_step,
                "metrics": {"val": validation},
                "parameters": stage.parameter_counts(),
                "dataset": plan.manifest.dataset,
                "dataset_fingerprint": plan.manifest.fingerprint,
                "split": plan.split.kind,
                "split_hash": plan.split.hash,
                "n": {"train": len(crops.train.records), "val": len(crops.val.records)},
                "seconds": round(legs.seconds, 1),
                "threads": torch.get_num_threads(),
                "peak_memory_mb": peak_memory_mb(),
                **environment(),
                "config": plan.values,
            },
        )
    if trainer.global_step < config.steps:
        log.info(
            "stopped at step %d of %d; the same command goes on", trainer.global_step, config.steps
        )
    return announce(results_path)


def crops_of(config: DictConfig, plan: Plan) -> CropModule:
    """Crops of the readable photos of train, and of val; photos of test are not opened."""
    from latentiqa.data.crops import CropModule, DegradedCrops

    options = config.crops
    parts = {"train": plan.split.train, "val": plan.split.val}
    wanted = plan.manifest.subset([name for names in parts.values() for name in names])
    readable = inspect(wanted.records, config.data)
    rows = {}
    for number, (part, names) in enumerate(parts.items()):
        records = [plan.manifest.by_name[name] for name in names if name in readable]
        if not records:
            raise DataError(f"the {part} part has no readable photos; use a larger dataset.")
        # The held-out crops are other draws as well as of other photos.
        rows[part] = DegradedCrops(
            records,
            options.size,
            seed=2 * config.seed + number,
            clean=options.clean,
            zoom=options.zoom,
            max_pixels=config.data.max_pixels,
        )
    few = options.batch_size if config.fast_dev_run else options.val_crops
    return CropModule(
        rows["train"], rows["val"], few, options.batch_size, num_workers=options.num_workers
    )


def cache_of(config: DictConfig, plan: Plan, stage: Any, crops: CropModule) -> list[CropCache]:
    """What computes the crops before training, if that is asked for.

    Raises:
        ConfigError: the stage trains on the pictures themselves.
    """
    from latentiqa.pretraining.cache import CropCache
    from latentiqa.pretraining.diffusion import DiffusionTraining

    number, options = config.crops.cached, plan.values["crops"]
    if number is None:
        return []
    if not isinstance(stage, DiffusionTraining):
        raise ConfigError(
            f"crops.cached={number}: expected null; only stage=diffusion trains on latents."
        )
    alignment = plan.values["stage"]["alignment"]
    recipe = {
        "crops": {key: options[key] for key in ("size", "clean", "zoom")},
        "seed": config.seed,
        "photos": digest([record.name for record in crops.train.records]),
        "dataset": plan.manifest.fingerprint,
        "autoencoder": plan.weights["autoencoder_folder"],
        "encoder": alignment and alignment["encoder"],
        "precision": config.precision,
    }
    if config.fast_dev_run:
        number = options["batch_size"]
    return [CropCache(number, Path(config.paths.store), recipe)]


def trainer_of(config: DictConfig, plan: Plan, callbacks: Sequence[Any], logger: Any) -> Any:
    """The Lightning trainer of this run."""
    from lightning.pytorch.callbacks import ModelCheckpoint

    from latentiqa.precision import MIXED, warn_if_slow

    warn_if_slow(MIXED.get(str(config.precision)), device_of(config).type)
    checkpoints = ModelCheckpoint(
        dirpath=plan.checkpoint.parent,
        filename=plan.checkpoint.stem,
        every_n_train_steps=config.every.checkpoint,
        enable_version_counter=False,
    )
    usual, progress_bar = callbacks_of(config)
    return build(
        config.trainer,
        callbacks=[*usual, *callbacks, checkpoints],
        enable_progress_bar=progress_bar,
        enable_model_summary=False,
        logger=logger or False,
        max_steps=2 if config.fast_dev_run else config.steps,
        max_epochs=-1,
        precision=config.precision,
        val_check_interval=config.every.val,
        check_val_every_n_epoch=None,
        log_every_n_steps=config.every.log,
        num_sanity_val_steps=0,
        gradient_clip_val=1.0,
        # The sampler divides the crops among the ranks itself.
        use_distributed_sampler=False,
        inference_mode=False,
    )


def announce(results_path: Path) -> Done:
    """Print the held-out metrics and, as the last line, the path of results.json."""
    results = read_json(results_path)
    metrics = ", ".join(f"{key} {value:.4f}" for key, value in results["metrics"]["val"].items())
    log.info("step %d, %.0f s: %s", results["steps"], results["seconds"], metrics)
    print(results_path)
    return Done()
