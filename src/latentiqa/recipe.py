"""What changes a computed value, as plain data: the address of stored results."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

UNRECORDED = {"recipe": "never"}
"""Metadata of a dataclass's field that changes no result: it is no part of the description."""


def recipe_of(value: Any) -> Any:
    """Describe a frozen description (a dataclass of plain values) as JSON-able data.

    Args:
        value: a dataclass instance, a sequence, a mapping or a plain value, nested.

    Returns:
        The same, with each dataclass as a dict of its class name and its fields.

    Raises:
        TypeError: something has no plain description, so that two different ones could share an
            address.

    Example:
        >>> from latentiqa.data.views import Square
        >>> recipe_of(Square(256))
        {'class': 'Square', 'size': 256}
    """
    if is_dataclass(value) and not isinstance(value, type):
        described = {
            f.name: recipe_of(getattr(value, f.name))
            for f in fields(value)
            if f.metadata != UNRECORDED
        }
        return {"class": type(value).__name__} | described
    if isinstance(value, dict):
        return {str(key): recipe_of(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [recipe_of(item) for item in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"{type(value).__name__} has no plain description; make it a dataclass.")
