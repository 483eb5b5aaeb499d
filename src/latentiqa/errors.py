"""The errors that a user can mend; commands print their message without a traceback."""

from __future__ import annotations


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


class DataError(LatentiqaError):
    """A dataset, a manifest or a picture is not what its layout promises."""


class StoreError(LatentiqaError):
    """The feature store cannot be read or written."""
