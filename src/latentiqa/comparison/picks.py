"""What people picked: files of the 2AFC page, and what they must hold."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentiqa.errors import DataError

log = logging.getLogger(__name__)

KIND = "latentiqa picks"

PAIR, REPEAT, CATCH = "pair", "repeat", "catch"
"""Of a trial: two models' results; the same two again, sides swapped; input against worse input."""

GOOD, WORSE = "input", "degraded"
"""The sides of a catch trial, of which the first one is to be picked."""

COLUMNS = (
    *("study", "session", "rater", "trial"),
    *("kind", "picture", "left", "right", "pick", "milliseconds"),
)
"""Of a CSV file of picks; the first three are the same in all rows of a session."""

SESSION = re.compile(r"[0-9a-f]{8,32}")
LONGEST = 1_000
"""Characters of a name."""
MOST = 100_000
"""Picks of a session."""


@dataclass(frozen=True)
class Pick:
    """One trial, answered.

    Attributes:
        kind: `PAIR`, `REPEAT` or `CATCH`.
        picture: name of the input.
        left: the model whose result stood there.
        right: the other one.
        side: ``left`` or ``right``: what was picked.
        milliseconds: from the pictures' appearance.
    """

    kind: str
    picture: str
    left: str
    right: str
    side: str
    milliseconds: float

    @property
    def winner(self) -> str:
        """The model that was picked."""
        return self.left if self.side == "left" else self.right

    @property
    def loser(self) -> str:
        """The other one."""
        return self.right if self.side == "left" else self.left

    @property
    def trial(self) -> tuple[str, frozenset[str]]:
        """What was shown, whichever the sides."""
        return self.picture, frozenset((self.left, self.right))


@dataclass(frozen=True)
class Session:
    """A rater's picks from one start of the page to its end, or until it was left.

    Attributes:
        study: which page it was.
        session: drawn at the start.
        rater: the name that was typed; several sessions may be of one rater.
        picks: in their order.
    """

    study: str
    session: str
    rater: str
    picks: tuple[Pick, ...]


def session_of(found: Any) -> Session:
    """Check what a file, or the page itself, says.

    Args:
        found: the parsed JSON.

    Raises:
        DataError: a value is missing or not of its kind, with its place.
    """
    if not isinstance(found, Mapping) or found.get("kind") != KIND:
        raise DataError(f'expected picks of the 2AFC page, an object with "kind": "{KIND}"')
    names = {key: _text(found, key, "") for key in ("study", "session", "rater")}
    if not SESSION.fullmatch(names["session"]):
        raise DataError(f"session={names['session']!r}: expected 8 to 32 hex digits")
    picks = found.get("picks")
    if not isinstance(picks, list) or len(picks) > MOST:
        raise DataError(f"picks: expected a list of at most {MOST:,}")
    return Session(**names, picks=tuple(_pick(p, f"picks[{i}].") for i, p in enumerate(picks)))


def read_picks(inputs: Iterable[str | Path]) -> list[Session]:
    """Read JSON and CSV files of picks; folders are searched through.

    A session that comes several times, as JSON and CSV, say, counts once: its longest file.

    Args:
        inputs: files and folders.

    Raises:
        DataError: a file is missing or not of picks, there are no picks, or they are of several
            studies.
    """
    given = [Path(path) for path in inputs]
    sessions: dict[str, Session] = {}
    origins: dict[str, Path] = {}
    for path in _files(given):
        for session in _read(path):
            known = sessions.get(session.session)
            if known is not None and len(known.picks) >= len(session.picks):
                log.info(
                    "%s: session %s is in %s, too", path, session.session, origins[session.session]
                )
                continue
            sessions[session.session], origins[session.session] = session, path
    by_study = {session.study: origins[session.session] for session in sessions.values()}
    if len(by_study) > 1:
        told = ", ".join(f"{study} ({path})" for study, path in by_study.items())
        raise DataError(f"picks of {len(by_study)} studies: {told}; give those of one of them.")
    if not any(session.picks for session in sessions.values()):
        raise DataError(f"{', '.join(map(str, given))}: no picks there.")
    return list(sessions.values())


def by_rater(sessions: Iterable[Session]) -> dict[str, list[Pick]]:
    """All picks of each rater, by name."""
    found: dict[str, list[Pick]] = {}
    for session in sessions:
        found.setdefault(session.rater, []).extend(session.picks)
    return found


def models_of(sessions: Iterable[Session]) -> list[str]:
    """The models that were compared, in alphabetical order."""
    picks = (pick for session in sessions for pick in session.picks if pick.kind != CATCH)
    return sorted({name for pick in picks for name in (pick.left, pick.right)})


def count(picks: Iterable[Pick], kinds: Sequence[str] = (PAIR,)) -> Counter[tuple[str, str]]:
    """How often each model was picked over each other one: (winner, loser) -> times."""
    return Counter((pick.winner, pick.loser) for pick in picks if pick.kind in kinds)


def _files(inputs: Sequence[Path]) -> list[Path]:
    found: dict[Path, None] = {}
    for path in inputs:
        if path.is_dir():
            inside = [p for p in path.rglob("*") if p.suffix.lower() in (".json", ".csv")]
            found.update(dict.fromkeys(sorted(inside)))
        elif path.suffix.lower() in (".json", ".csv"):
            found[path] = None
        else:
            raise DataError(f"{path}: expected a .json or .csv file of picks, or a folder of them.")
    return list(found)


def _read(path: Path) -> list[Session]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            return [session_of(json.loads(text))]
        return _from_csv(text)
    except (OSError, ValueError, DataError) as error:
        raise DataError(f"{path}: {error}.") from error


def _from_csv(text: str) -> list[Session]:
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    missing = [column for column in COLUMNS if rows and column not in rows[0]]
    if not rows or missing:
        raise DataError(f"expected rows of picks with the columns {', '.join(COLUMNS)}")
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in COLUMNS[:3]), []).append(row)
    return [
        session_of({"kind": KIND, **dict(zip(COLUMNS, key, strict=False)), "picks": group})
        for key, group in groups.items()
    ]


def _pick(found: Any, place: str) -> Pick:
    if not isinstance(found, Mapping):
        raise DataError(f"{place[:-1]}: expected an object")
    kind, side = _text(found, "kind", place), _text(found, "pick", place)
    if kind not in (PAIR, REPEAT, CATCH) or side not in ("left", "right"):
        raise DataError(
            f"{place}kind={kind!r}, pick={side!r}: expected {PAIR}, {REPEAT} or {CATCH}, and left "
            "or right"
        )
    left, right = _text(found, "left", place), _text(found, "right", place)
    if left == right or (kind == CATCH and {left, right} != {GOOD, WORSE}):
        raise DataError(f"{place}left={left!r}, right={right!r}: not two sides of a trial")
    try:
        milliseconds = float(found.get("milliseconds"))  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        milliseconds = -1.0
    if not 0 <= milliseconds < float("inf"):
        raise DataError(f"{place}milliseconds: expected a number >= 0")
    return Pick(kind, _text(found, "picture", place), left, right, side, milliseconds)


def _text(found: Mapping[str, Any], key: str, place: str) -> str:
    value = found.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST:
        raise DataError(f"{place}{key}: expected text of 1 to {LONGEST} characters")
    return value
