"""latentiqa extract: the features of a whole dataset into the store.

Usage: latentiqa extract [group=choice ...] [key=value ...]

Takes the same groups and keys as `latentiqa train`, which then finds the features there; a killed
extraction goes on where it was. Prints the folder of each store: LGDM's, and that of each psi.
With limit= or data.flips=true the pictures are those that train would take, else all.

  latentiqa extract experiment=demo layers=all
  latentiqa extract dataset=biq2021 dataset.root=BIQ2021 trainer=gpu backbone=sd15 timesteps=lgdm
"""

from __future__ import annotations

from omegaconf import DictConfig

from latentiqa.commands.launch import Done, build
from latentiqa.commands.parts import (
    check_method,
    check_values,
    fill_stores,
    inspect,
    is_other_rank,
    load_extractors,
    split_of,
    trainer_factory,
)


def run(config: DictConfig) -> Done:
    """Extract a dataset; see the module's docstring."""
    check_values(config)
    method = check_method(config)
    manifest = build(config.dataset)
    make_trainer = trainer_factory(config)
    wanted, mirrored = manifest, ()
    if config.limit is not None or config.data.flips:  # the pictures that train would take
        split = split_of(config, manifest)
        wanted = manifest.subset([*split.train, *split.val, *split.test])
        mirrored = split.train if config.data.flips else ()
    keys = inspect(wanted.records, config.data)
    extractors = load_extractors(config, method)
    filled = fill_stores(config, extractors, method.views, manifest, keys, make_trainer, mirrored)
    if not is_other_rank():
        print(*(f.store.path for f in filled), sep="\n")
    return Done()
