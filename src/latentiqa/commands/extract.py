"""latentiqa extract: the hyperfeatures of a whole dataset into the store.

Usage: latentiqa extract [group=choice ...] [key=value ...]

Takes the same groups and keys as `latentiqa train`, which then finds the features there; a killed
extraction goes on where it was. Prints the store's folder.

  latentiqa extract experiment=demo layers=all
  latentiqa extract dataset=biq2021 dataset.root=BIQ2021 trainer=gpu backbone=sd15 timesteps=lgdm
"""

from __future__ import annotations

from omegaconf import DictConfig

from latentiqa.commands.launch import Done, build
from latentiqa.commands.parts import (
    check_data,
    check_method,
    extraction_options,
    inspect,
    load_lgdm,
    trainer_factory,
)


def run(config: DictConfig) -> Done:
    """Extract a dataset; see the module's docstring."""
    check_data(config)
    described = check_method(config)
    manifest = build(config.dataset)
    records = manifest.records if config.limit is None else manifest.records[: config.limit]
    keys = inspect(records, config.data.on_error)

    from latentiqa.hyperfeatures.extraction import extract, open_store

    lgdm = load_lgdm(config, described)
    store = open_store(config.paths.store, lgdm, described["resize"])
    extract(
        lgdm,
        store,
        manifest.records,
        keys,
        described["resize"],
        trainer_factory(config),
        **extraction_options(config),
    )
    print(store.path)
    return Done()
