"""What a key takes: a value of one type within a range, or one of some words."""

import math
from dataclasses import dataclass

from seg.config.content import number

_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


@dataclass(frozen=True)
class Kind:
    """What a key takes: a value of one type within a range, or one of some words."""

    type: type[int] | type[float] | type[bool] | type[str] | None  # None: only the words
    words: tuple[str | None, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    many: bool = False  # a list of such values

    def read(self, value: object) -> object:
        """The value in the type of its key, also where a text holds a number, or a number stands for a text.

        Raises:
            ValueError: the key does not take it.
        """
        if (value is None or isinstance(value, str)) and value in self.words:
            return value
        if self.many and isinstance(value, list):
            return [self._one(item) for item in value]
        if self.many or isinstance(value, list):
            raise ValueError
        return self._one(value)

    def _one(self, value: object) -> object:
        if self.type is bool and str(value).lower() in ("true", "false"):
            return str(value).lower() == "true"
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            if self.type is str:
                return str(value)
            read = number(value)
            if self.type is int and isinstance(read, int) and self.low <= read <= self.high:
                return read
            if self.type is float and isinstance(read, int | float) and self._within(read):
                return float(read)
        raise ValueError

    def _within(self, read: float) -> bool:
        return self.low <= read <= self.high and math.isfinite(read)

    def __str__(self) -> str:
        words = ["null" if word is None else word for word in self.words]
        if self.type is None:
            return f"one of {', '.join(words)}"
        low = f" from {self.low}" if math.isfinite(self.low) else ""
        high = f" to {self.high}" if math.isfinite(self.high) else ""
        one = f"{_NAMES[self.type]}{low}{high}"
        return ", or ".join([f"a list, each {one}" if self.many else one, *words])


def whole(low: int, *words: str | None, high: float = math.inf) -> Kind:
    """A whole number within bounds, or one of the words."""
    return Kind(int, words, low, high)


def real(low: float, *words: str | None, high: float = math.inf) -> Kind:
    """A number within bounds, or one of the words."""
    return Kind(float, words, low, high)


def choice(*words: str | None) -> Kind:
    """One of the words."""
    return Kind(None, words)
