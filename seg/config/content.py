"""Configurations and what users type as plain data."""

import re
from contextlib import suppress
from typing import Any


def number(value: Any) -> Any:
    """The number that a text is; any other value as it is."""
    for kind in (int, float):
        with suppress(ValueError, TypeError):
            return kind(value) if isinstance(value, str) else value
    return value


def first_line(error: BaseException) -> str:
    """The first line of a library's message, and the second where the first only announces it, without a full stop."""
    first, *rest = [" ".join(line.split()).rstrip(".") for line in str(error).split("\n")]
    line = f"{first} {rest[0]}" if first.endswith(":") and rest else first
    return re.sub(r'^\w+ raised while resolving interpolation: "(.*)"', r"\1", line)
