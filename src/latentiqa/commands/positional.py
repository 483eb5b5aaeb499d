"""Files and folders typed as such, next to Hydra's ``key=value``."""

from __future__ import annotations

import re
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
    return [*rest, f"{key}=[{','.join(map(quoted, paths))}]"]


def quoted(text: str) -> str:
    r"""Text as a string of Hydra's grammar that means exactly that.

    A backslash is only special before a quote, before the end and before an interpolation, where
    it is doubled.

    Example:
        >>> print(quoted('a "b".png'), quoted("a\\b.png"), quoted("${c}.png"))
        "a \"b\".png" "a\b.png" "\${c}.png"
    """
    text = re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", text)
    text = re.sub(r'(\\*)"', lambda found: found[1] * 2 + r"\"", text)
    return '"' + re.sub(r"(\\+)$", lambda found: found[1] * 2, text) + '"'
