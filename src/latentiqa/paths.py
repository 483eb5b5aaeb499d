"""Where files that can be made again are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """The folder for built data: nothing in it is precious.

    Returns:
        ``$LATENTIQA_CACHE`` if set, else ``$XDG_CACHE_HOME/latentiqa``, else
        ``~/.cache/latentiqa``. The folder need not exist.
    """
    if own := os.environ.get("LATENTIQA_CACHE"):
        return Path(own).expanduser()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg).expanduser() / "latentiqa"
    return Path.home() / ".cache" / "latentiqa"
