"""Names of maps, and globs of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from latentiqa.errors import ConfigError


def as_patterns(patterns: str | Sequence[str]) -> tuple[str, ...]:
    """One name or several, as a tuple: equal choices are equal recipes."""
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)


def expand(
    key: str, patterns: str | Sequence[str], known: Iterable[str], described: str
) -> tuple[str, ...]:
    """The names that names or globs stand for, each once, in the order of the known ones.

    Args:
        key: what the user calls the value.
        patterns: names or globs.
        known: all names.
        described: the known names in a few words, for the error.

    Raises:
        ConfigError: there are none, or unknown ones.

    Example:
        >>> expand("blocks", ["head", "block.*"], ["block.0", "block.1", "head"], "...")
        ('block.0', 'block.1', 'head')
    """
    known, patterns = list(known), as_patterns(patterns)
    unknown = [p for p in patterns if not any(fnmatchcase(name, p) for name in known)]
    if unknown or not patterns:
        raise ConfigError(
            f"{key}={list(patterns)}: expected one or more of {described}; unknown: "
            f"{unknown or 'none, but there are none at all'}."
        )
    return tuple(name for name in known if any(fnmatchcase(name, p) for p in patterns))
