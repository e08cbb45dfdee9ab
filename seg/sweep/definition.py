"""What a sweep is: read from the command line and ``hydra.sweeper``, and checked before its first trial."""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

from seg.config.compose import typed_of
from seg.config.content import PLACES, config_hash
from seg.config.kind import Kind
from seg.config.options import known_keys
from seg.config.schema import check
from seg.config.trust import check_origin
from seg.errors import ConfigError, nearest, together
from seg.files import digest
from seg.study.question import changes, study_name
from seg.sweep.design import Differences, Study, check_arms, identity, read_study
from seg.sweep.goal import Goal
from seg.sweep.jobs import Space, Value, read_space

log = logging.getLogger(__name__)
Settings = Mapping[str, Any]  # the section ``hydra.sweeper``
Overrides = tuple[str, ...]
_KINDS = {
    "name": Kind(str, (None,)),
    "n_trials": Kind(int, (None,), low=1),
    "sampler": Kind(str),
    "pruner": Kind(str),
    "seed": Kind(int, low=0),
    "n_jobs": Kind(int, low=1),
    "storage": Kind(str, (None,)),
    "retries": Kind(int, low=0),
    "max_failures": Kind(int, low=1),
}
_MAPPINGS = ("params", "when", "sampler_options", "pruner_options", "study")
_LISTS = ("enqueue", "objective", "direction")  # or one value
_OF_SEARCH = {"enqueue": [], "sampler": "tpe", "sampler_options": {}, "seed": 0}  # ignored in a grid; their defaults
_OF_GOAL = ("n_trials", "sampler", "sampler_options", "pruner", "pruner_options", "seed", "retries")
_COSTS = ("params", "seconds", "memory_mib", "samples_per_second", "epoch_seconds")
_NUMBERS = ("train_loss", "train_dice", "val_dice", "val_loss", *_COSTS)


@dataclass(frozen=True)
class Sweep:
    """A sweep, checked."""

    name: str
    folder: Path
    cfg: DictConfig  # of one trial: data, places and tracking are the same for all
    examples: dict[str, DictConfig]  # trials that are known beforehand or use every choice, by their overrides
    goal: Goal
    space: Space
    starts: tuple[Mapping[str, Value], ...]  # all trials of a grid or a study, those to begin with of a search
    overrides: Callable[[Mapping[str, Value]], Overrides]  # of the trial that has these values
    study: Study | None
    different: Differences  # of a study
    definition: dict[str, object]  # what may not change when the sweep continues
    choices: Callable[[Sequence[str]], dict[str, str]]  # overrides of a trial → the option of each group
    given: Overrides  # places that the command line names: kept in no storage, for an address may hold a password
    n_jobs: int  # trials at a time
    max_failures: int  # that end it
    storage: str | None  # shared with other processes
    jitter: dict[str, float] = field(default_factory=dict)  # of a study, by class: seg.data.jitter
    planned: float | None = None  # smallest difference that a study will find, as far as it is known
    foreseen: tuple[Mapping[str, str], ...] = ()  # of a study: its runs, see seg.sweep.lock
    part: str = ""  # of a study: the version of the cases that it scores
    locked: str = ""  # of a study: hash of what it commits itself to; "": it does not
    leaks: tuple[str, ...] = ()  # of a study: those that were allowed, and what may be one, in sentences

    @property
    def outputs(self) -> Path:
        """Where it and its trials write."""
        return Path(self.cfg.paths.outputs)

    @property
    def total(self) -> int:
        """Trials that must finish."""
        return self.goal.n_trials or len(self.starts)

    @property
    def address(self) -> str | Path:
        """Where its trials are kept."""
        return self.storage or self.folder / "journal.log"

    @property
    def ranked(self) -> bool:
        """Whether one of its trials is the best."""
        return self.study is None and len(self.goal.objectives) == 1

    def trial(self, number: int) -> Path:
        """The folder of a trial."""
        return self.folder / "trials" / str(number)


def read_sweep(arguments: Sequence[str], settings: Settings, context: HydraContext, config: DictConfig) -> Sweep:
    """Reads and checks a sweep.

    Args:
        arguments: overrides of the command line, swept or not.
        settings: in plain containers.
        context: of Hydra.
        config: the composed root configuration, ``hydra`` included.

    Raises:
        ConfigError: with every fault of the settings, the space, and every trial that can be known before it starts.
    """
    together(ConfigError, list(_setting_faults(settings)))
    settings = {**settings, **{key: kind.read(settings[key]) for key, kind in _KINDS.items()}}
    if config.hydra.runtime.choices["hydra/launcher"] == "joblib":  # a trial that is killed takes others with it
        raise ConfigError("hydra/launcher=joblib is not supported. Write hydra/launcher=submitit_local.")
    given = tuple(argument for argument in arguments if _is_place(argument))
    swept = [argument for argument in arguments if argument not in given]
    label = study_name(str(config.hydra.runtime.choices.get("experiments") or config.study))
    loader, grid = context.config_loader, settings["n_trials"] is None
    if not grid and config.inference.part == "test" and not any("inference.part=" in one for one in swept):
        swept.append("inference.part=none")  # a choice among many by their test scores would make these too good
    space = read_space(swept, settings["params"], settings["when"], loader, grid=grid)
    starts, overrides = space.points() if grid else space.starts(settings["enqueue"]), space.overrides
    examples = list(map(overrides, starts if grid else space.examples()))
    study = read_study(label, settings["study"]) if _is_study(settings) else None
    if study:
        space = study.space(space)
        starts, overrides = space.points(), partial(study.overrides, space=space)
        examples = list(map(overrides, starts[: len(study.arms)]))
    composed = _composed([[*example, *given] for example in examples], context, config)
    different = _different(study, composed) if study else {}
    goal = _goal(settings, composed)
    definition = _definition(settings, goal, space, starts, composed)
    name = settings["name"] or f"{label}-{digest(definition)[:8]}"

    def choices(overrides: Sequence[str]) -> dict[str, str]:
        cfg = loader.load_sweep_config(config, [*overrides, *given])
        return {group: option for group, option in cfg.hydra.runtime.choices.items() if option and group in cfg}

    return Sweep(
        name,
        Path(composed[0].paths.outputs) / "sweeps" / name,
        composed[0],
        dict(zip((" ".join(example) for example in examples), composed, strict=True)),
        goal,
        space,
        tuple(starts),
        overrides,
        study,
        different,
        definition,
        choices,
        given,
        n_jobs=settings["n_jobs"],
        max_failures=settings["max_failures"],
        storage=settings["storage"],
    )


def _is_study(settings: Settings) -> bool:
    return bool(settings["study"]["arms"] or settings["study"]["factors"])


def _is_place(argument: str) -> bool:
    """Whether an override says where something is, the same for all trials."""
    key, _, value = argument.lstrip("+").partition("=")
    return key in PLACES and (value[:1] in ("'", '"') or not any(sign in value for sign in ",()"))


def _definition(
    settings: Settings, goal: Goal, space: Space, starts: Sequence[Mapping[str, Value]], composed: Sequence[DictConfig]
) -> dict[str, object]:
    """What makes a sweep this one and no other, as plain data."""
    definition = {
        "configurations": sorted(map(config_hash, composed)),
        "parameters": {parameter.key: [parameter.text, parameter.when] for parameter in space.parameters},
        "starts": starts,
        "study": identity(settings["study"]),
        **{key: value for key, value in asdict(goal).items() if key not in ("n_trials", "retries")},
    }
    plain: dict[str, object] = json.loads(json.dumps(definition))
    return plain


def _different(study: Study, composed: Sequence[DictConfig]) -> Differences:
    """What each arm changes, checked and logged: a fault of the study's file is seen before it has cost hours."""
    arms = [arm.name for arm in study.arms]
    different = check_arms(study, dict(zip(arms, composed, strict=True)))
    lines = [f"  {arm}: {'; '.join(changes(keys))}" for arm, keys in different.items()]
    log.info("%s", "\n".join([f"study {study.name}, what each arm changes:", *lines]))
    return different


def _setting_faults(settings: Settings) -> Iterator[str]:
    known = [*_KINDS, *_MAPPINGS, *_LISTS]
    for key in settings:
        if key not in known:
            yield f"There is no hydra.sweeper.{key}.{nearest(key, known)} There are {', '.join(known)}."
    for key, kind in _KINDS.items():
        try:
            kind.read(settings[key])
        except ValueError:
            yield f"hydra.sweeper.{key} is {settings[key]!r}; it must be {kind}."
    for key in _MAPPINGS:
        if not isinstance(settings[key], dict):
            yield f"hydra.sweeper.{key} is {settings[key]!r}; it must be a mapping, such as {{optimizer.lr: …}}."
    enqueue, name = settings["enqueue"], str(settings["name"] or "sweep")
    if not (isinstance(enqueue, list) and all(isinstance(trial, dict) for trial in enqueue)):
        yield f"hydra.sweeper.enqueue is {enqueue!r}; it must be a list of trials, such as [{{optimizer.lr: 0.01}}]."
    if not name.replace("-", "").replace("_", "").isalnum():
        yield f"hydra.sweeper.name is {name!r}; it names a folder: letters, digits, - and _ only."
    if isinstance(settings["study"], dict) and settings["study"]["question"] and not _is_study(settings):
        yield "hydra.sweeper.study has a question, but neither arms nor factors. Is one of these misspelt?"
    if settings["n_trials"] is None:
        for key, idle in _OF_SEARCH.items():
            if settings[key] != idle:
                yield f"hydra.sweeper.{key} would be ignored in a grid. Set hydra.sweeper.n_trials for a search."
    elif isinstance(settings["study"], dict) and _is_study(settings):
        yield "hydra.sweeper.n_trials asks for a search, hydra.sweeper.study for a study. Leave one of the two out."
    if isinstance(settings["study"], dict) and _is_study(settings) and settings["pruner"] != "none":
        yield "A study needs the scores of every run, and a pruner ends some early. Set hydra.sweeper.pruner=none."
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        yield "A sweep shares out whole runs and cannot itself run under torchrun. Leave torchrun out."


def _composed(examples: Sequence[Sequence[str]], context: HydraContext, config: DictConfig) -> list[DictConfig]:
    """The configurations of ``examples``, each one checked; every fault comes once."""
    faults: dict[str, None] = {}
    known: dict[str, dict[str, Any]] = {}
    typed, out = typed_of(config), []
    for overrides in examples:
        cfg = deepcopy(context.config_loader.load_sweep_config(config, list(overrides)))
        check_origin(cfg, typed)
        choices, places = dict(cfg.hydra.runtime.choices), cfg.hydra.runtime.config_sources
        study = choices.get("experiments")
        with open_dict(cfg):
            del cfg["hydra"]
        if (key := json.dumps(choices)) not in known:
            known[key] = known_keys(choices, places, "train")
        if cfg.resume is not None:
            faults["resume continues one run; a sweep is continued by its own command. Leave resume out."] = None
        try:
            check(cfg, known[key], f"experiments={study}" if study else "the sweep", typed, several=True)
        except ConfigError as error:
            faults[str(error)] = None
        out.append(cfg)
    if len({str(cfg.data.root) for cfg in out}) > 1:
        faults["A sweep has one data set, for scores on two cannot be compared. Give each data set a command."] = None
    together(ConfigError, list(faults))
    return out


def _goal(settings: Settings, composed: Sequence[DictConfig]) -> Goal:
    """What is searched for, in which direction, and how, checked."""
    given, way = settings["objective"], settings["direction"]
    if given is None:  # a grid or a study may do without validation
        blind = settings["n_trials"] is None and any(cfg.data.fold == "all" for cfg in composed)
        given = "train_dice" if blind else "val_dice"
    names = tuple(map(str, given if isinstance(given, list) else [given]))
    ways = [None] * len(names) if way is None else way if isinstance(way, list) else [way]
    faults = [fault for name in names for fault in _objective_faults(name, composed)]
    if not names or len({*names}) < len(names):
        faults.append(f"hydra.sweeper.objective is {given!r}; it must be one number, or a list of several, each once.")
    if len(ways) != len(names) or not all(one in (None, "maximize", "minimize") for one in ways):
        faults.append(
            f"hydra.sweeper.direction is {way!r}; it must be maximize or minimize, one for each of {', '.join(names)}."
        )
    if settings["pruner"] != "none" and (len(names) > 1 or {*names} & {*_COSTS}):
        faults.append(
            f"hydra.sweeper.pruner={settings['pruner']} compares trials epoch by epoch, by one objective that is no "
            f"cost; here it is {', '.join(names)}. Set hydra.sweeper.pruner=none."
        )
    together(ConfigError, faults)
    upward = ("dice", "samples_per_second")
    natural = ["maximize" if any(word in name for word in upward) else "minimize" for name in names]
    directions = tuple(way or own for way, own in zip(ways, natural, strict=True))
    return Goal(names, directions, **{key: settings[key] for key in _OF_GOAL})


def _objective_faults(name: str, composed: Sequence[DictConfig]) -> Iterator[str]:
    if name.startswith("test_"):
        yield (
            f"hydra.sweeper.objective is {name}: a search that sees the test part makes its scores worthless. "
            "Search by val_dice."
        )
    elif name not in _NUMBERS and not name.startswith("val_dice_"):
        known = [*_NUMBERS, "val_dice_<class>"]
        near = nearest(name, known)
        yield f"hydra.sweeper.objective is {name!r}, which no run has.{near} There are {', '.join(known)}."
    elif name.startswith("val_") and any(cfg.data.fold == "all" for cfg in composed):
        yield f"hydra.sweeper.objective is {name}, but data.fold=all leaves no validation part. Choose a fold."
