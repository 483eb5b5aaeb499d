"""The errors that a user can mend; commands print their message without a traceback."""

from __future__ import annotations


class LatentiqaError(Exception):
    """Base of all errors raised on purpose: the message names what was wrong and the way out."""


class ConfigError(LatentiqaError, ValueError):
    """An argument or a config value is outside its range."""


class DataError(LatentiqaError):
    """A dataset, a manifest or a picture is not what its layout promises."""


class StoreError(LatentiqaError):
    """The feature store cannot be read or written."""
