"""What a sweep varies, read by Hydra's own parser. A search chooses among it; a grid is every combination, once."""

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from graphlib import CycleError, TopologicalSorter

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser, create_functions
from hydra.core.override_parser.types import IntervalSweep, Override, Quote, QuotedString, RangeSweep
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import create_trial

from seg.config.compose import keys_of
from seg.config.content import flat, number
from seg.errors import ConfigError, nearest, together

Value = str | int | float  # of a parameter: a text as in an override, or a number
Distribution = CategoricalDistribution | IntDistribution | FloatDistribution
_UNREADABLE = (HydraException, OmegaConfBaseException, AssertionError, ArithmeticError, TypeError, ValueError)
_TRIES = 10_000  # draws in which examples of every choice are looked for


@dataclass(frozen=True)
class Parameter:
    """A key that a sweep varies."""

    key: str  # without prefix
    text: str  # its values, in Hydra's syntax
    distribution: Distribution  # what Optuna draws from; choices are texts as written in an override
    prefix: str = ""  # "", "+" or "++"
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # asked where each of these has one of the values

    @property
    def choices(self) -> tuple[str, ...]:
        """All values; none where they are numbers."""
        values = self.distribution
        return tuple(map(str, values.choices)) if isinstance(values, CategoricalDistribution) else ()

    @property
    def ends(self) -> tuple[Value, ...]:
        """All choices, or both bounds."""
        values = self.distribution
        return self.choices if isinstance(values, CategoricalDistribution) else (values.low, values.high)

    def asked(self, values: Mapping[str, Value]) -> bool:
        """Whether a trial that has ``values`` has this parameter, too."""
        return all(values.get(key) in allowed for key, allowed in self.when.items())


@dataclass(frozen=True)
class Space:
    """What a sweep varies, and what it does not."""

    parameters: tuple[Parameter, ...]  # each after those that it depends on
    fixed: tuple[str, ...] = ()  # the overrides that do not vary

    @property
    def typed(self) -> dict[str, object]:
        """The values that do not vary, by key; numbers as such."""
        return {key: number(one.partition("=")[2]) for one in self.fixed for key in keys_of([one])}

    def overrides(self, values: Mapping[str, Value]) -> tuple[str, ...]:
        """The overrides of the trial that has these values."""
        known = {parameter.key: parameter.prefix + parameter.key for parameter in self.parameters}
        return (*self.fixed, *(f"{known[key]}={value}" for key, value in values.items()))

    def suggest(self, choose: Callable[[Parameter], Value]) -> dict[str, Value]:
        """The values that ``choose`` gives; a parameter whose ``when`` does not hold is left out."""
        values: dict[str, Value] = {}
        for parameter in self.parameters:
            if parameter.asked(values):
                values[parameter.key] = choose(parameter)
        return values

    def points(self) -> list[dict[str, Value]]:
        """Every combination of choices."""
        out: list[dict[str, Value]] = [{}]
        for parameter in self.parameters:
            more: list[dict[str, Value]] = [{parameter.key: choice} for choice in parameter.choices]
            out = [values | one for values in out for one in (more if parameter.asked(values) else [{}])]
        return out

    def examples(self) -> list[dict[str, Value]]:
        """A few trials, drawn at random, that together use every choice and bound that conditions let occur."""
        unused = {(parameter.key, end) for parameter in self.parameters for end in parameter.ends}
        luck, out = random.Random(0), list[dict[str, Value]]()

        def choose(parameter: Parameter) -> Value:
            return luck.choice([end for end in parameter.ends if (parameter.key, end) in unused] or parameter.ends)

        for _ in range(_TRIES):
            values = self.suggest(choose)
            if not out or unused & values.items():
                unused -= values.items()
                out.append(values)
            if not unused:
                break
        return out

    def starts(self, trials: Iterable[Mapping[str, object]]) -> list[dict[str, Value]]:
        """The trials of ``hydra.sweeper.enqueue``, with values as the search itself draws them.

        Raises:
            ConfigError: with every key and value that is not searched.
        """
        known, faults = {parameter.key: parameter for parameter in self.parameters}, list[str]()
        out = []
        for trial in trials:
            read: dict[str, Value] = {}
            for key, value in trial.items():
                if key not in known:
                    faults.append(f"it names '{key}', which is not searched.{nearest(key, list(known))}")
                elif (found := _start(known[key], value)) is None:
                    faults.append(f"{key}={value} is not among what is searched: {known[key].text}.")
                else:
                    read[key] = found
            faults += [
                f"{key} is not searched with {other}={read[other]}."
                for key in read
                for other, allowed in known[key].when.items()
                if other in read and read[other] not in allowed
            ]
            out.append(read)
        together(ConfigError, [f"hydra.sweeper.enqueue: {fault}" for fault in faults])
        return out


def _start(parameter: Parameter, value: object) -> Value | None:
    """A value of a YAML file as the search itself draws it; None if the parameter does not have this value."""
    if parameter.choices:
        return meant(value, parameter.choices) or next((text for text in parameter.choices if text == value), None)
    among = parameter.distribution
    with suppress(ValueError, TypeError):  # Optuna's, if the number is out of range
        read = int(str(value)) if isinstance(among, IntDistribution) else float(str(value))
        create_trial(value=0, params={parameter.key: read}, distributions={parameter.key: among})
        return read
    return None


def choice(key: str, values: Iterable[str]) -> Parameter:
    """A parameter with these texts as its choices."""
    choices = list(dict.fromkeys(values))
    return Parameter(key, ",".join(choices), CategoricalDistribution(choices))


def read_space(
    overrides: Sequence[str],
    params: Mapping[str, object],
    when: Mapping[str, object],
    loader: ConfigLoader | None,
    *,
    grid: bool = False,
) -> Space:
    """What is varied by the command line, and by ``hydra.sweeper.params``.

    A key with one value that ``when`` speaks of is a parameter too, with this one choice: so the conditions of a file
    hold as well where the command line fixes what the file varies.

    Args:
        overrides: of the command line.
        params: in plain containers; the command line wins where both name a key.
        when: ``{key: {other: value or values}}``: ``key`` is asked only where each ``other`` has one of its values.
        loader: Hydra's, which knows the options of each group.
        grid: whether every combination will run, so that each value must be named.

    Raises:
        ConfigError: lists every fault.
    """
    state = random.getstate()
    random.seed(0)  # Hydra's shuffle then gives the same order each time: a sweep that continues must find its own jobs
    try:
        given = _parsed([*lines_of(params), *overrides], loader)
        chosen = {_key(override): override for override in given}
        known: dict[str, dict[str, None]] = {}  # those that the command line left out, too: `when` may name them
        for override in given:
            numbers = override.is_interval_sweep() or (override.is_range_sweep() and not grid)
            known.setdefault(_key(override), {}).update(dict.fromkeys(() if numbers else _texts(override)))
        varied = [key for key, override in chosen.items() if override.is_sweep_override()]
        conditions, faults = _conditions(when, known, varied)
        parameters = []
        for key in conditions:
            try:
                parameters.append(_parameter(chosen[key], conditions[key], grid))
            except ValueError as error:
                faults.append(f"{chosen[key].input_line}: {str(error).rstrip('.')}.")
        if not (varied or grid):
            faults.append("A search varies at least one key; here none is varied, by interval(…) or choice(…), say.")
        together(ConfigError, faults)
        fixed = [f"{one.get_key_element()}={_texts(one)[0]}" for key, one in chosen.items() if key not in conditions]
        return Space(tuple(parameters), tuple(fixed))
    finally:
        random.setstate(state)


def lines_of(params: Mapping[str, object]) -> list[str]:
    """A section such as ``hydra.sweeper.params`` as overrides.

    Args:
        params: plain containers. A text is in Hydra's syntax, a list is a choice of its values, all else is one value.
    """
    return [f"{key}={value if isinstance(value, str) else _choice(value)}" for key, value in flat(params).items()]


def meant(value: object, among: Iterable[str]) -> str | None:
    """The text that Hydra reads as exactly this value."""
    for text in among:
        with suppress(*_UNREADABLE):
            read = OverridesParser.create().parse_override(f"key={text}").value()
            if type(read) is type(value) and read == value:
                return text
    return None


def _parsed(lines: Sequence[str], loader: ConfigLoader | None) -> list[Override]:
    functions, faults, out = create_functions(), [], []
    functions.functions["interval"] = lambda start, end: IntervalSweep(start=start, end=end)  # Hydra's makes floats
    for line in lines:
        try:
            (override,) = OverridesParser(functions, loader).parse_overrides([line])
            if override.is_sweep_override() and override.is_hydra_override():
                raise ValueError("Hydra's own settings take one value and cannot be swept")
            if not (override.is_interval_sweep() or _texts(override)):
                raise ValueError("it holds no value; a range stops before its end, a glob selects among options")
            out.append(override)
        except _UNREADABLE as error:
            faults.append(f"{line}: {_reason(error)}.")
    together(ConfigError, faults)
    return out


def _reason(error: Exception) -> str:
    if isinstance(error, OmegaConfBaseException | AssertionError):  # what Hydra stumbles over then
        return "a sweep cannot be inside a list or another sweep"
    lines = [line.strip() for line in str(error).split("\n") if not line.startswith(("Error parsing", "See http"))]
    return " ".join(lines).rstrip(" .^")


def _texts(override: Override) -> list[str]:
    """The values of an override that is no interval, as Hydra writes them."""
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    value = override.value()
    numbers = (value.start, value.stop, value.step) if isinstance(value, RangeSweep) else ()
    if not all(end is not None and math.isfinite(end) for end in numbers):
        raise ValueError("the numbers of a range are finite")
    return list(override.sweep_string_iterator())


def _key(override: Override) -> str:
    """Without + or ++."""
    return str(override.get_key_element()).lstrip("+")


def _conditions(
    when: Mapping[str, object], known: Mapping[str, Mapping[str, None]], varied: Sequence[str]
) -> tuple[dict[str, dict[str, tuple[str, ...]]], list[str]]:
    """The ``when`` of each parameter, after those of the parameters that it depends on; and the faults."""
    conditions: dict[str, dict[str, tuple[str, ...]]] = {key: {} for key in varied}
    faults = []
    for key, asked in when.items():
        if not isinstance(asked, Mapping):
            faults.append(f"hydra.sweeper.when.{key} is {asked!r}; it must be a condition, such as {{model: unetpp}}.")
        elif unknown := [name for name in (key, *asked) if name not in known]:
            hints = "".join(nearest(name, list(known)) for name in unknown)
            faults.append(f"hydra.sweeper.when.{key} names {', '.join(unknown)}, which is not swept.{hints}")
        else:
            for other, values in asked.items():
                wanted = values if isinstance(values, list) else [values]
                found = [meant(value, known[other]) for value in wanted]
                conditions.setdefault(other, {})
                conditions.setdefault(key, {})[other] = tuple(text for text in found if text is not None)
                if None in found or not found:
                    rule = ", ".join(known[other]) or "none, for only choice(…) can be named"
                    faults.append(
                        f"hydra.sweeper.when.{key}: {values} is not a choice of {other}; its choices are {rule}."
                    )
    try:
        order = list(TopologicalSorter({key: list(asked) for key, asked in conditions.items()}).static_order())
    except CycleError as error:
        order = []
        faults.append(f"hydra.sweeper.when is circular: {' → '.join(error.args[1])}. Leave one of these out.")
    return {key: conditions[key] for key in order}, faults


def _parameter(override: Override, when: Mapping[str, tuple[str, ...]], grid: bool) -> Parameter:
    """Raises ValueError, by Optuna's own check of bounds too, where there is nothing to choose from."""
    value, key, interval = override.value(), _key(override), override.is_interval_sweep()
    text = str(override.input_line).partition("=")[2]
    tags: set[str] = getattr(value, "tags", set())
    if tags and not grid and not (tags == {"log"} and interval):
        raise ValueError(f"the tag {', '.join(sorted(tags))} would be ignored; the one tag is tag(log,interval(…))")
    if interval and grid:
        raise ValueError("a grid takes no interval(…); set hydra.sweeper.n_trials=… to search, or name the values")
    values: Distribution
    if isinstance(value, IntervalSweep):
        assert value.start is not None  # Hydra's parser
        assert value.end is not None
        values = _numbers(value.start, value.end, None, log=bool(tags))
    elif isinstance(value, RangeSweep) and not grid:
        first, *rest = sorted(value.range())
        step = abs(value.step)
        last = Decimal(repr(first)) + len(rest) * Decimal(repr(step))  # as Optuna counts: sums of floats drift
        values = _numbers(first, type(first)(last), step)
    else:
        values = CategoricalDistribution(list(dict.fromkeys(_texts(override))))
    return Parameter(key, text, values, override.get_key_element().removesuffix(key), when)


def _numbers(low: float, high: float, step: float | None, *, log: bool = False) -> Distribution:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("an interval goes from a finite number to another, such as interval(0.1,0.5)")
    if not (isinstance(low, int) and isinstance(high, int)):
        return FloatDistribution(float(low), float(high), log, step)
    if step is None and high - low == 1:
        raise ValueError(
            f"whole bounds leave just {low} and {high}. Write interval({low}.0,{high}.0) for the numbers between"
        )
    return IntDistribution(low, high, log, int(step or 1))


def _choice(value: object) -> str:
    if not isinstance(value, list):
        return _written(value)
    return ",".join(map(_written, value)) or "choice()"  # in choice(…) Hydra forgets quotes and refuses null


def _written(value: object) -> str:
    """A plain value as Hydra writes it; a text that Hydra would read as something else in quotes."""
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, str) and not meant(value, [value]):
        value = QuotedString(value, Quote.single)
    return str(Override._get_value_element_as_str(value))  # type: ignore[arg-type]  # whatever a YAML file holds
