"""latentiqa report: tables from the results.json of many runs.

Usage: latentiqa report FOLDER_OR_FILE ... [key=value ...]

Folders are searched through. Prints Markdown; output=FILE.md, .csv or .tex writes a file too.

  latentiqa report runs/
  latentiqa report runs/ output=table.tex sort_by=metrics.test.srcc

  over_splits=true joins runs that differ in their split alone: median and its 95 % interval;
            mean and spread by '+columns.Mean=metrics.test.srcc.mean' and .std
  columns   title -> key in results.json; another one: '+columns.KRCC=metrics.test.krcc'
"""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig, ListConfig

from latentiqa.commands.launch import Done
from latentiqa.errors import ConfigError
from latentiqa.files import write_atomic
from latentiqa.report.splits import over_splits
from latentiqa.report.tables import load_results, table, to_csv, to_latex, to_markdown

log = logging.getLogger(__name__)

POSITIONAL = "runs"
FORMATS = {".md": to_markdown, ".csv": to_csv, ".tex": to_latex}


def run(config: DictConfig) -> Done:
    """Print the table; see the module's docstring."""
    output = None if config.output is None else Path(config.output)
    if output is not None and output.suffix not in FORMATS:
        raise ConfigError(f"output={output}: expected a name ending in {', '.join(FORMATS)}.")
    runs = list(config.runs) if isinstance(config.runs, ListConfig) else [config.runs]
    results = load_results([Path(run) for run in runs])
    if config.over_splits:
        results = over_splits(results)
    columns = {str(title): str(key) for title, key in config.columns.items() if key is not None}
    rows = table(results, columns, sort_by=config.sort_by, descending=config.descending)
    print(to_markdown(rows), end="")
    if output is not None:
        write_atomic(output, FORMATS[output.suffix](rows))
        log.info("written to %s", output)
    return Done()
