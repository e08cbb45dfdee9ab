"""A study: arms × seeds × folds as the jobs of a sweep, the same in everything but what each arm declares.

A study is a file of ``experiments/`` with the package ``hydra.sweeper.study``::

    # @package hydra.sweeper.study
    question: Do SE, CBAM and a warmed-up schedule each help UNet++?
    base: {model: unetpp, data: hippocampus, scheduler: constant}
    arms:
      baseline: {}
      se: {attention: se}
    seeds: [0, 1, 2]
    folds: 5
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

from omegaconf import DictConfig

from seg.config.content import flat, plain
from seg.errors import ConfigError, nearest, together
from seg.sweep.syntax import lines_of

Overrides = dict[str, Any]
Differences = dict[str, dict[str, list[Any]]]  # by arm: what it changes, resolved, [the baseline's value, the arm's]
WHERE = "hydra.sweeper.study"
DESIGNS = ("arms", "cumulative", "leave_one_out", "one_at_a_time", "factorial")
# What must be the same for all arms: otherwise a difference has a second cause.
SHARED = ("data", "trainer", "augmentation", "seed", "dims", "inference")
_NAMED = {  # of the designs that name arms themselves
    "one_at_a_time": ": the design adds one of that name without any change. Rename the other one.",
    "factorial": ": the levels of its factors are joined by '-'. Use levels that give different names.",
}
AGAINST = ("baseline", "previous")
_STEPWISE = ("arms", "cumulative")  # designs whose arms have a meaningful order
_NAMES = ("study", "arm")  # set by the study itself, without an effect


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
    """Whether ``key`` is in what must be the same for all arms."""
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
    """What is wrong with the arms' names, which identify their runs."""
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
                f"The parts are {', '.join(SHARED)}; a key is, for example, data.patch."
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
        names = tuple(map(_text, levels))
        arms.append(Arm("-".join(names), values, allow, names))
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


@dataclass(frozen=True)
class StudyRun:
    """One run of a study."""

    params: dict[str, str]  # arm, seed and fold
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """What is asked, and the runs that will answer."""

    name: str
    question: str
    base: Overrides
    arms: tuple[Arm, ...]  # the first is the baseline
    factors: tuple[str, ...]  # of a factorial design
    against: tuple[str, ...]
    seeds: tuple[int, ...]
    folds: tuple[int, ...] | None  # None: whatever data.fold says
    count: int | None  # folds of the split
    margin: float  # Dice below which a difference does not matter

    @property
    def redraws(self) -> bool:
        """Whether each seed draws folds of its own, the same for all arms.

        The luck of one division would else be in all seeds alike, and pass for a difference. Only without a test part,
        which another division would change too.
        """
        return self.folds is not None and self.base.get("data.test_fraction") == 0

    def runs(self, given: Sequence[str]) -> list["StudyRun"]:
        """Every run, all arms of a seed and fold together: a half-done study can compare what it has.

        Raises:
            ConfigError: ``given``, from the command line, sets what the study sets itself.
        """
        together(ConfigError, list(self._ignored("The command line", map(_key, given))))
        out = []
        for seed, fold in product(self.seeds, self.folds or (None,)):
            place = {"seed": seed} if fold is None else {"seed": seed, "data.fold": fold}
            if self.redraws:
                place |= {"data.split_seed": seed}
            own = [f"{key}={value}" for key, value in place.items()]
            for arm in self.arms:
                params = {"arm": arm.name} | {key: str(place[key]) for key in ("seed", "data.fold") if key in place}
                # Hydra refuses two values for one group: the command line's takes the place of the file's.
                by_key = {override.partition("=")[0]: override for override in (*self.overrides(arm), *own, *given)}
                out.append(StudyRun(params, tuple(by_key.values())))
        return out

    def overrides(self, arm: Arm) -> list[str]:
        """What sets ``arm``, base included; an arm's own value wins.

        Folds are scored out of fold with the last weights: the best ones were chosen on the very cases.
        """
        folds: Overrides = {} if self.folds is None else {"inference.part": "val", "inference.checkpoint": "last"}
        folds |= {} if self.count is None else {"data.folds": self.count}
        values = folds | self.base | arm.overrides | {"study": self.name, "arm": arm.name}
        return lines_of({key: [value] for key, value in values.items()})  # a choice of one, for a text is a line there

    def faults(self) -> Iterator[str]:
        """What its base and arms set without effect."""
        yield from self._ignored(f"{WHERE}.base", self.base)
        for arm in self.arms:
            yield from self._ignored(f"The arm {arm.name}", arm.overrides)

    def _ignored(self, who: str, keys: Iterable[str]) -> Iterator[str]:
        """A fault for each of ``keys`` that the study sets itself."""
        own = {
            "study": "the name of a study is its file's",
            "arm": f"the arms are named in {WHERE}.arms",
            "seed": f"set {WHERE}.seeds=[5], a list",
        }
        if self.folds is not None:
            own["data.fold"] = f"set {WHERE}.folds=[0,1], or null to choose data.fold"
        if self.count is not None:
            own["data.folds"] = f"set {WHERE}.folds=5, their count"
        if self.redraws:
            own["data.split_seed"] = f"each of {WHERE}.seeds draws its own folds where data.test_fraction is 0"
        for key in dict.fromkeys(keys):
            if key in own:
                yield f"{who} sets {key}, which the study sets for each run. Leave it out; {own[key]}."


def read_study(name: str, section: Mapping[str, Any]) -> Study:
    """Reads ``hydra.sweeper.study``.

    Args:
        name: of the study: its file's.
        section: as in ``conf/hydra/sweeper/seg.yaml``.

    Raises:
        ConfigError: with every fault.
    """
    together(ConfigError, list(_faults(section)))
    given, factors = arms_of(section)
    folds, count = section["folds"], None
    if isinstance(folds, int):
        count, folds = folds, list(range(folds))
    study = Study(
        name,
        str(section["question"]),
        flat(section["base"]),
        tuple(given),
        tuple(factors),
        tuple(_against(section)),
        tuple(section["seeds"]),
        None if folds is None else tuple(folds),
        count,
        float(section["margin"]),
    )
    names = [arm.name for arm in given]
    together(ConfigError, [*name_faults(names, section["design"]), *study.faults()])
    return study


def identity(section: Mapping[str, Any]) -> dict[str, Any]:
    """The section as its sweep is known by: the same whether a default is left out or written down."""
    known = {key: value for key, value in section.items() if key != "allow" or value}
    for key in ("arms", "factors"):
        if isinstance(known[key], Mapping):
            known[key] = {str(name): values for name, values in known[key].items()}
    return known | {"compare": _against(section)}


def check_arms(study: Study, composed: Mapping[str, DictConfig]) -> Differences:
    """The resolved difference of each arm from the baseline, ``{arm: {key: [the baseline's value, the arm's]}}``.

    A value is None where there is no such key.

    Args:
        study: as read.
        composed: the configuration of each arm, for one seed and fold.

    Raises:
        ConfigError: an arm is the same as another one, or changes what must be the same for all.
    """
    values = {arm: flat(plain(cfg)) for arm, cfg in composed.items()}
    values = {arm: {key: value for key, value in own.items() if key not in _NAMES} for arm, own in values.items()}
    baseline = study.arms[0]
    first = values[baseline.name]
    different: Differences = {}
    faults = []
    for arm in study.arms:
        own = values[arm.name]
        keys = sorted(key for key in {*own, *first} if own.get(key) != first.get(key))
        different[arm.name] = {key: [first.get(key), own.get(key)] for key in keys}
        # Without an arm that may change a part, `without_…` differs from `all` by that very part.
        allowed = [key for key in keys if arm.allows(key) or baseline.allows(key)]
        if confounded := [key for key in keys if shared(key) and key not in allowed]:
            faults.append(_confounded(study, arm, confounded))
    for one, other in combinations(values, 2):
        if values[one] == values[other]:
            faults.append(f"The arms {one} and {other} are the same configuration. Leave one out.")
    together(ConfigError, faults)
    return different


def _confounded(study: Study, arm: Arm, keys: Sequence[str]) -> str:
    parts = list(dict.fromkeys(key.partition(".")[0] for key in keys))
    allow = f"`allow: {parts[0] if len(parts) == 1 else '[' + ', '.join(parts) + ']'}`"
    place = f"to {WHERE}" if study.factors else f"to the arm in the study's file, or for all arms to {WHERE},"
    return (
        f"The arm {arm.name} also changes {', '.join(keys)}, which must be the same for all arms, or a difference "
        f"has two causes. Leave it out, or add {allow} {place} where that is the question."
    )


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _against(section: Mapping[str, Any]) -> list[Any]:
    """What each arm is compared with: the arm before it too, where that is no accident of the design."""
    given = section["compare"]
    if given is None:
        return list(AGAINST if section["design"] in _STEPWISE else AGAINST[:1])
    return given if isinstance(given, list) else [given]


def _faults(section: Mapping[str, Any]) -> Iterator[str]:
    yield from design_faults(section)
    against = _against(section)
    if not against or any(way not in AGAINST for way in against):
        yield (
            f"{WHERE}.compare is {section['compare']!r}; it takes {' and '.join(AGAINST)}, as a list: "
            f"[{', '.join(AGAINST)}], or null for what suits the design."
        )
    elif len(set(against)) < len(against):
        yield f"{WHERE}.compare names one twice: {section['compare']}."
    if not isinstance(section["base"], Mapping):
        yield f"{WHERE}.base is {section['base']!r}; it must be a mapping, such as {{model: unetpp}}."
    if not section["question"]:
        yield f"{WHERE}.question is empty. Say in a sentence what the study asks; it heads the table."
    for key in ("seeds", "folds"):
        value = section[key]
        listed = isinstance(value, list) and value and all(isinstance(v, int) and v >= 0 for v in value)
        counted = key == "folds" and (value is None or (isinstance(value, int) and value > 1))
        if not (listed or counted):
            others = ", or their count" if key == "folds" else ""
            yield f"{WHERE}.{key} is {value!r}; it must be a list of whole numbers{others}."
        elif listed and len(set(value)) < len(value):
            yield f"{WHERE}.{key} names a number twice: {value}."
    if not isinstance(section["margin"], int | float) or section["margin"] <= 0:
        yield f"{WHERE}.margin is {section['margin']!r}; it must be a Dice above 0, such as 0.005."
