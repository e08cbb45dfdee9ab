"""The arms of a study: what its file gives, crossed, added up or left out as its design says."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from seg.config.content import flat
from seg.errors import nearest

Overrides = dict[str, Any]
WHERE = "hydra.sweeper.study"
DESIGNS = ("arms", "cumulative", "leave_one_out", "one_at_a_time", "factorial")
# What must be the same for all arms, else a difference has a second cause.
SHARED = ("data", "trainer", "augmentation", "seed", "dims", "inference")
_NAMED = {  # of the designs that name arms themselves
    "one_at_a_time": ", for the design adds one of that name without any change. Rename the other one.",
    "factorial": ", for the levels of its factors are joined by '-'. Use levels that are told apart.",
}


@dataclass(frozen=True)
class Arm:
    """One of the things compared."""

    name: str
    overrides: Overrides
    allow: tuple[str, ...] = ()  # parts of the configuration, or keys, in which it may differ from the others
    levels: tuple[str, ...] = ()  # of a factorial design: the level of each factor

    def allows(self, key: str) -> bool:
        """Whether ``key`` is one of ``allow``, or within it."""
        return any(f"{key}.".startswith(f"{part}.") for part in self.allow)


def shared(key: str) -> bool:
    """Whether ``key`` lies in what must be the same for all arms."""
    return key.partition(".")[0] in SHARED


def arms_of(section: Mapping[str, Any]) -> tuple[list[Arm], list[str]]:
    """The arms of ``hydra.sweeper.study``, the baseline first, and the factors of a factorial design."""
    design, for_all = section["design"], _listed(section["allow"])
    if design == "factorial":
        return _factorial(section["factors"], for_all)
    given = [_arm(str(name), values or {}, for_all) for name, values in section["arms"].items()]
    if design == "cumulative":
        return [_merged(arm.name, given[: n + 1]) for n, arm in enumerate(given)], []
    if design == "leave_one_out":
        less = [_merged(f"without_{arm.name}", [other for other in given if other is not arm]) for arm in given]
        return [_merged("all", given), *less], []
    if design == "one_at_a_time" and given[0].overrides:
        return [Arm("baseline", {}, for_all), *given], []
    return given, []


def design_faults(section: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the design, its arms or factors, and what they may change."""
    design, factorial = section["design"], section["design"] == "factorial"
    if design not in DESIGNS:
        near = nearest(str(design), list(DESIGNS))
        yield f"{WHERE}.design is {design!r}.{near} There are {', '.join(DESIGNS)}."
    if section["arms" if factorial else "factors"]:
        yield f"{WHERE}: a factorial design has factors, every other one has arms. Leave one of the two out."
    yield from _allow_faults(f"{WHERE}.allow", section["allow"])
    yield from _factor_faults(section["factors"]) if factorial else _arm_faults(section["arms"])


def name_faults(names: Sequence[str], design: str) -> Iterator[str]:
    """What is wrong with the arms' names, by which runs are told apart."""
    for name in dict.fromkeys(names):
        if not name.strip() or not name.isprintable() or "${" in name or name == "???":
            yield f"{WHERE}: an arm is called {name!r}. A name is a line of text, without ${{ and not ???; rename it."
        if names.count(name) > 1:
            why = _NAMED.get(design, ". Rename one of them.")
            yield f"{WHERE}: {names.count(name)} arms would be called {name!r}{why}"


def _arm_faults(given: Any) -> Iterator[str]:
    if not isinstance(given, Mapping):
        yield f"{WHERE}.arms is {given!r}; it must be a mapping: {{baseline: {{}}, se: {{attention: se}}}}."
        return
    if len(given) < 2:
        yield f"{WHERE}.arms has {len(given)}; a comparison needs two, the baseline first."
    for name, values in given.items():
        if isinstance(values, Mapping):
            yield from _allow_faults(f"{WHERE}.arms.{name}.allow", values.get("allow"))
        elif values is not None:
            yield f"{WHERE}.arms.{name} is {values!r}; it must be a mapping, such as {{attention: se}}."


def _factor_faults(factors: Any) -> Iterator[str]:
    levels = list(factors.values()) if isinstance(factors, Mapping) else []
    if not levels or not all(isinstance(level, list) and len(level) > 1 for level in levels):
        yield f"{WHERE}.factors must name two or more levels for each key: {{attention: [none, se]}}."


def _allow_faults(where: str, allow: Any) -> Iterator[str]:
    for part in _listed(allow):
        if not (isinstance(part, str) and shared(part) and all(part.split("."))):
            near = nearest(str(part), list(SHARED))
            yield (
                f"{where} is {part!r}; it names a part that is the same for all arms, or a key in it.{near} "
                f"The parts are {', '.join(SHARED)}, a key is such as data.patch."
            )


def _listed(allow: Any) -> tuple[Any, ...]:
    if allow is None:
        return ()
    return tuple(allow) if isinstance(allow, list | tuple) else (allow,)


def _arm(name: str, values: Mapping[str, Any], for_all: tuple[str, ...]) -> Arm:
    own = {key: value for key, value in values.items() if key != "allow"}
    return Arm(name, flat(own), for_all + _listed(values.get("allow")))


def _merged(name: str, arms: Sequence[Arm]) -> Arm:
    """One arm that is all of ``arms``, and may change what any of them may; of two values the later one holds."""
    allow = dict.fromkeys(part for arm in arms for part in arm.allow)
    return Arm(name, {key: value for arm in arms for key, value in arm.overrides.items()}, tuple(allow))


def _factorial(factors: Mapping[str, Sequence[Any]], allow: tuple[str, ...]) -> tuple[list[Arm], list[str]]:
    """Every combination of ``{key: [level, …]}``; the first levels make the baseline."""
    arms = []
    for levels in product(*factors.values()):
        values = dict(zip(map(str, factors), levels, strict=True))
        told = tuple(map(_text, levels))
        arms.append(Arm("-".join(told), values, allow, told))
    return arms, [*map(str, factors)]


def _text(level: Any) -> str:
    """A level as it is read in a name: as YAML has it."""
    if level is None:
        return "null"
    if isinstance(level, bool):
        return str(level).lower()
    if isinstance(level, list | tuple):
        return "[" + ",".join(map(_text, level)) + "]"
    return str(level)
