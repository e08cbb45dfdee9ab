"""Hydra's override syntax, read by Hydra's own parser: values stay the text that Hydra would give to a job.

Two things are added to it: an interval with whole bounds keeps them whole, and ``shuffle`` gives the same order each
time.
"""

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser, create_functions
from hydra.core.override_parser.types import IntervalSweep, Override, Quote, QuotedString, RangeSweep
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from seg.config.content import flat

FORMS = (
    "a,b,c · choice(a,b) · range(start,stop,step) · interval(low,high) · tag(log,interval(low,high)) · "
    "glob(*) of a group's options; a text with unusual characters is written in quotes"
)
_UNREADABLE = (HydraException, OmegaConfBaseException, AssertionError, ArithmeticError, TypeError, ValueError)


@contextmanager
def same_shuffle() -> Iterator[None]:
    """Lets Hydra's ``shuffle`` give the same order each time: a sweep that continues must find its own jobs again."""
    state = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(state)


def parsed(lines: Sequence[str], config_loader: Any) -> tuple[list[Override], list[str]]:
    """What can be read; and a fault for each line that cannot, that holds no value, or that sweeps Hydra itself."""
    overrides, faults = [], []
    for line in lines:
        try:
            override = _parser(config_loader).parse_overrides([line])[0]
            if override.is_sweep_override() and override.is_hydra_override():
                raise ValueError("Hydra's own settings take one value and cannot be swept")
            texts(override)
            overrides.append(override)
        except _UNREADABLE as error:
            faults.append(f"{line}: {_reason(error)}.")
    if faults:  # once for all
        faults[-1] += f" The forms are {FORMS}."
    return overrides, faults


def texts(override: Override) -> list[str]:
    """The values of an override as Hydra writes them; none for an interval.

    Raises:
        ValueError: there are none, or no end of them.
    """
    if override.is_interval_sweep():
        return []
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    value = override.value()
    if isinstance(value, RangeSweep) and not all(map(math.isfinite, (value.start, value.stop, value.step))):
        raise ValueError("the numbers of a range are finite")
    found = list(override.sweep_string_iterator())
    if not found:
        raise ValueError("it holds no value; a range stops before its end, a glob selects among a group's options")
    return found


def key_of(override: Override) -> str:
    """The key without + or ++."""
    return str(override.get_key_element()).lstrip("+")


def lines_of(params: Mapping[str, Any]) -> list[str]:
    """A section such as ``hydra.sweeper.params`` as overrides.

    Args:
        params: plain containers. A text is in Hydra's syntax, a list is a choice of its values, all else is one value.
    """
    return [f"{key}={value if isinstance(value, str) else _choice(value)}" for key, value in flat(params).items()]


def meant(value: Any, among: Iterable[str]) -> str | None:
    """The text that Hydra reads as exactly this value."""
    for text in among:
        with suppress(*_UNREADABLE):
            read = _parser().parse_override(f"key={text}").value()
            if type(read) is type(value) and read == value:
                return text
    return None


def _choice(value: Any) -> str:
    if not isinstance(value, list):
        return _written(value)
    return ",".join(map(_written, value)) or "choice()"  # in choice(…) Hydra forgets quotes and refuses null


def _written(value: Any) -> str:
    """A plain value as Hydra writes it; a text that Hydra would read as something else in quotes."""
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, str) and not meant(value, [value]):
        value = QuotedString(value, Quote.single)
    return str(Override._get_value_element_as_str(value))


def _reason(error: Exception) -> str:
    if isinstance(error, OmegaConfBaseException | AssertionError):  # what Hydra stumbles over then
        return "a sweep cannot be inside a list or another sweep"
    lines = [line.strip() for line in str(error).split("\n") if not line.startswith(("Error parsing", "See http"))]
    return " ".join(lines).rstrip(" .^")


def _parser(config_loader: Any = None) -> OverridesParser:
    functions = create_functions()
    functions.functions["interval"] = lambda start, end: IntervalSweep(start=start, end=end)  # Hydra's makes floats
    return OverridesParser(functions, config_loader)
