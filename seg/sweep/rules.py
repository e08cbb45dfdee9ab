"""The rules of a study's file: what each key takes, and every fault of it in a sentence."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from seg.errors import nearest
from seg.metrics import METRICS
from seg.study.options import AGAINST
from seg.study.question import CLAIMS

Section = Mapping[str, Any]  # ``hydra.sweeper.study``, in plain containers
WHERE = "hydra.sweeper.study"
MARGIN = 0.005  # of Dice
SEEDS = (0,)
DESIGNS = ("arms", "cumulative", "leave_one_out", "one_at_a_time", "factorial")
# What must be the same for all arms; otherwise a difference has a second cause.
SHARED = ("data", "trainer", "augmentation", "seed", "dims", "inference")
_NAMED = {  # of the designs that name arms themselves
    "one_at_a_time": ": the design adds one of that name without any change. Rename the other one.",
    "factorial": ": the levels of its factors are joined by '-'. Use levels that give different names.",
}


def listed(allow: object) -> tuple[Any, ...]:
    """A list of one or more, or of none for null."""
    if allow is None:
        return ()
    return tuple(allow) if isinstance(allow, list | tuple) else (allow,)


def shared(key: str) -> bool:
    """Whether ``key`` is in what must be the same for all arms."""
    return key.partition(".")[0] in SHARED


def _once(values: object, holds: Callable[[object], bool]) -> bool:
    """Whether these are some values for which ``holds``, each once."""
    return isinstance(values, list) and bool(values) and all(map(holds, values)) and len({*values}) == len(values)


def _are_metrics(value: object) -> bool:
    """Whether these are a primary metric, which has a better direction, and a list of secondary ones."""
    if not isinstance(value, Mapping) or {*value} != {"primary", "secondary"}:
        return False
    directed = [name for name, metric in METRICS.items() if metric.better]
    return value["primary"] in directed and (
        value["secondary"] == [] or _once(value["secondary"], directed.__contains__)
    )


def _number(value: object, low: float = 0) -> bool:
    return isinstance(value, int) and value >= low


def _are_seeds(value: object) -> bool:
    """Whether these are how many seeds an arm has at first, two or more, and at most."""
    if not isinstance(value, Mapping) or {*value} != {"start", "most"}:
        return False
    return _number(value["start"], 2) and _number(value["most"], value["start"] + 1)


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "question": (bool, "a sentence that says what the study asks; it heads the table"),
    "design": (lambda value: value in DESIGNS, f"one of {', '.join(DESIGNS)}"),
    "base": (lambda value: isinstance(value, Mapping), "a mapping, such as {model: unetpp}"),
    "compare": (
        lambda value: value is None or value in AGAINST or _once(value, AGAINST.__contains__),
        "[baseline, previous], one of the two, or null for what suits the design",
    ),
    "seeds": (
        lambda value: value is None or _are_seeds(value) or _once(value, _number),
        "a list of whole numbers, each once; or, to add seeds until it is decided, {start: 3, most: 10}, from 2 on",
    ),
    "folds": (
        lambda value: value is None or _number(value, 2) or _once(value, _number),
        "a list of whole numbers, each once, or their count",
    ),
    "metrics": (
        _are_metrics,
        "a primary metric and a list of secondary ones: {primary: dice, secondary: [nsd, hd95_mm]}. Metrics with a "
        f"better direction are {', '.join(name for name, metric in METRICS.items() if metric.better)}",
    ),
    "classes": (
        lambda value: value == "all" or _once(value, lambda name: isinstance(name, str | int) and bool(name)),
        "all, or a list of classes, each once: [tumour]",
    ),
    "groups": (lambda value: value is None or isinstance(value, str), "the path of a CSV, such as sites.csv, or null"),
    "anchors": (
        lambda value: isinstance(value, Mapping) and all(isinstance(path, str) and path for path in value.values()),
        "the path of a CSV by the name of each finished tool: {nnU-Net: anchor.csv}",
    ),
    "margin": (
        lambda value: value is None or (isinstance(value, int | float) and value > 0),
        "a difference above 0 in the unit of the primary metric, such as 0.005 of Dice, or null",
    ),
    "pilot": (
        lambda value: (
            value is None
            or isinstance(value, str)
            or _once(value, lambda run: isinstance(run, str) or type(run) is int)
        ),
        "a study that was run before, by its name or folder, a list of runs such as [a1b2, c3d4] (one that looks "
        "like a number in quotes: ['12e45678']), or null",
    ),
    "lock": (lambda value: isinstance(value, bool), "true or false"),
    "claim": (lambda value: value in [*CLAIMS], f"one of {', '.join(CLAIMS)}"),
    "allow_leaks": (
        lambda value: value == [] or _once(value, lambda name: isinstance(name, str)),
        "a list of leaks by their names, such as [case_a=case_b]",
    ),
}


def section_faults(section: Section) -> Iterator[str]:
    """What is wrong with single keys, and between the metric and its margin."""
    known = [*_RULES, "arms", "factors", "allow"]
    for key in section:
        if key not in known:
            yield f"There is no {WHERE}.{key}.{nearest(str(key), known)} There are {', '.join(known)}."
    for key, (holds, rule) in _RULES.items():
        if not holds(section[key]):
            near = nearest(str(section[key]), DESIGNS) if key == "design" else ""
            yield f"{WHERE}.{key} is {section[key]!r}; it must be {rule}.{near}"
    primary = section["metrics"]["primary"] if _are_metrics(section["metrics"]) else "dice"
    if primary != "dice" and section["margin"] is None:
        unit = METRICS[primary].unit or "its own unit"
        yield (
            f"{WHERE}.metrics.primary is {primary}; for a metric other than Dice say which difference does not matter: "
            f"add {WHERE}.margin, in {unit}."
        )

    if section["claim"] != "better" and section["lock"] is False:
        yield f"{WHERE}.claim would be ignored: only a locked study claims something. Add {WHERE}.lock=true."


def arm_faults(section: Section) -> Iterator[str]:
    """What is wrong with the arms or factors, and with what they may change."""
    yield from _allow_faults(f"{WHERE}.allow", section["allow"])
    arms, factors, factorial = section["arms"], section["factors"], section["design"] == "factorial"
    if arms if factorial else factors:
        yield f"{WHERE}: a factorial design has factors, every other one has arms. Leave one of the two out."
    if factorial:
        levels = [*factors.values()] if isinstance(factors, Mapping) else []
        if not (levels and all(isinstance(own, list) and len(own) > 1 for own in levels)):
            yield f"{WHERE}.factors must name two or more levels for each key: {{attention: [none, se]}}."
    elif not isinstance(arms, Mapping):
        yield f"{WHERE}.arms is {arms!r}; it must be a mapping: {{baseline: {{}}, se: {{attention: se}}}}."
    else:
        if len(arms) < 2:
            yield f"{WHERE}.arms has {len(arms)}; a comparison needs two, the baseline first."
        for name, values in arms.items():
            if isinstance(values, Mapping):
                yield from _allow_faults(f"{WHERE}.arms.{name}.allow", values.get("allow"))
            elif values is not None:
                yield f"{WHERE}.arms.{name} is {values!r}; it must be a mapping, such as {{attention: se}}."


def _allow_faults(where: str, allow: object) -> Iterator[str]:
    for part in listed(allow):
        if not (isinstance(part, str) and shared(part) and all(part.split("."))):
            near = nearest(str(part), list(SHARED))
            yield (
                f"{where} is {part!r}; it names a part that is the same for all arms, or a key in it.{near} "
                f"The parts are {', '.join(SHARED)}; a key is, for example, data.patch."
            )


def name_faults(names: Sequence[str], design: str, anchors: Sequence[str] = ()) -> Iterator[str]:
    """What is wrong with the arms' names, which identify their runs, or with those of the anchors beside them."""
    yield from (f"{WHERE}.anchors: {name} is an arm, too. Rename one of the two." for name in anchors if name in names)
    for name in (name for name in anchors if name in AGAINST):
        yield f"{WHERE}.anchors: {name} is what table.csv calls one of the study's own comparisons. Rename the anchor."
    for name in dict.fromkeys(names):
        if not name.strip() or not name.isprintable() or "${" in name or name == "???":
            yield f"{WHERE}: an arm is called {name!r}. A name is a line of text, without ${{ and not ???; rename it."
        if names.count(name) > 1:
            why = _NAMED.get(design, ". Rename one of them.")
            yield f"{WHERE}: {names.count(name)} arms would be called {name!r}{why}"
