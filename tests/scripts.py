"""The scripts beside the studies in experiments/, loaded from their files."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

from latentiqa.commands.search_path import config_folder


def script(study: str, name: str) -> ModuleType:
    """``experiments/<study>/<name>.py``, whose ``main`` nothing has called yet."""
    title = f"{study}_{name}"
    spec = spec_from_file_location(title, config_folder("experiments") / study / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[title] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
