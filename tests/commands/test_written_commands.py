"""Every command that a README or a verb's help shows is one that can be typed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from command_line import composed
from hydra.core.override_parser.overrides_parser import OverridesParser

from latentiqa.commands import VERBS
from latentiqa.commands.mistakes import refuse_null_groups
from latentiqa.commands.positional import gather_paths

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("experiments/**/*.md")])
OPTIONS = {"--help": 1, "--cfg": 2, "-m": 1}
"""What is Hydra's own, and how many words it takes."""


def commands_in(text: str) -> Iterator[list[str]]:
    """Words of each command of a shell."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set(";&|"):
                yield [w for w in words if w not in {"do", "done"}]
                words = []
            else:
                words.append(word)


def written() -> Iterator[tuple[str, list[str]]]:
    """Where a command stands, and its words."""
    for page in PAGES:
        blocks = re.findall(r"```(?:bash|sh)\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL)
        for block in blocks:
            for words in commands_in(block):
                yield page.relative_to(ROOT).as_posix(), words
    for verb in VERBS:
        text = (import_module(f"latentiqa.commands.{verb}").__doc__ or "").replace("\\\n", " ")
        for match in re.findall(r"^(?:  |.*:  +)(latentiqa \w+ .*)$", text, flags=re.MULTILINE):
            for words in commands_in(match):
                yield f"latentiqa {verb} --help", words


WRITTEN = list(written())
OURS = {
    f"{where}: {shlex.join(words)}": words[1:]
    for where, words in WRITTEN
    if words[:1] == ["latentiqa"]
}
SCRIPTS = [(where, words) for where, words in WRITTEN if words[:1] in (["python"], ["sh"])]


def overrides_of(verb: str, words: list[str]) -> list[str]:
    """What Hydra is given, each key with the first of the values of a sweep."""
    rest, words = [], list(words)
    while words:
        skipped = OPTIONS.get(words[0], 0)
        if not skipped:
            rest.append(words[0])
        del words[: skipped or 1]
    key = getattr(import_module(f"latentiqa.commands.{verb}"), "POSITIONAL", None)
    given = gather_paths(rest, key) if key else rest
    refuse_null_groups(given)
    chosen = []
    for text in given:
        override = OverridesParser.create().parse_override(text)
        if override.is_sweep_override():
            text = f"{override.key_or_group}={next(override.sweep_string_iterator())}"
        chosen.append(text)
    return chosen


def test_there_are_commands():
    pages = {where for where, _ in WRITTEN}
    assert {"README.md", "experiments/dpiqa/README.md", "latentiqa train --help"} <= pages
    assert len(OURS) > 100


@pytest.mark.parametrize("command", OURS)
def test_it_composes(command):
    verb, *words = OURS[command]
    if "--help" in (verb, *words):
        return
    composed(verb, *overrides_of(verb, words), hydra_too=True)


@pytest.mark.parametrize(("where", "words"), SCRIPTS, ids=lambda value: str(value)[:60])
def test_its_script_is_there(where, words):
    names = [word for word in words if word.endswith((".py", ".sh"))]
    assert names or words[1] == "-m", where
    for name in names:
        assert (ROOT / name).exists(), where
