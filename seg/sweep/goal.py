"""What a sweep searches for: its objectives, and Optuna's samplers and pruners with their own options."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

from optuna import pruners, samplers
from optuna.exceptions import ExperimentalWarning

from seg.errors import ConfigError, nearest, together
from seg.sweep.jobs import Space

T = TypeVar("T")

SAMPLERS: dict[str, type[samplers.BaseSampler]] = {
    "tpe": samplers.TPESampler,
    "gp": samplers.GPSampler,
    "cmaes": samplers.CmaEsSampler,
    "random": samplers.RandomSampler,
    "qmc": samplers.QMCSampler,
    "nsga2": samplers.NSGAIISampler,
    "grid": samplers.RandomSampler,  # its points are entered one by one, in a random order
}
PRUNERS: dict[str, type[pruners.BasePruner]] = {
    "none": pruners.NopPruner,
    "median": pruners.MedianPruner,
    "hyperband": pruners.HyperbandPruner,
    "successive_halving": pruners.SuccessiveHalvingPruner,
}
_QUIETLY = {"warn_independent_sampling": False}
_DEFAULTS: dict[str, dict[str, Any]] = {"gp": _QUIETLY, "cmaes": _QUIETLY, "qmc": _QUIETLY | {"scramble": True}}
_MOST_POINTS = 100_000  # of a grid sampler


@dataclass(frozen=True)
class Goal:
    """What is searched for, and how: settings of ``hydra.sweeper``."""

    objectives: tuple[str, ...]
    directions: tuple[str, ...]  # maximize | minimize, one for each objective
    n_trials: int | None = None  # finished or pruned ones; None: a grid, what was entered and no more
    sampler: str = "tpe"
    sampler_options: Mapping[str, Any] = field(default_factory=dict)
    pruner: str = "none"
    pruner_options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    retries: int = 0  # further attempts at a trial that failed


def check(goal: Goal, space: Space | None) -> None:
    """Raises a ConfigError with everything in the settings that Optuna, or this space, cannot do."""
    faults = [str(fault) for fault in _faults(goal, space)]
    together(ConfigError, faults)


def _faults(goal: Goal, space: Space | None) -> Iterator[str | ConfigError]:
    try:
        make_pruner(goal.pruner, goal.pruner_options)
    except ConfigError as error:
        yield error
    if goal.pruner != "none" and len(goal.objectives) > 1:
        yield (
            f"hydra.sweeper.pruner={goal.pruner} compares trials by one objective, and there are "
            f"{len(goal.objectives)}. Set hydra.sweeper.pruner=none."
        )
    if space is None:
        return
    try:
        make_sampler(goal, space, 0)
    except ConfigError as error:
        yield error
    name = f"hydra.sweeper.sampler={goal.sampler}"
    if goal.sampler == "cmaes":
        others = "Choose tpe, gp, nsga2, qmc or random."
        if len(goal.objectives) > 1:
            yield f"{name} takes one objective, and there are {len(goal.objectives)}. {others}"
        if choices := [parameter.key for parameter in space.parameters if len(parameter.choices) > 1]:
            yield f"{name} searches numbers only, and {', '.join(choices)} has choices. {others}"
    elif goal.sampler == "grid":
        if endless := [parameter.key for parameter in space.parameters if not parameter.countable]:
            yield (
                f"{name} tries every value, and {', '.join(endless)} has infinitely many. Give it choice(…) or "
                "range(start,stop,step), or choose another sampler."
            )
        elif len(list(islice(space.points(), _MOST_POINTS + 1))) > _MOST_POINTS:
            yield f"{name} would try more than {_MOST_POINTS} trials. Choose another sampler."


def make_pruner(name: str, options: Mapping[str, Any]) -> pruners.BasePruner:
    """Optuna's pruner of that name, with its own options."""
    if name == "wilcoxon":
        raise ConfigError(
            "hydra.sweeper.pruner=wilcoxon compared folds within one trial, which no longer exist. "
            "Write hydra.sweeper.pruner=median."
        )
    return _made("pruner", name, PRUNERS, options)


def make_sampler(goal: Goal, space: Space, seed: int) -> samplers.BaseSampler:
    """Optuna's sampler of the name that ``goal`` gives, with its own options; ``seed`` is for what it draws."""
    options = {"seed": seed} | _DEFAULTS.get(goal.sampler, {})
    if goal.sampler == "tpe" and space.conditional:  # ungrouped, it models together only what all trials have
        options |= {"multivariate": True, "group": True}
    return _made("sampler", goal.sampler, SAMPLERS, options | dict(goal.sampler_options))


def _made(kind: str, name: str, known: Mapping[str, type[T]], options: Mapping[str, Any]) -> T:
    if name not in known:
        near = nearest(name, list(known))
        raise ConfigError(f"hydra.sweeper.{kind}={name} does not exist.{near} Choose {', '.join(known)}.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        try:
            return known[name](**options)
        except (TypeError, ValueError, AssertionError) as error:
            raise ConfigError(
                f"hydra.sweeper.{kind}_options={dict(options)} does not suit Optuna's {known[name].__name__}: {error}. "
                f"Its documentation lists what it takes: https://optuna.readthedocs.io/en/stable/reference/{kind}s"
            ) from None
