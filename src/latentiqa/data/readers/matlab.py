"""MATLAB files: one variable a time, flat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentiqa.errors import DataError


def read_mat(path: Path, *names: str) -> list[NDArray[Any]]:
    """Variables of a MATLAB file (version 5 to 7), each as an array of one dimension.

    A cell array of texts becomes an array of `str`.

    Args:
        path: the file.
        *names: of the variables; all must have the same length.

    Raises:
        DataError: the file is missing or broken, or lacks a variable, or lengths differ.
    """
    from scipy.io import loadmat

    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a MATLAB file with {', '.join(names)}")
    try:
        content = loadmat(path, squeeze_me=True)
    except Exception as error:  # SciPy raises what its parser stumbles over
        raise DataError(f"{path}: not a MATLAB file of version 5 to 7 ({error})") from error
    if absent := [name for name in names if name not in content]:
        found = ", ".join(name for name in content if not name.startswith("__"))
        raise DataError(f"{path}: no variable {', '.join(absent)}; the file has {found}")
    variables = [np.atleast_1d(content[name]).ravel() for name in names]
    lengths = {name: len(values) for name, values in zip(names, variables, strict=True)}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{path}: variables of different lengths, {lengths}")
    return variables
