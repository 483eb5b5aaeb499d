"""Where Hydra finds configs and recipes."""

from __future__ import annotations

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin


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
