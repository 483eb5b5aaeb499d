"""What people say of a comparison: the page for them, and the ranking of their picks."""

from __future__ import annotations

import logging
import signal
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, ListConfig, OmegaConf

from latentiqa.commands.launch import Done
from latentiqa.errors import ConfigError, DataError
from latentiqa.files import write_atomic
from latentiqa.report.tables import ABSENT, Table, to_csv, to_markdown
from latentiqa.runs import environment, write_csv, write_json

if TYPE_CHECKING:
    from latentiqa.comparison.ranking import Ranking
    from latentiqa.comparison.raters import Rater

log = logging.getLogger(__name__)


def serve(config: DictConfig, words: Sequence[str]) -> Done:
    """Serve the page until it is interrupted.

    Args:
        config: ``output`` and ``serve`` are read.
        words: what was typed after ``serve``.

    Raises:
        ConfigError: there is no page, or the port is not free.
    """
    from latentiqa.comparison.server import HOST, make_server

    if words:
        raise ConfigError(f"serve {' '.join(words)}: the comparison's folder is output=FOLDER.")
    folder = Path(config.output)
    server = make_server(folder / "page", folder / "picks", config.serve.port)
    print(f"http://{HOST}:{server.server_port}/", flush=True)
    log.info("picks go to %s; Ctrl+C ends", folder / "picks")
    # What service managers send ends it, too.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
        signal.signal(signal.SIGTERM, before)
    return Done()


def rank(config: DictConfig, words: Sequence[str]) -> Done:
    """Rank the models by the picks of all raters, and tell who was inconsistent.

    Args:
        config: ``output``, ``picks`` and ``rank`` are read.
        words: files and folders that were typed after ``rank``.

    Raises:
        LatentiqaError: a value is outside its range, there are no picks, or no common ranking.
    """
    from latentiqa.comparison.picks import by_rater, read_picks
    from latentiqa.comparison.ranking import rank as ranked
    from latentiqa.comparison.raters import Limits, check_raters

    if not isinstance(config.rank.drop_flagged, bool):
        raise ConfigError(
            f"rank.drop_flagged={config.rank.drop_flagged!r}: expected true or false."
        )
    limits = Limits(**config.rank.limits)
    folder = Path(config.output)
    sessions = read_picks(_inputs(config, words))
    picks = by_rater(sessions)
    raters = check_raters(picks, limits)
    flagged = [rater.name for rater in raters if rater.reasons]
    dropped = set(flagged) if config.rank.drop_flagged else set()
    if dropped >= picks.keys():
        raise DataError(
            "all raters are flagged as inconsistent, so that drop_flagged=true leaves none: "
            + "; ".join(f"{rater.name} {', '.join(rater.reasons)}" for rater in raters)
        )
    ranking = ranked(
        {name: found for name, found in picks.items() if name not in dropped},
        level=config.rank.level,
        resamples=config.rank.resamples,
        prior=config.rank.prior,
        seed=config.rank.seed,
    )
    notes = notes_on(config, ranking, raters)
    table = to_table(ranking, config.rank.level, notes)
    print(to_markdown(table))
    write_atomic(folder / "ranking.md", to_markdown(table))
    write_atomic(folder / "ranking.csv", to_csv(table))
    draw(folder / "ranking.png", ranking, config.rank.level)
    rows = [asdict(rater) | {"reasons": "; ".join(rater.reasons)} for rater in raters]
    write_csv(folder / "raters.csv", rows, list(rows[0]))
    path = folder / "ranking.json"
    names = [model.name for model in ranking.models]
    write_json(
        path,
        {
            "kind": "ranking",
            "study": sessions[0].study,
            "models": [asdict(model) for model in ranking.models],
            "picked_over": {a: {b: ranking.share(a, b) for b in names if b != a} for a in names},
            "drawn": ranking.unit,
            "n": {"raters": ranking.raters, "picks": ranking.picks, "dropped": len(dropped)},
            "raters": [asdict(rater) for rater in raters],
            "notes": notes,
            **environment(),
            "config": OmegaConf.to_container(config.rank),
        },
    )
    for rater in raters:
        if rater.reasons:
            log.warning("inconsistent: %s %s", rater.name, "; ".join(rater.reasons))
    print(path)
    return Done()


def _inputs(config: DictConfig, words: Sequence[str]) -> list[str]:
    """Typed after ``rank``, or as ``picks=``, or the server's."""
    if words and config.picks is not None:
        raise ConfigError(f"rank {' '.join(words)} picks={config.picks}: expected one of both.")
    if words:
        return list(words)
    if config.picks is None:
        from latentiqa.comparison.page import study_of

        folder = Path(config.output)
        return [str(folder / "picks" / study_of(folder / "page"))]
    return list(config.picks) if isinstance(config.picks, ListConfig) else [config.picks]


def notes_on(config: DictConfig, ranking: Ranking, raters: Sequence[Rater]) -> list[str]:
    """What must be read with the ranking."""
    notes = [
        f"strengths of Bradley and Terry from {ranking.picks} picks of {ranking.raters} raters, "
        f"with {config.rank.prior:g} imaginary picks each way between any two that were compared",
        f"intervals: {config.rank.level:.0%}, {config.rank.resamples} bootstrap samples of the "
        f"{ranking.unit}",
    ]
    if ranking.unit == "picks":
        notes.append("so few raters: how people differ is not in the intervals")
    flagged = [rater.name for rater in raters if rater.reasons]
    if flagged:
        what = "left out" if config.rank.drop_flagged else "not left out"
        notes.append(f"inconsistent raters, {what}: {', '.join(flagged)}; see raters.csv")
    return notes


def to_table(ranking: Ranking, level: float, notes: Sequence[str]) -> Table:
    """A row a model, the best first."""
    header = ["rank", "model", f"rank, {level:.0%}", "strength", f"strength, {level:.0%}"]
    header += ["picked", "shown", "share"]
    rows = []
    for model in ranking.models:
        low, high = model.ranks
        rows.append(
            [
                str(model.rank),
                model.name,
                str(low) if low == high else f"{low} to {high}",
                f"{model.strength:+.3f}",
                f"{model.interval[0]:+.3f} to {model.interval[1]:+.3f}",
                str(model.picked),
                str(model.shown),
                f"{model.picked / model.shown:.1%}" if model.shown else ABSENT,
            ]
        )
    numeric = [True, False, False, True, False, True, True, True]
    return Table(header, rows, numeric, list(notes))


def draw(path: Path, ranking: Ranking, level: float) -> None:
    """Strengths with their intervals as a figure."""
    from latentiqa.report.figures import save_intervals

    values = {model.name: (model.strength, *model.interval) for model in ranking.models}
    label = f"strength (Bradley-Terry), {level:.0%} intervals over {ranking.unit}"
    save_intervals(path, values, label)
