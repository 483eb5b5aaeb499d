"""Files and folders typed as such, next to Hydra's ``key=value``."""

from __future__ import annotations

from pathlib import Path

TAKES_A_VALUE = frozenset(
    {"-c", "--cfg", "-p", "--package", "-i", "--info", "-cp", "--config-path"}
    | {"-cn", "--config-name", "-cd", "--config-dir", "--experimental-rerun"}
)
"""Hydra's own options whose value is an argument of its own."""


def gather_paths(arguments: list[str], key: str) -> list[str]:
    """Turn paths among the arguments into one override, ``key=["a","b"]``.

    Args:
        arguments: what was typed after the verb.
        key: the config key that takes them.

    Example:
        >>> gather_paths(["a (1).jpg", "run=runs/x"], "input")
        ['run=runs/x', 'input=["a (1).jpg"]']
    """
    paths, rest = [], []
    for previous, argument in zip(["", *arguments], arguments, strict=False):
        is_option = argument.startswith("-") or previous in TAKES_A_VALUE
        is_path = not is_option and ("=" not in argument or Path(argument).exists())
        (paths if is_path else rest).append(argument)
    if not paths:
        return rest
    quoted = (path.replace("\\", "\\\\").replace('"', '\\"') for path in paths)
    return [*rest, "{}=[{}]".format(key, ",".join(f'"{path}"' for path in quoted))]
