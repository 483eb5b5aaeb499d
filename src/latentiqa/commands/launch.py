"""Between Hydra and the verbs: search path, logging, errors that a person can read."""

from __future__ import annotations

import errno
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import CompactHydraException, InstantiationException, MissingConfigException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, OmegaConfBaseException
from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text
from yaml import YAMLError

from latentiqa.commands.positional import gather_paths
from latentiqa.errors import ConfigError, LatentiqaError

log = logging.getLogger("latentiqa")

FULL_ERROR = "HYDRA_FULL_ERROR"
"""Hydra's own switch: it raises errors in place of printing them."""


NO_PLACE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
}
"""Errors of a disk or a folder, not of this program: told without a traceback."""


class Done(NamedTuple):
    """How a verb ended.

    Attributes:
        status: the process's exit status.
        objective: what an Optuna sweep maximises: the validation SRCC, never the test's.
    """

    status: int = 0
    objective: float | None = None


def config_folder(name: str) -> Path:
    """``conf``, ``experiments`` or ``sweeps``: inside an installed package, else beside src/."""
    installed = Path(__file__).parents[1] / name
    return installed if installed.is_dir() else Path(__file__).parents[3] / name


class _RecipePath(SearchPathPlugin):
    """Lets ``experiment=`` and ``sweep=`` find the recipes in experiments/*/ and sweeps/."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in recipe_folders():
            search_path.append("latentiqa", f"file://{folder}")


def recipe_folders() -> list[Path]:
    """Folders that hold an ``experiment`` or a ``sweep`` group."""
    studies = sorted(config_folder("experiments").glob("*/experiment"))
    return [*(study.parent for study in studies), config_folder("sweeps")]


def register_search_path() -> None:
    """Make Hydra's compose find every recipe; done once a process."""
    if _RecipePath not in Plugins.instance().discover(SearchPathPlugin):
        Plugins.instance().register(_RecipePath)


def launch(verb: str, overrides: Sequence[str]) -> int:
    """Compose the verb's config and run it.

    Args:
        verb: name of a module in this package that has ``run(config) -> Done``.
        overrides: Hydra's arguments.

    Returns:
        Exit status: 0, or 1 after an error that was explained.
    """
    register_search_path()
    _set_up_logging()
    module = import_module(f"latentiqa.commands.{verb}")
    as_typed = sys.argv
    statuses: list[int] = []
    switch = {FULL_ERROR: os.environ.pop(FULL_ERROR, "0")}

    def task(config: DictConfig) -> float | None:
        os.environ.update(switch)
        # Lightning starts further ranks by typing the command line again: it must see the real
        # one, and not take Hydra's (this run's folder is its signature, so ranks agree on it).
        sys.argv = as_typed
        try:
            refuse_sweeps_over_ranks(config)
            config = with_choices(config)
            HydraConfig.instance().cfg = None
            done: Done = module.run(config)
        except (LatentiqaError, OmegaConfBaseException) as error:
            explain(error)
            # Not an Exception, so Hydra adds no traceback; a sweep ends here.
            sys.exit(1)
        except OSError as error:
            if error.errno not in NO_PLACE:
                raise
            explain(error)
            sys.exit(1)
        statuses.append(done.status)
        return done.objective

    entry = hydra.main(
        version_base="1.3", config_path=str(config_folder("conf")), config_name=verb
    )(task)
    key = getattr(module, "POSITIONAL", None)
    overrides = gather_paths(list(overrides), key) if key else overrides
    sys.argv = [f"latentiqa {verb}", *overrides]
    try:
        refuse_null_groups(overrides)
        # What is wrong until the work begins was typed: it is explained here, in a line.
        os.environ[FULL_ERROR] = "1"
        entry()
    except (ConfigError, CompactHydraException, YAMLError) as error:
        if switch[FULL_ERROR] == "1":
            raise
        explain(error)
        return 1
    finally:
        sys.argv = as_typed
        os.environ.update(switch)
    return max(statuses, default=0)


def with_choices(config: DictConfig) -> DictConfig:
    """The config with the name of the choice of each group, for tables."""
    groups = HydraConfig.get().runtime.choices
    choices = {str(group): name for group, name in groups.items() if "/" not in str(group)}
    if "psi" not in config.get("guidance", {}):
        # A psi that no guidance takes is not part of the run.
        choices.pop("perceptual", None)
    with open_dict(config):
        config.choices = choices
    return config


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


def refuse_sweeps_over_ranks(config: DictConfig) -> None:
    """Refuse multirun together with several processes.

    Each rank would sweep again by itself, and a sampler such as Optuna's would hand different
    values to the ranks of one job, silently.

    Raises:
        ConfigError: both are asked for.
    """
    sweeping = HydraConfig.get().mode == RunMode.MULTIRUN
    devices = OmegaConf.select(config, "trainer.devices", default=1)
    one = len(devices) == 1 if isinstance(devices, ListConfig) else str(devices) == "1"
    if sweeping and not one:
        raise ConfigError(
            f"trainer.devices={devices} with -m: a sweep runs one device a job. Set "
            "trainer.devices=1 (and start one sweep a GPU with CUDA_VISIBLE_DEVICES), or run "
            "without -m."
        )


def build(config: Any, **arguments: Any) -> Any:
    """``hydra.utils.instantiate`` whose errors are the class's own.

    Raises:
        LatentiqaError: what the class said of a value.
    """
    try:
        return hydra.utils.instantiate(config, _convert_="all", **arguments)
    except InstantiationException as error:
        cause = error.__cause__
        while isinstance(cause, InstantiationException):
            cause = cause.__cause__
        if isinstance(cause, LatentiqaError):
            raise cause from None
        # The class fell over a value before it could say which.
        values = OmegaConf.to_yaml(config).strip()
        raise ConfigError(f"{error}\nOne of these values is not of its kind:\n{values}") from error


def explain(error: Exception) -> None:
    """Print an error for a person, on stderr."""
    message = str(error).strip()
    match error:
        case MissingConfigException(missing_cfg_file=str(choice), options=[*known]):
            group, _, name = choice.rpartition("/")
            # What was probably meant, if anything is like it, comes first.
            like = get_close_matches(name, known)
            rest = [choice for choice in known if choice not in like]
            message = f"{group}={name}: expected one of {', '.join(like + rest)}."
        case CompactHydraException():
            cause = str(error.__cause__ or "").partition("\n")[0]
            message = " ".join(message.split()) + (f" ({cause})" if cause else "")
        case OSError():
            message = f"{error.filename or 'a file'}: {error.strerror}; what was written is kept."
        case YAMLError():
            message = " ".join(message.split())  # which names file, line and column
        case OmegaConfBaseException() if "Missing mandatory value" in message:
            key = getattr(error, "full_key", None) or message.rsplit(" ", 1)[-1]
            message = f"{key} is not set: add {key}=... to the command line."
        case ConfigAttributeError() if "is not in struct" in message:
            message = f"{error.full_key} is not in the config: it is needed, do not remove it."
    # Not wrapped: paths in it can be copied. Not markup: names of files may hold brackets.
    Console(stderr=True).print(Text.assemble(("error:", "bold red"), f" {message}"), soft_wrap=True)


def _set_up_logging() -> None:
    """Progress of the work goes to stderr; results alone go to stdout."""
    console = Console(stderr=True)
    handler: logging.Handler = logging.StreamHandler()  # whole lines, for log files
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, show_time=False, show_level=False)
    log.handlers = [handler]
    # The further processes of a multi-device run would say everything again.
    log.setLevel(logging.WARNING if int(os.environ.get("LOCAL_RANK", "0")) else logging.INFO)
    log.propagate = False
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
    # A run that goes on writes its logs anew.
    warnings.filterwarnings("ignore", message="Experiment logs directory .* exists")
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists")
    # Frozen models stay in evaluation mode while others are trained.
    warnings.filterwarnings("ignore", message=r"Found .* module\(s\) in eval mode")
