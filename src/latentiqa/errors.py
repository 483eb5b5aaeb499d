"""The errors that a user can mend; commands print their message without a traceback."""

from __future__ import annotations

import math
from typing import TypeGuard


class LatentiqaError(Exception):
    """Base of all errors raised on purpose: the message names what was wrong and the way out."""


class ConfigError(LatentiqaError, ValueError):
    """An argument or a config value is outside its range."""


def check_integer(key: str, value: object, least: int) -> None:
    """Refuse what is no integer, or too small a one.

    Args:
        key: what the user calls the value.
        value: as it was given.
        least: the smallest that is allowed.

    Raises:
        ConfigError: it is something else.

    Example:
        >>> check_integer("steps", 0, least=1)
        Traceback (most recent call last):
        latentiqa.errors.ConfigError: steps=0: expected an integer >= 1.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{key}={value}: expected an integer >= {least}.")


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a config's value is a finite number; true and false are none.

    Example:
        >>> [is_number(value) for value in (1, 0.5, True, float("inf"), "1")]
        [True, True, False, False, False]
    """
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def check_number(key: str, value: object, *, positive: bool) -> None:
    """Refuse what is no finite number, or not above 0 or at least 0.

    Args:
        key: what the user calls the value.
        value: as it was given.
        positive: 0 is refused, too.

    Raises:
        ConfigError: it is something else.

    Example:
        >>> check_number("lr", 0, positive=True)
        Traceback (most recent call last):
        latentiqa.errors.ConfigError: lr=0: expected a positive number.
    """
    if not is_number(value) or value < 0 or (positive and value == 0):
        expected = "a positive number" if positive else "a number >= 0"
        raise ConfigError(f"{key}={value}: expected {expected}.")


class DataError(LatentiqaError):
    """A dataset, a manifest or a picture is not what its layout promises."""


class StoreError(LatentiqaError):
    """The feature store cannot be read or written."""
