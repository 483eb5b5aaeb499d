"""latentiqa report: tables from the results.json and predictions.csv of many runs.

Usage: latentiqa report FOLDER_OR_FILE ... [view=NAME] [key=value ...]

Folders are searched through. Prints Markdown; output=FILE.md, .csv or .tex writes a file too.

  latentiqa report runs/ output=table.tex sort_by=metrics.test.srcc
  latentiqa report runs/ view=splits
  latentiqa report runs/ view=matrix metric=plcc
  latentiqa report runs/lgdm-0123456789ab view=breakdown by=quality ranges=4
  latentiqa report runs/lgdm-* runs/psi-* view=compare
  latentiqa report runs/lgdm-0123456789ab view=layers output=layers.csv figure=layers.png

  view=runs       a row a run or evaluation
      columns     title -> key in results.json; another one: '+columns.KRCC=metrics.test.krcc'
  view=splits     joins runs that differ in their split alone: median and its 95 % interval; mean
                  and spread by '+columns.Mean=metrics.test.srcc.mean' and .std
  view=seeds      joins runs that differ in the noise's seed alone: mean of SRCC and PLCC with the
                  95 % interval over pictures; how far the noise moves a score, as a share of the
                  spread of scores over pictures; SRCC of two seeds' scores
      against     name of a recipe: by how much SRCC is above its, with the interval
      clusters    column of predictions.csv, such as original: its pictures are drawn together for
                  the intervals, as they are not independent of each other
  view=matrix     a row a method, a column a dataset that it was tested or evaluated on; means over
                  all synthetic, authentic and generated ones, weighted by pictures
      kinds       of datasets whose results do not say theirs: '+kinds.mine=authentic'
  view=breakdown  figures by distortion and by range of quality
      by          columns of predictions.csv, such as level, or quality (in ranges=3)
  view=compare    whether one of two methods is better: over the splits that both have, or, of one
                  result each, on the same pictures; methods differ in more than their split
  view=layers     of one run, read from its store: validation SRCC of each layer at each timestep
                  alone; the test part is left alone
      figure      the same as a heat map, a .png
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from latentiqa.commands.launch import Done
from latentiqa.errors import ConfigError
from latentiqa.files import write_atomic
from latentiqa.report.breakdown import breakdown
from latentiqa.report.compare import compare
from latentiqa.report.finished import Finished, load_results
from latentiqa.report.matrix import matrix
from latentiqa.report.seeds import over_seeds
from latentiqa.report.splits import over_splits
from latentiqa.report.tables import Table, notes_of, table, to_csv, to_latex, to_markdown

log = logging.getLogger(__name__)

POSITIONAL = "runs"
SEED_COLUMNS = {"Seeds": "seeds.n", "Noise": "seeds.spread", "SRCC of seeds": "seeds.srcc"}
"""Of view=seeds, after those of the config."""

ABOUT_SEEDS = (
    "seeds: the head is fitted anew with each; intervals are over pictures. Noise: standard "
    "deviation of a picture's score over seeds, as a share of that over pictures"
)
ABOUT_CLUSTERS = "intervals draw all pictures of one {} together, of which there are {}"
ABOUT_AGAINST = (
    "against {}: difference of SRCC on the same pictures, mean over the seeds that both have; its "
    "interval is over pictures, conditional on these draws of the noise"
)

FORMATS = {".md": to_markdown, ".csv": to_csv, ".tex": to_latex}


def run(config: DictConfig) -> Done:
    """Print the table; see the module's docstring."""
    output = None if config.output is None else Path(config.output)
    if output is not None and output.suffix not in FORMATS:
        raise ConfigError(f"output={output}: expected a name ending in {', '.join(FORMATS)}.")
    if config.view not in VIEWS:
        raise ConfigError(f"view={config.view}: expected one of {', '.join(VIEWS)}.")
    figure = config.figure
    if figure is not None and not (config.view == "layers" and Path(figure).suffix == ".png"):
        raise ConfigError(f"figure={figure}: expected a name ending in .png, with view=layers.")
    finished = load_results([Path(run) for run in _listed(config.runs)])
    rows = VIEWS[config.view](finished, config)
    print(to_markdown(rows), end="")
    if output is not None:
        write_atomic(output, FORMATS[output.suffix](rows))
        log.info("written to %s", output)
    return Done()


def _rows(results: Sequence[Any], config: DictConfig, **more: str) -> Table:
    columns = {
        str(title): str(key) for title, key in (config.columns or {}).items() if key is not None
    }
    return table(results, columns | more, sort_by=config.sort_by, descending=config.descending)


def _runs(finished: Sequence[Finished], config: DictConfig) -> Table:
    return _rows([run.result for run in finished], config)


def _splits(finished: Sequence[Finished], config: DictConfig) -> Table:
    return _rows(over_splits(run.result for run in finished), config)


def _seeds(finished: Sequence[Finished], config: DictConfig) -> Table:
    against, clusters = config.against, config.clusters
    columns, notes = SEED_COLUMNS, [ABOUT_SEEDS]
    if against is not None:
        columns = columns | {f"Against {against}": "seeds.difference"}
        columns |= {"Seed by seed": "seeds.differences"}
        notes = [*notes, ABOUT_AGAINST.format(against)]
    rows = _rows(over_seeds(finished, against, clusters), config, **columns)
    if clusters is not None:
        numbers = {len(set(run.predictions.attributes[clusters])) for run in finished}
        told = " to ".join(str(number) for number in sorted({min(numbers), max(numbers)}))
        notes = [*notes, ABOUT_CLUSTERS.format(clusters, told)]
    return replace(rows, notes=[*notes, *rows.notes])


def _layers(finished: Sequence[Finished], config: DictConfig) -> Table:
    from latentiqa.commands.trained import read_layers
    from latentiqa.report.figures import save_heat_map
    from latentiqa.report.layers import layers_table

    trained = [run for run in finished if run.result.get("kind") == "train"]
    if len(trained) != 1:
        raise ConfigError(f"{len(trained)} runs of train: expected one for view=layers.")
    scores = read_layers(trained[0])
    if config.figure is not None:
        title = f"{trained[0].result['name']}: validation SRCC of one layer at one timestep"
        save_heat_map(Path(config.figure), scores, "timestep", title)
        log.info("written to %s", config.figure)
    return layers_table(scores, notes_of([trained[0].result]))


def _matrix(finished: Sequence[Finished], config: DictConfig) -> Table:
    kinds: Any = OmegaConf.to_container(config.kinds) if config.kinds else {}
    return matrix(finished, str(config.metric), {str(name): k for name, k in kinds.items()})


def _breakdown(finished: Sequence[Finished], config: DictConfig) -> Table:
    return breakdown(finished, [str(column) for column in _listed(config.by)], config.ranges)


def _compare(finished: Sequence[Finished], config: DictConfig) -> Table:
    return compare(finished, str(config.metric))


VIEWS: dict[str, Callable[[Sequence[Finished], DictConfig], Table]] = {
    "runs": _runs,
    "splits": _splits,
    "seeds": _seeds,
    "matrix": _matrix,
    "breakdown": _breakdown,
    "compare": _compare,
    "layers": _layers,
}


def _listed(value: Any) -> list[Any]:
    """One or several."""
    return list(value) if isinstance(value, ListConfig) else [value]
