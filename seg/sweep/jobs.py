"""What a sweep runs: the jobs of a grid, or the space that a search chooses from."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from types import SimpleNamespace
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import FloatRange, Override
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from seg.errors import ConfigError, nearest, together
from seg.sweep.syntax import FORMS, key_of, lines_of, meant, parsed, same_shuffle, texts

Value = str | int | float  # of a parameter: a text as in an override, or a number
Distribution = CategoricalDistribution | IntDistribution | FloatDistribution


@dataclass(frozen=True)
class Parameter:
    """A key that a search varies, among texts or between two numbers."""

    key: str  # without prefix
    prefix: str = ""  # "", "+" or "++"
    choices: tuple[str, ...] = ()  # texts as written in an override; empty for numbers
    low: float = 0  # of numbers; both bounds are included
    high: float = 0
    step: float | None = None
    log: bool = False
    integer: bool = False
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # asked where each of these has one of the values

    def __str__(self) -> str:
        """What varies, in Hydra's syntax."""
        if self.step:
            return f"range({self.low},{self.high + (1 if self.integer else self.step / 2)},{self.step})"
        interval = f"interval({self.low},{self.high})"
        return ",".join(self.choices) or (f"tag(log,{interval})" if self.log else interval)

    def asked(self, values: Mapping[str, Value]) -> bool:
        """Whether a trial that has ``values`` has this parameter, too."""
        return all(values.get(key) in allowed for key, allowed in self.when.items())

    @property
    def ends(self) -> tuple[Value, ...]:
        """All choices, or both bounds."""
        return self.choices or (self.low, self.high)

    @property
    def distribution(self) -> Distribution:
        """What Optuna draws its values from."""
        if self.choices:
            return CategoricalDistribution(self.choices)
        if self.integer:
            return IntDistribution(int(self.low), int(self.high), self.log, int(self.step or 1))
        return FloatDistribution(self.low, self.high, self.log, self.step)

    @property
    def countable(self) -> bool:
        """Whether its values can be listed."""
        return bool(self.choices or self.integer or self.step)

    def values(self) -> list[Value]:
        """All of them, of a countable parameter."""
        if self.choices:
            return list(self.choices)
        low, high, step = (Decimal(str(number)) for number in (self.low, self.high, self.step or 1))
        number = int if self.integer else float
        return [number(low + place * step) for place in range(int((high - low) / step) + 1)]

    def read(self, value: object) -> Value | None:
        """A value from a YAML file as a search would draw it; None where it is no value of this parameter.

        A text may also be the value as in an override.
        """
        if self.choices:
            return meant(value, self.choices) or next((text for text in self.choices if text == value), None)
        if isinstance(value, str):
            with suppress(ValueError):
                value = float(value)
        slack = 1e-6 * (self.step or 0)  # Hydra's sums of steps end a little beyond the bounds
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if not self.low - slack <= value <= self.high + slack:
            return None
        steps = (value - self.low) / (self.step or 1)
        if (self.step or self.integer) and abs(steps - round(steps)) > 1e-6:
            return None
        return round(value) if self.integer else float(min(max(value, self.low), self.high))

    def override(self, value: Value) -> str:
        """``key=value``, which Hydra reads as this very value; in a range of floats, as Hydra's own one."""
        if not self.choices:
            value = int(value) if self.integer else float(value)
            if self.step and not self.integer:
                count = round((value - self.low) / self.step)
                value = next(islice(FloatRange(self.low, math.inf, self.step), count, None))
        return f"{self.prefix}{self.key}={value}"


@dataclass(frozen=True)
class Entry:
    """A trial that is known beforehand."""

    params: Mapping[str, Value]  # what makes it differ; a search draws those that are not given
    overrides: tuple[str, ...] = ()  # of a grid; a search works them out


@dataclass(frozen=True)
class Space:
    """What a search chooses from."""

    parameters: tuple[Parameter, ...]  # each after those that it depends on
    fixed: tuple[str, ...] = ()  # the overrides that do not vary

    @property
    def conditional(self) -> bool:
        """Whether some parameter depends on another one."""
        return any(parameter.when for parameter in self.parameters)

    def overrides(self, values: Mapping[str, Value]) -> list[str]:
        """The overrides of the trial that has these values."""
        known = {parameter.key: parameter for parameter in self.parameters}
        return [*self.fixed, *(known[key].override(value) for key, value in values.items())]

    def suggest(self, choose: Callable[[Parameter], Value]) -> dict[str, Value]:
        """The values that ``choose`` gives; a parameter whose ``when`` does not hold is left out."""
        values: dict[str, Value] = {}
        for parameter in self.parameters:
            if parameter.asked(values):
                values[parameter.key] = choose(parameter)
        return values

    def points(self, begun: Mapping[str, Value] | None = None, depth: int = 0) -> Iterator[dict[str, Value]]:
        """Every combination of values, where all parameters are countable."""
        values = dict(begun or {})
        if depth == len(self.parameters):
            yield values
        elif (parameter := self.parameters[depth]).asked(values):
            for value in parameter.values():
                yield from self.points(values | {parameter.key: value}, depth + 1)
        else:
            yield from self.points(values, depth + 1)

    def starts(self, trials: Iterable[Mapping[str, object]]) -> list[dict[str, Value]]:
        """The trials of ``hydra.sweeper.enqueue`` as the search would draw them itself.

        Raises:
            ConfigError: with every key and value that is not searched.
        """
        faults: list[str] = []
        out = [dict(self._read(trial, faults)) for trial in trials]
        known = {parameter.key: parameter for parameter in self.parameters}
        faults += [
            f"hydra.sweeper.enqueue: {key} is not searched with {other}={values[other]}."
            for values in out
            for key in values
            for other, allowed in known[key].when.items()
            if other in values and values[other] not in allowed
        ]
        together(ConfigError, faults)
        return out

    def _read(self, trial: Mapping[str, object], faults: list[str]) -> Iterator[tuple[str, Value]]:
        known = {parameter.key: parameter for parameter in self.parameters}
        for key, value in trial.items():
            if key not in known:
                faults.append(f"hydra.sweeper.enqueue names '{key}', which is not searched.{nearest(key, list(known))}")
            elif (read := known[key].read(value)) is None:
                faults.append(f"hydra.sweeper.enqueue: {key}={value} is not among what is searched: {known[key]}.")
            else:
                yield key, read

    def examples(self) -> list[list[str]]:
        """The overrides of a few trials that together use every choice and every bound that can be reached."""
        unused = {(parameter.key, end) for parameter in self.parameters for end in parameter.ends}
        trials: list[dict[str, Value]] = []
        for wanted in self.parameters:
            needed = self._needed(wanted)

            def choose(parameter: Parameter, needed: Mapping[str, Sequence[str]] = needed) -> Value:
                fitting = [end for end in parameter.ends if end in needed.get(parameter.key, parameter.ends)]
                return next((end for end in fitting if (parameter.key, end) in unused), (fitting or parameter.ends)[0])

            while any((wanted.key, end) in unused for end in wanted.ends):
                values = self.suggest(choose)
                if wanted.key not in values:
                    break
                trials.append(values)
                unused.difference_update(values.items())
        return [self.overrides(values) for values in trials] or [list(self.fixed)]

    def _needed(self, wanted: Parameter) -> dict[str, Sequence[str]]:
        """The values that others must have for ``wanted`` to be asked, those that it depends on indirectly too."""
        known = {parameter.key: parameter for parameter in self.parameters}
        needed: dict[str, Sequence[str]] = {}
        chain = [wanted]
        for parameter in chain:
            for key, allowed in parameter.when.items():
                needed[key] = [value for value in needed.get(key, allowed) if value in allowed]
                chain.append(known[key])
        return needed


@same_shuffle()
def grid(overrides: Sequence[str], params: Mapping[str, Any], config_loader: Any) -> list[list[str]]:
    """The overrides of every job that Hydra's basic sweeper would run, in its order.

    Args:
        overrides: of the command line.
        params: ``hydra.sweeper.params`` in plain containers; the command line wins where both name a key.
        config_loader: Hydra's, which knows the options of each group.

    Raises:
        ConfigError: lists every fault.
    """
    given, faults = parsed([*lines_of(params), *overrides], config_loader)
    faults += [
        f"{override.input_line}: a grid cannot take interval(…); set hydra.sweeper.n_trials=… to search, "
        "or name the values by choice(…)."
        for override in given
        if override.is_interval_sweep()
    ]
    together(ConfigError, faults)
    jobs: list[list[str]] = BasicSweeper.split_arguments(given, None)[0]
    return jobs


@same_shuffle()
def read_space(
    overrides: Sequence[str], params: Mapping[str, Any], when: Mapping[str, Any], options: Callable[[str], list[str]]
) -> Space:
    """The space that a search chooses from.

    A key with one value that ``when`` speaks of is a parameter too, with this one choice: so the conditions of a study
    hold as well where the command line fixes what the study varies.

    Args:
        overrides: of the command line.
        params: ``hydra.sweeper.params`` in plain containers; the command line wins where both name a key.
        when: ``{key: {other: value or values}}``: ``key`` is asked only where each ``other`` has one of its values.
        options: the names in a group, for ``glob``.

    Raises:
        ConfigError: lists every fault.
    """
    loader = SimpleNamespace(get_group_options=lambda group, **_: options(group))
    given, faults = parsed(overrides, loader)
    preset, more = parsed(lines_of(params), loader)
    faults += more
    readable = not faults
    chosen = {key_of(override): override for override in [*preset, *given]}
    faults += [*_twice(preset), *_twice(given), *(fault for one in chosen.values() for fault in _number_faults(one))]
    known: dict[str, dict[str, None]] = {}  # with those that the command line left out: `when` may still name them
    for override in [*preset, *given]:
        choices = () if override.is_range_sweep() else texts(override)
        known.setdefault(key_of(override), {}).update(dict.fromkeys(choices))
    varied = [key for key, override in chosen.items() if override.is_sweep_override()]
    conditions, more = _conditions(when, known, varied)
    if not varied:
        more.append(f"A search varies at least one key; here none is varied. The forms are {FORMS}.")
    together(ConfigError, faults + more if readable else faults)  # a line that cannot be read would be missed by `when`
    return Space(
        tuple(_parameter(chosen[key], asked) for key, asked in conditions.items()),
        tuple(f"{one.get_key_element()}={texts(one)[0]}" for key, one in chosen.items() if key not in conditions),
    )


def _conditions(
    when: Mapping[str, Any], known: Mapping[str, Collection[str]], varied: Sequence[str]
) -> tuple[dict[str, dict[str, tuple[str, ...]]], list[str]]:
    """The ``when`` of each parameter, after those of the parameters that it depends on; and the faults."""
    conditions: dict[str, dict[str, tuple[str, ...]]] = {key: {} for key in varied}
    faults = []
    for key, asked in when.items():
        if not isinstance(asked, Mapping):
            faults.append(f"hydra.sweeper.when.{key} is {asked!r}; it must be a condition, such as {{model: unetpp}}.")
            continue
        for name in (name for name in (key, *asked) if name not in known):
            faults.append(f"hydra.sweeper.when.{key} names '{name}', which is not swept.{nearest(name, list(known))}")
        for other, values in asked.items():
            wanted = values if isinstance(values, list) else [values]
            found = [meant(value, known.get(other, ())) for value in wanted]
            conditions.setdefault(other, {})
            conditions.setdefault(key, {})[other] = tuple(text for text in found if text is not None)
            if other in known and (None in found or not found):
                wrong = [repr(value) for value, text in zip(wanted, found, strict=True) if text is None]
                rule = f"its choices are {', '.join(known[other])}" if known[other] else "only a choice(…) can be named"
                faults.append(f"hydra.sweeper.when.{key}: {', '.join(wrong)} is not a choice of {other}; {rule}.")
    try:
        order = list(TopologicalSorter({key: list(asked) for key, asked in conditions.items()}).static_order())
    except CycleError as error:
        order = []
        faults.append(f"hydra.sweeper.when is circular: {' → '.join(error.args[1])}. Leave one of these out.")
    return {key: conditions[key] for key in order}, faults


def _parameter(override: Override, when: Mapping[str, tuple[str, ...]]) -> Parameter:
    value, key = override.value(), key_of(override)
    prefix = override.get_key_element().removesuffix(key)
    if override.is_interval_sweep():
        numbers, step = [value.start, value.end], None
    elif override.is_range_sweep():
        numbers, step = sorted(override.sweep_iterator()), abs(value.step)
    else:
        return Parameter(key, prefix, tuple(dict.fromkeys(texts(override))), when=when)
    integer = _whole(numbers)
    number = int if integer else float
    low, high = number(numbers[0]), number(numbers[-1])
    if step is not None:  # a bound that Optuna too finds to be a whole number of steps away
        step = number(step)
        high = number(Decimal(repr(low)) + (len(numbers) - 1) * Decimal(repr(step)))
    return Parameter(key, prefix, (), low, high, step, "log" in value.tags, integer, when)


def _number_faults(override: Override) -> Iterator[str]:
    value, line = override.value(), override.input_line
    tags: set[str] = getattr(value, "tags", set())
    if tags and (tags != {"log"} or not override.is_interval_sweep()):
        yield f"{line}: the tag {', '.join(sorted(tags))} would be ignored. The one tag is tag(log,interval(low,high))."
    if not override.is_interval_sweep():
        return
    low, high = value.start, value.end
    if not -math.inf < low < high < math.inf:
        yield f"{line}: an interval goes from a finite number up to a greater one, such as interval(0.1,0.5)."
    elif "log" in tags and low <= 0:
        yield f"{line}: a logarithm needs numbers above 0. Raise the lower bound, or leave tag(log,…) out."
    elif _whole([low, high]) and high - low == 1:
        yield (
            f"{line} has whole bounds and so holds just {low} and {high}. Write interval({low}.0,{high}.0) for the "
            f"numbers between, or choice({low},{high})."
        )


def _twice(overrides: Sequence[Override]) -> list[str]:
    keys = [*map(key_of, overrides)]
    twice = [key for key in dict.fromkeys(keys) if keys.count(key) > 1]
    return [f"{key} is given {keys.count(key)} times; a search takes each key once." for key in twice]


def _whole(numbers: Iterable[float]) -> bool:
    return all(isinstance(number, int) for number in numbers)
