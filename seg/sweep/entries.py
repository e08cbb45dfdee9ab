"""Trials that are known before they are asked for: a grid's jobs, a space's points, and those a search starts from."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from seg.errors import ConfigError, nearest, together
from seg.sweep.space import Parameter, Space


@dataclass(frozen=True)
class Job:
    """A trial that is known beforehand: of a grid, or one that a search starts from."""

    params: Mapping[str, Any]  # a search draws those that are not given
    overrides: tuple[str, ...] = ()  # of a grid; a search works them out


def entry(what: Any, time: int = 1) -> str:
    """The name by which the ``time``-th trial of these overrides, or these values, is known again."""
    return f"{json.dumps(what, sort_keys=True)} {time}"


def starts(space: Space, jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """The values of the jobs that a search starts from, as the search would draw them itself.

    Raises:
        ConfigError: with every key and value that is not searched.
    """
    faults: list[str] = []
    out = [dict(_known(space, job.params, faults)) for job in jobs]
    known = {parameter.key: parameter for parameter in space.parameters}
    faults += [
        f"hydra.sweeper.enqueue: {key} is not asked for with {other}={values[other]}."
        for values in out
        for key in values
        for other, allowed in known[key].when.items()
        if other in values and values[other] not in allowed
    ]
    together(ConfigError, faults)
    return out


def _known(space: Space, params: Mapping[str, Any], faults: list[str]) -> Iterator[tuple[str, Any]]:
    known = {parameter.key: parameter for parameter in space.parameters}
    for key, value in params.items():
        if key not in known:
            faults.append(f"hydra.sweeper.enqueue names '{key}', which is not searched.{nearest(key, list(known))}")
        elif (read := _read(known[key], value)) is None:
            faults.append(f"hydra.sweeper.enqueue: {key}={value} is not among what is searched: {known[key]}.")
        else:
            yield key, read


def _read(parameter: Parameter, value: Any) -> Any:
    """What ``parameter`` would draw for a value of a YAML file, or for its text as it stands in an override."""
    read = parameter.read(value)
    if read is None and isinstance(value, str) and not parameter.choices:
        with suppress(ValueError):
            return parameter.read(float(value))
    return value if read is None and value in parameter.choices else read


def grid_points(space: Space) -> Iterator[dict[str, Any]]:
    """The values of every point of a space without continuous parameters."""
    pending: list[list[Any]] = [[]]  # beginnings of points
    while pending:
        start = pending.pop()
        chosen: list[Any] = []

        def choose(parameter: Parameter, start: list[Any] = start, chosen: list[Any] = chosen) -> Any:
            if len(chosen) < len(start):
                chosen.append(start[len(chosen)])
            else:
                first, *others = _values(parameter)
                pending.extend([*chosen, other] for other in reversed(others))
                chosen.append(first)
            return chosen[-1]

        yield space.suggest(choose)


def _values(parameter: Parameter) -> list[Any]:
    if parameter.choices:
        return list(parameter.choices)
    low, high, step = (Decimal(str(number)) for number in (parameter.low, parameter.high, parameter.step or 1))
    number = int if parameter.integer else float
    return [number(low + place * step) for place in range(int((high - low) / step) + 1)]
