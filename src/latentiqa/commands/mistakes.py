"""What was typed wrong, or is wrong with the machine, told to a person."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from hydra.errors import CompactHydraException, MissingConfigException
from omegaconf.errors import ConfigAttributeError, OmegaConfBaseException
from rich.console import Console
from rich.text import Text
from yaml import YAMLError

from latentiqa.commands.positional import TAKES_A_VALUE
from latentiqa.commands.search_path import config_folder, recipe_folders
from latentiqa.errors import ConfigError

NO_PLACE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
}
"""Errors of a disk or a folder, not of this program: told without a traceback."""


def refuse_null_groups(overrides: Sequence[str]) -> None:
    """Refuse ``group=null``, over which Hydra stumbles without naming the group.

    Raises:
        ConfigError: a group is null.
    """
    for word in overrides:
        key, _, value = word.partition("=")
        group = key.lstrip("+").partition("@")[0]
        if not group or "null" not in value.split(","):
            continue
        folders = [config_folder("conf"), *recipe_folders()]
        choices = sorted(p.stem for folder in folders for p in folder.glob(f"{group}/*.yaml"))
        if choices:
            raise ConfigError(
                f"{key}=null: expected one of {', '.join(choices)}; leave {key}= out for the "
                "default."
            )


def refuse_bare_words(verb: str, words: Sequence[str]) -> None:
    """Refuse what is no ``key=value``, of which Hydra's grammar says little.

    Raises:
        ConfigError: such a word was typed.
    """
    for previous, word in zip(["", *words], words, strict=False):
        is_option = word.startswith("-") or previous in TAKES_A_VALUE
        if not is_option and "=" not in word and not word.startswith("~"):
            raise ConfigError(
                f"{word}: latentiqa {verb} takes key=value and no paths; "
                f"`latentiqa {verb} --help` shows what can be typed."
            )


def explain(error: Exception, verb: str = "") -> None:
    """Print an error for a person, on stderr.

    Args:
        error: what stopped a verb.
        verb: which one.
    """
    # Not wrapped: paths in it can be copied. Not markup: names of files may hold brackets.
    text = Text.assemble(("error:", "bold red"), f" {_message(error, verb)}")
    Console(stderr=True).print(text, soft_wrap=True)


def _message(error: Exception, verb: str) -> str:
    message = str(error).strip()
    match error:
        case MissingConfigException(missing_cfg_file=str(choice), options=[*known]):
            group, _, name = choice.rpartition("/")
            # What was probably meant, if anything is like it, comes first.
            like = get_close_matches(name, known)
            rest = [choice for choice in known if choice not in like]
            return f"{group}={name}: expected one of {', '.join(like + rest)}."
        case CompactHydraException():
            cause = str(error.__cause__ or "").partition("\n")[0]
            message = " ".join(message.split()) + (f" ({cause})" if cause else "")
            return _of_another_verb(message, verb) or _without_such_key(message, verb) or message
        case OSError():
            return f"{error.filename or 'a file'}: {error.strerror}; what was written is kept."
        case YAMLError():
            return " ".join(message.split())  # which names file, line and column
        case OmegaConfBaseException() if "Missing mandatory value" in message:
            key = getattr(error, "full_key", None) or message.rsplit(" ", 1)[-1]
            return f"{key} is not set: add {key}=... to the command line."
        case ConfigAttributeError() if "is not in struct" in message:
            return f"{error.full_key} is not in the config: it is needed, do not remove it."
    return message


def _of_another_verb(message: str, verb: str) -> str | None:
    """What to say where a recipe, or what was typed, chooses a group that a verb does not have."""
    found = re.search(r"^(?:In '([\w/]+)': )?Could not override '([\w@/]+)'\. No match", message)
    if not found:
        return None
    recipe, group = found.groups()
    verbs = _verbs_with(group)
    if not verbs:
        return None
    typed = f"{recipe.replace('/', '=')} chooses {group}=" if recipe else f"{group}="
    have = f"{' and '.join(verbs)} {'has' if len(verbs) == 1 else 'have'} it"
    return f"{typed}: latentiqa {verb} has no such group; {have}."


def _without_such_key(message: str, verb: str) -> str | None:
    """What to say of a key that is not there, at least with what is chosen."""
    found = re.search(
        r"Could not override '((?:\w+\.)*)(\w+)'.*Key '\w+' is not in struct", message
    )
    if not found:
        return None
    group, key = found[1].rstrip("."), found[2]
    choices = []
    if verb in _verbs_with(group):
        choices = _files_with(rf"^{key}:", config_folder("conf") / group)
    if choices:
        way = f"the {group} that is chosen has no such key; {group}={', '.join(choices)} have it."
    else:
        way = f"no such key; `latentiqa {verb} --cfg job` shows those that there are."
    return f"{found[1]}{key}: {way}"


def _verbs_with(group: str) -> list[str]:
    return _files_with(rf"^  - {re.escape(group)}:", config_folder("conf"))


def _files_with(pattern: str, folder: Path) -> list[str]:
    """Names of the YAML files of a folder in which a line is like that."""
    return [
        path.stem
        for path in sorted(folder.glob("*.yaml"))
        if re.search(pattern, path.read_text("utf-8"), flags=re.MULTILINE)
    ]
