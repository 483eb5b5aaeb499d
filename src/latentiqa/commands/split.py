r"""latentiqa split: the splits of a dataset as files.

Usage: latentiqa split dataset=NAME [key=value ...]

Writes <paths.splits>/<dataset>/seed-0.json to seed-9.json and, where the dataset has an official
split, official.json: names of the pictures of each part, with a hash. No content is in two parts.
No picture is read. Prints the paths of the files.

The same dataset and keys give the same files to the bit: typed again, the command says of each
that it is unchanged. If one holds another split, nothing is written and the exit status is 1;
force=true replaces it.

  latentiqa split dataset=koniq10k dataset.root=/data/koniq10k
  latentiqa split dataset=agiqa3k dataset.root=/data/agiqa3k dataset.content=object
  latentiqa train -m dataset=koniq10k dataset.root=/data/koniq10k \
      split=splits/koniq10k/seed-0.json,splits/koniq10k/seed-1.json

  seeds=10 (how many), fractions=[0.7,0.1,0.2], validation_fraction=0.125, paths.splits=splits
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from latentiqa.commands.doctor import describe
from latentiqa.commands.launch import Done, build
from latentiqa.commands.parts import check_values
from latentiqa.data.splits import PARTS, has_official, make_split
from latentiqa.errors import DataError, check_integer
from latentiqa.files import write_atomic

if TYPE_CHECKING:
    from latentiqa.data.manifest import Manifest
    from latentiqa.data.splits import Split


def run(config: DictConfig) -> Done:
    """Write or compare the files; see the module's docstring."""
    check_values(config)
    check_integer("seeds", config.seeds, least=1)
    manifest: Manifest = build(config.dataset)
    folder = Path(config.paths.splits) / manifest.dataset
    wanted: list[int | Literal["official"]] = [*range(config.seeds)]
    if has_official(manifest):
        wanted.append("official")
    splits: dict[Path, Split] = {}
    for which in wanted:
        split = make_split(manifest, which, config.fractions, config.validation_fraction)
        splits[folder / f"{split.kind}.json"] = split
    states = {path: _state(path, split) for path, split in splits.items()}
    changed = [path for path, state in states.items() if state == "replaced"]
    if changed and not config.force:
        raise DataError(
            f"{', '.join(map(str, changed))}: not what dataset={manifest.dataset} gives now. The "
            "dataset or its references, fractions or validation_fraction were others when this "
            "was written. Nothing is changed: write elsewhere with paths.splits=..., or replace "
            "what is there with force=true."
        )
    for path, state in states.items():
        if state != "unchanged":
            write_atomic(path, splits[path].to_json())
    _show(manifest, splits, states)
    return Done()


def _state(path: Path, split: Split) -> str:
    """What becomes of a file: ``written``, ``unchanged`` or ``replaced``."""
    if not path.exists():
        return "written"
    return "unchanged" if path.read_bytes() == split.to_json().encode() else "replaced"


def _show(manifest: Manifest, splits: dict[Path, Split], states: dict[Path, str]) -> None:
    """A table for a person; the paths alone on stdout, for scripts."""
    scores = describe(manifest)["scores"]
    table = Table(title=f"{manifest.dataset}: {len(manifest):,} pictures, scores {scores}")
    for column in ("file", "hash", *PARTS, ""):
        table.add_column(column, justify="right" if column in PARTS else "left")
    for path, split in splits.items():
        sizes = (f"{len(getattr(split, part)):,}" for part in PARTS)
        table.add_row(path.name, split.hash, *sizes, states[path])
    Console(stderr=True, highlight=False).print(table)
    print(*splits, sep="\n")
