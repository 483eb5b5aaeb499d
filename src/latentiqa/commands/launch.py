"""Between Hydra and the verbs: what was typed becomes a config, and errors a status."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.logging import RichHandler
from yaml import YAMLError

from latentiqa.commands.mistakes import NO_PLACE, explain, refuse_bare_words, refuse_null_groups
from latentiqa.commands.positional import gather_paths
from latentiqa.commands.search_path import config_folder, register_search_path
from latentiqa.errors import ConfigError, LatentiqaError

log = logging.getLogger("latentiqa")

FULL_ERROR = "HYDRA_FULL_ERROR"
"""Hydra's own switch: it raises errors in place of printing them."""


class Done(NamedTuple):
    """How a verb ended.

    Attributes:
        status: the process's exit status.
        objective: what an Optuna sweep maximises: the validation SRCC, never the test's.
    """

    status: int = 0
    objective: float | None = None


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
        refuse_bare_words(verb, overrides)
        refuse_null_groups(overrides)
        # What is wrong until the work begins was typed: it is explained here, in a line.
        os.environ[FULL_ERROR] = "1"
        entry()
    except (ConfigError, CompactHydraException, YAMLError) as error:
        if switch[FULL_ERROR] == "1":
            raise
        explain(error, verb)
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
