"""An ablation study: arms × seeds × folds as the jobs of a sweep, alike in everything but what each arm declares.

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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

from omegaconf import DictConfig

from seg.config import flat, nearest, plain
from seg.errors import ConfigError, together

Overrides = dict[str, Any]
DESIGNS = ("arms", "cumulative", "leave_one_out", "one_at_a_time", "factorial")
AGAINST = ("baseline", "previous")
# What must be the same for all arms, else a difference has a second cause.
_SHARED = ("data", "trainer", "augmentation", "seed", "dims", "inference")
_NAMES = ("study", "arm")  # told by the study itself, without an effect


@dataclass(frozen=True)
class Arm:
    """One of the things compared."""

    name: str
    overrides: Overrides
    allow: tuple[str, ...] = ()  # keys of which it may change more than the others
    levels: tuple[str, ...] = ()  # of a factorial design: the level of each factor


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
        """Every run, all arms of a seed and fold together: a half-done study can compare what it has."""
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
        return [f"{key}={_text(value)}" for key, value in values.items()]


def read_study(name: str, section: Mapping[str, Any]) -> Study:
    """Reads ``hydra.sweeper.study``.

    Args:
        name: of the study: its file's.
        section: as in ``conf/hydra/sweeper/seg.yaml``.

    Raises:
        ConfigError: with every fault.
    """
    together(ConfigError, list(_faults(section)))
    arms, factors = _arms(section)
    folds, count = section["folds"], None
    if isinstance(folds, int):
        count, folds = folds, list(range(folds))
    return Study(
        name,
        str(section["question"]),
        dict(section["base"]),
        tuple(arms),
        tuple(factors),
        tuple(section["compare"]),
        tuple(section["seeds"]),
        None if folds is None else tuple(folds),
        count,
        float(section["margin"]),
    )


def check_arms(study: Study, composed: Mapping[str, DictConfig]) -> dict[str, dict[str, Any]]:
    """The resolved difference of each arm from the baseline, ``{arm: {key: value}}``.

    Args:
        study: as read.
        composed: the configuration of each arm, for one seed and fold.

    Raises:
        ConfigError: an arm is the same as another one, or changes what must be the same for all.
    """
    values = {arm: flat(plain(cfg)) for arm, cfg in composed.items()}
    values = {arm: {key: value for key, value in own.items() if key not in _NAMES} for arm, own in values.items()}
    first = values[study.arms[0].name]
    different: dict[str, dict[str, Any]] = {}
    faults = []
    for arm in study.arms:
        own = values[arm.name]
        keys = sorted(key for key in {*own, *first} if own.get(key) != first.get(key))
        different[arm.name] = {key: own.get(key) for key in keys}
        confounded = [key for key in keys if key.startswith(_SHARED) and not key.startswith(arm.allow or ("\0",))]
        if confounded:
            faults.append(
                f"The arm {arm.name} also changes {', '.join(confounded)}, which must be the same for all arms, else "
                f"a difference has two causes. Leave it out, or add `allow: {confounded[0].split('.')[0]}` to the arm "
                "where that is the question."
            )
    for one, other in combinations(values, 2):
        if values[one] == values[other]:
            faults.append(f"The arms {one} and {other} are the same configuration. Leave one out.")
    together(ConfigError, faults)
    return different


def _arms(section: Mapping[str, Any]) -> tuple[list[Arm], list[str]]:
    """The arms of the section's design, the baseline first, and the factors of a factorial one."""
    design = section["design"]
    if design == "factorial":
        return _factorial(section["factors"])
    given = [_arm(name, values or {}) for name, values in section["arms"].items()]
    if design == "cumulative":
        total: Overrides = {}
        out = []
        for arm in given:
            total = total | arm.overrides
            out.append(Arm(arm.name, total, arm.allow))
        return out, []
    if design == "leave_one_out":
        whole = _merged(given)
        return [
            Arm("all", whole),
            *(Arm(f"without_{a.name}", _merged([b for b in given if b is not a])) for a in given),
        ], []
    if design == "one_at_a_time" and given[0].overrides:
        return [Arm("baseline", {}), *given], []
    return given, []


def _merged(arms: Sequence[Arm]) -> Overrides:
    return {key: value for arm in arms for key, value in arm.overrides.items()}


def _arm(name: str, values: Mapping[str, Any]) -> Arm:
    allow = values.get("allow", ())
    allow = (allow,) if isinstance(allow, str) else tuple(allow)
    return Arm(name, {key: value for key, value in values.items() if key != "allow"}, allow)


def _factorial(factors: Mapping[str, Sequence[Any]]) -> tuple[list[Arm], list[str]]:
    """Every combination of ``{key: [level, …]}``; the first levels make the baseline."""
    arms = []
    for levels in product(*factors.values()):
        values = dict(zip(factors, levels, strict=True))
        arms.append(Arm("-".join(map(_text, levels)), values, levels=tuple(map(_text, levels))))
    return arms, list(factors)


def _faults(section: Mapping[str, Any]) -> Iterator[str]:
    where = "hydra.sweeper.study"
    if section["design"] not in DESIGNS:
        near = nearest(str(section["design"]), list(DESIGNS))
        yield f"{where}.design is {section['design']!r}.{near} There are {', '.join(DESIGNS)}."
    factorial = section["design"] == "factorial"
    if factorial and (not section["factors"] or not all(len(levels) > 1 for levels in section["factors"].values())):
        yield f"{where}.factors must name two or more levels for each key: {{attention: [none, se]}}."
    if section["arms" if factorial else "factors"]:
        yield f"{where}: a factorial design has factors, every other one has arms. Leave one of the two out."
    if not factorial and len(section["arms"]) < 2:
        yield f"{where}.arms has {len(section['arms'])}; a comparison needs two, the baseline first."
    if wrong := [way for way in section["compare"] if way not in AGAINST]:
        yield f"{where}.compare has {', '.join(map(str, wrong))}; it takes {' and '.join(AGAINST)}."
    if not section["question"]:
        yield f"{where}.question is empty. Say in a sentence what the study asks; it heads the table."
    for key in ("seeds", "folds"):
        value = section[key]
        listed = isinstance(value, list) and value and all(isinstance(v, int) and v >= 0 for v in value)
        counted = key == "folds" and (value is None or (isinstance(value, int) and value > 1))
        if not (listed or counted):
            others = ", or their count" if key == "folds" else ""
            yield f"{where}.{key} is {value!r}; it must be a list of whole numbers{others}."
        elif listed and len(set(value)) < len(value):
            yield f"{where}.{key} names a number twice: {value}."
    if not isinstance(section["margin"], int | float) or section["margin"] <= 0:
        yield f"{where}.margin is {section['margin']!r}; it must be a Dice above 0, such as 0.005."


def _text(value: Any) -> str:
    """``value`` as Hydra's command line has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_text, value)) + "]"
    return str(value)
