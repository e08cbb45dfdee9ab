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
from pathlib import Path

from omegaconf import DictConfig

from seg.config.content import flat, plain
from seg.errors import ConfigError, together
from seg.study.anchors import read_anchors
from seg.study.options import AGAINST
from seg.study.question import Seeds
from seg.study.subsets import read_groups
from seg.sweep.jobs import Space, Value, choice, lines_of
from seg.sweep.rules import MARGIN, SEEDS, WHERE, Section, arm_faults, listed, name_faults, section_faults, shared

Overrides = dict[str, object]
Differences = dict[str, dict[str, list[object]]]  # by arm: what it changes, [the baseline's value, the arm's]
_STEPWISE = ("arms", "cumulative")  # designs whose arms have a meaningful order
TOLERANCE = "inference.nsd_tolerance_mm"
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
    until: Seeds | None  # some of the seeds come only where they are needed to decide it; None: all are trained
    folds: tuple[int, ...] | None  # None: as data.fold says
    count: int | None  # folds of the split
    primary: str  # metric that it is judged by
    secondary: tuple[str, ...]  # metrics beside it
    classes: tuple[str, ...] | None  # that it is judged by; None: all
    groups: dict[str, dict[str, str]] | None  # of the patients or the cases, as read from its file
    anchors: dict[str, str]  # texts of their files by name
    margin: float  # of the primary metric, in its unit: a smaller difference does not matter
    allow_leaks: tuple[str, ...]  # by name
    pilot: str | list[str] | None  # what the variances of its plan are from: seg.sweep.forecast
    lock: bool  # whether all of it is fixed before the first run
    claim: str  # what it then claims of each arm

    @property
    def redraws(self) -> bool:
        """Whether each seed draws folds of its own, the same for all arms.

        Otherwise the luck of one division would be in all seeds alike, and pass for a difference. Only without a test
        part, which another division would change too; and not with some of the folds, whose cases would be others.
        """
        return self.count is not None and self.base.get("data.test_fraction") == 0

    def space(self, given: Space) -> Space:
        """Every run: all arms of a seed and fold together, so that a half-done study can compare what it has.

        Raises:
            ConfigError: ``given``, from the command line, sets what the study sets itself, or varies something, too.
        """
        varied = [parameter.key for parameter in given.parameters]
        faults = list(self._ignored("The command line", [*given.typed, *varied]))
        if self.redraws and given.typed.get("data.test_fraction"):
            faults.append(
                f"The command line sets data.test_fraction; {WHERE}.base sets it to 0, whereby each seed draws its own "
                "folds. Change it there."
            )
        if varied and not faults:
            faults.append(f"The study {self.name} says what varies; {', '.join(varied)} cannot be swept with it.")
        together(ConfigError, faults)
        values = {"seed": self.seeds, "data.fold": self.folds or (), "arm": tuple(arm.name for arm in self.arms)}
        return Space(tuple(choice(key, map(str, own)) for key, own in values.items() if own), given.fixed)

    def first(self, runs: Sequence[Mapping[str, Value]]) -> list[Mapping[str, Value]]:
        """Those of ``runs`` that are trained in any case."""
        known = {str(seed) for seed in (self.seeds[: self.until.start] if self.until else self.seeds)}
        return [run for run in runs if run["seed"] in known]

    def overrides(self, run: Mapping[str, Value], space: Space) -> tuple[str, ...]:
        """The overrides of a run of ``space``."""
        place = {key: value for key, value in run.items() if key != "arm"}
        if self.redraws:
            place["data.split_seed"] = run["seed"]
        (arm,) = (arm for arm in self.arms if arm.name == run["arm"])
        own = [f"{key}={value}" for key, value in place.items()]
        # Hydra refuses two values for one group: the command line's takes the place of the file's.
        by_key = {override.partition("=")[0]: override for override in (*self.of_arm(arm), *own, *space.fixed)}
        return tuple(by_key.values())

    def of_arm(self, arm: Arm) -> list[str]:
        """What sets ``arm``, base included; an arm's own value wins.

        Folds are scored out of fold with the last weights: the best ones were chosen on the very cases.
        """
        folds: Overrides = {} if self.folds is None else {"inference.part": "val", "inference.checkpoint": "last"}
        folds |= {} if self.count is None else {"data.folds": self.count}
        values: Overrides = folds | self.base | arm.overrides | {"study": self.name, "arm": arm.name}
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


def read_study(name: str, section: Section) -> Study:
    """Reads ``hydra.sweeper.study``.

    Args:
        name: of the study: its file's.
        section: as in ``conf/hydra/sweeper/seg.yaml``.

    Raises:
        ConfigError: with every fault.
    """
    together(ConfigError, [*section_faults(section), *arm_faults(section)])
    folds, count, pilot = section["folds"], None, section["pilot"]
    primary, classes = section["metrics"]["primary"], section["classes"]
    until = Seeds(**section["seeds"]) if isinstance(section["seeds"], Mapping) else None
    if isinstance(folds, int):
        count, folds = folds, list(range(folds))
    study = Study(
        name,
        str(section["question"]),
        flat(section["base"]),
        tuple(_arms(section)),
        tuple(map(str, section["factors"])),
        tuple(_against(section)),
        tuple(range(until.most) if until else section["seeds"] or SEEDS),
        until,
        None if folds is None else tuple(folds),
        count,
        primary,
        tuple(name for name in section["metrics"]["secondary"] if name != primary),
        None if classes == "all" else tuple(map(str, classes)),
        None if section["groups"] is None else read_groups(Path(section["groups"])),
        read_anchors({str(name): path for name, path in section["anchors"].items()}, primary),
        float(MARGIN if section["margin"] is None else section["margin"]),
        tuple(section["allow_leaks"]),
        [*map(str, pilot)] if isinstance(pilot, list) else pilot,
        section["lock"],
        section["claim"],
    )
    names = [arm.name for arm in study.arms]
    together(ConfigError, [*name_faults(names, section["design"], [*study.anchors]), *study.faults()])
    return study


def identity(section: Section) -> dict[str, object]:
    """The section as its sweep is known by: the same whether a default is left out or written down."""
    usual: dict[str, object] = {"allow": [], "metrics": {"primary": "dice", "secondary": ["nsd", "hd95_mm"]}}
    usual |= {"classes": "all", "groups": None, "lock": False, "claim": "better"}
    known = {key: value for key, value in section.items() if key not in usual or value not in (usual[key], None)}
    for key in ("allow_leaks", "anchors", "pilot"):  # they change no run
        known.pop(key, None)
    known["seeds"] = section["seeds"] or [*SEEDS]
    known["margin"] = float(MARGIN if section["margin"] is None else section["margin"])
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
        if TOLERANCE in allowed and "nsd" in (study.primary, *study.secondary):
            faults.append(
                f"The arm {arm.name} changes {TOLERANCE}: NSD at two tolerances is two metrics, which cannot be "
                f"compared. Leave it out, or nsd out of {WHERE}.metrics."
            )
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


def _arms(section: Section) -> list[Arm]:
    """The arms, the baseline first."""
    design, for_all = section["design"], listed(section["allow"])
    if design == "factorial":
        return _factorial(section["factors"], for_all)
    given = [_arm(str(name), values or {}, for_all) for name, values in section["arms"].items()]
    if design == "cumulative":
        return [_merged(arm.name, given[: n + 1]) for n, arm in enumerate(given)]
    if design == "leave_one_out":
        less = [_merged(f"without_{arm.name}", [other for other in given if other is not arm]) for arm in given]
        return [_merged("all", given), *less]
    return [Arm("baseline", {}, for_all), *given] if design == "one_at_a_time" and given[0].overrides else given


def _arm(name: str, values: Mapping[str, object], for_all: tuple[str, ...]) -> Arm:
    own = {key: value for key, value in values.items() if key != "allow"}
    return Arm(name, flat(own), for_all + listed(values.get("allow")))


def _merged(name: str, arms: Sequence[Arm]) -> Arm:
    """One arm that is all of ``arms``, and may change what any of them may; of two values the later one holds."""
    allow = dict.fromkeys(part for arm in arms for part in arm.allow)
    return Arm(name, {key: value for arm in arms for key, value in arm.overrides.items()}, tuple(allow))


def _factorial(factors: Mapping[str, Sequence[object]], allow: tuple[str, ...]) -> list[Arm]:
    """Every combination of ``{key: [level, …]}``; the first levels make the baseline."""
    arms = []
    for levels in product(*factors.values()):
        names = tuple(map(_text, levels))
        arms.append(Arm("-".join(names), dict(zip(map(str, factors), levels, strict=True)), allow, names))
    return arms


def _text(level: object) -> str:
    """A level as it is read in a name: as YAML has it."""
    if level is None or isinstance(level, bool):
        return {None: "null", True: "true", False: "false"}[level]
    return f"[{','.join(map(_text, level))}]" if isinstance(level, list | tuple) else str(level)


def _against(section: Section) -> list[str]:
    """What each arm is compared with: the arm before it too, where that is no accident of the design."""
    return [*listed(section["compare"])] or list(AGAINST if section["design"] in _STEPWISE else AGAINST[:1])
