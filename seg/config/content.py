"""Configurations and what users type as plain data."""

from contextlib import suppress
from typing import Any


def number(value: Any) -> Any:
    """The number that a text is; any other value as it is."""
    for kind in (int, float):
        with suppress(ValueError, TypeError):
            return kind(value) if isinstance(value, str) else value
    return value
