"""Optuna's samplers and pruners: what each can do, which options it takes, and how a trial's values are drawn.

What Optuna 5 does with a space that a sampler does not suit is decided here and not found out in the middle of a
sweep. cmaes would draw choices at random, and takes one objective only; gp and nsga2 would draw at random what depends
on a choice, qmc would leave it out of its sequence; no pruner looks at several objectives.
"""

import inspect
import random
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from optuna import pruners, samplers
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    check_distribution_compatibility,
)
from optuna.exceptions import ExperimentalWarning

from seg.errors import ConfigError, nearest, together
from seg.sweep.entries import grid_points
from seg.sweep.space import Parameter, Space

_Known = dict[str, tuple[Any, tuple[str, ...]]]  # with the options that a configuration can hold

_SAMPLERS: _Known = {
    "tpe": (samplers.TPESampler, ("n_startup_trials", "n_ei_candidates", "multivariate", "group", "constant_liar")),
    "gp": (samplers.GPSampler, ("n_startup_trials", "deterministic_objective")),
    "cmaes": (
        samplers.CmaEsSampler,
        ("n_startup_trials", "popsize", "consider_pruned_trials", "use_separable_cma", "with_margin", "lr_adapt"),
    ),
    "random": (samplers.RandomSampler, ()),
    "qmc": (samplers.QMCSampler, ("qmc_type", "scramble")),
    "nsga2": (samplers.NSGAIISampler, ("population_size", "mutation_prob", "crossover_prob", "swapping_prob")),
    "grid": (samplers.RandomSampler, ()),  # its points are entered beforehand
}
_PRUNERS: _Known = {
    "median": (pruners.MedianPruner, ("n_startup_trials", "n_warmup_steps", "interval_steps", "n_min_trials")),
    "hyperband": (pruners.HyperbandPruner, ("min_resource", "max_resource", "reduction_factor", "bootstrap_count")),
    "successive_halving": (
        pruners.SuccessiveHalvingPruner,
        ("min_resource", "reduction_factor", "min_early_stopping_rate", "bootstrap_count"),
    ),
    "wilcoxon": (pruners.WilcoxonPruner, ("p_threshold", "n_startup_steps")),
    "none": (pruners.NopPruner, ()),
}
_TYPES: dict[str, Any] = {"int": int, "float": int | float, "bool": bool, "str": str, "None": type(None)}
_MOST_POINTS = 100_000  # of a grid
_filters = threading.RLock()  # for warnings they are the whole process's


@dataclass(frozen=True)
class Settings:
    """What is searched for, and how."""

    objectives: tuple[str, ...]
    directions: tuple[str, ...]  # maximize | minimize, one for each objective
    n_trials: int | None = None  # finished or pruned ones; None: what was entered and no more
    sampler: str = "tpe"
    sampler_options: Mapping[str, Any] = field(default_factory=dict)
    pruner: str = "none"
    pruner_options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    retries: int = 0  # further attempts at a trial that failed
    max_failures: int | None = None  # for the sweeper to heed


def check(settings: Settings, space: Space | None) -> None:
    """Raises a ConfigError with everything in the settings that Optuna, or this space, cannot do."""
    faults = list(_faults("pruner", _PRUNERS, settings.pruner, settings.pruner_options))
    if not faults:
        faults += _refused("pruner", lambda: make_pruner(settings))
    if settings.pruner != "none" and len(settings.objectives) > 1:
        faults.append(
            f"hydra.sweeper.pruner={settings.pruner} compares trials by one objective, and there are "
            f"{len(settings.objectives)}. Set hydra.sweeper.pruner=none."
        )
    if space is not None:
        unknown = list(_faults("sampler", _SAMPLERS, settings.sampler, settings.sampler_options))
        faults += unknown or _sampler_faults(settings, space)
    elif settings.n_trials is not None:
        faults.append(f"hydra.sweeper.n_trials={settings.n_trials} searches, but no key is varied. Vary at least one.")
    together(ConfigError, faults)


def _faults(kind: str, known: _Known, name: str, options: Mapping[str, Any]) -> Iterator[str]:
    if name not in known:
        yield f"hydra.sweeper.{kind}={name} does not exist.{nearest(name, list(known))} Choose {', '.join(known)}."
        return
    made_by, takes = known[name]
    signature = inspect.signature(made_by).parameters
    for key, value in options.items():
        if key not in takes:
            yield (
                f"hydra.sweeper.{kind}_options.{key} is no option of {name}.{nearest(key, list(takes))} "
                f"It takes {', '.join(takes) or 'none'}."
            )
            continue
        said = signature[key].annotation
        names = (said if isinstance(said, str) else said.__name__).split(" | ")
        kinds = tuple(_TYPES[word] for word in names)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):  # a bool is an int, too
            yield f"hydra.sweeper.{kind}_options.{key} is {value!r}; {name} takes {' or '.join(names)}."


def _refused(kind: str, make: Callable[[], Any]) -> list[str]:
    try:
        make()
    except (TypeError, ValueError) as error:
        return [f"hydra.sweeper.{kind}_options: {error}"]
    return []


def _sampler_faults(settings: Settings, space: Space) -> Iterator[str]:
    yield from _refused("sampler", lambda: make_sampler(settings, space, 0))
    name = f"hydra.sweeper.sampler={settings.sampler}"
    if settings.sampler == "cmaes":
        others = "Choose tpe, gp, nsga2, qmc or random."
        if len(settings.objectives) > 1:
            yield f"{name} takes one objective, and there are {len(settings.objectives)}. {others}"
        if choices := [parameter.key for parameter in space.parameters if len(parameter.choices) > 1]:
            yield f"{name} searches numbers only, and {', '.join(choices)} has choices. {others}"
    elif settings.sampler == "grid":
        if endless := [p.key for p in space.parameters if not (p.choices or p.integer or p.step)]:
            yield (
                f"{name} tries every value, and {', '.join(endless)} has no end of them. Give it choice(…) or "
                "range(start,stop,step), or choose another sampler."
            )
        elif len(list(islice(grid_points(space), _MOST_POINTS + 1))) > _MOST_POINTS:
            yield f"{name} would try more than {_MOST_POINTS} trials. Choose another sampler."


def changes(trials: Sequence[Any], space: Space | None) -> list[str]:
    """The faults of a space that differs from that of the Optuna trials so far in what Optuna cannot change."""
    faults: dict[str, None] = {}
    for parameter in space.parameters if space else ():
        before = [trial.distributions[parameter.key] for trial in trials if parameter.key in trial.distributions]
        for was in before:
            try:
                check_distribution_compatibility(was, distribution(parameter))
            except ValueError:
                values = getattr(was, "choices", None) or (was.low, was.high, *["log"] * was.log)
                faults[
                    f"{parameter.key} was drawn from {', '.join(map(str, values))} when the sweep began and would be "
                    f"from {parameter} now, which Optuna cannot change. Choose another hydra.sweeper.name."
                ] = None
    return list(faults)


@contextmanager
def quiet(*also: type[Warning]) -> Iterator[None]:
    """Silences Optuna's remark that something is experimental, and the warnings ``also``."""
    with _filters, warnings.catch_warnings():
        for category in (ExperimentalWarning, *also):
            warnings.simplefilter("ignore", category)
        yield


def make_pruner(settings: Settings) -> Any:
    """The pruner that the settings name."""
    with quiet():
        return _PRUNERS[settings.pruner][0](**settings.pruner_options)


def make_sampler(settings: Settings, space: Space | None, number: int) -> Any:
    """The sampler that draws trial ``number``: what is random in it is this trial's own."""
    own = {"seed": random.Random(f"{settings.seed} {number}").getrandbits(32)}
    if space is None:
        return samplers.RandomSampler(**own)
    options: dict[str, Any] = dict(settings.sampler_options)
    conditional = any(parameter.when for parameter in space.parameters)
    with quiet():
        match settings.sampler:
            case "tpe":  # ungrouped, it models together only what all trials have
                grouped = {"multivariate": True, "group": True} if conditional else {}
                return samplers.TPESampler(**own, **grouped | options)
            case "gp":  # where it has no model, tpe learns more than random
                rest = samplers.TPESampler(**own) if conditional else None
                return samplers.GPSampler(**own, independent_sampler=rest, warn_independent_sampling=False, **options)
            case "cmaes":
                return samplers.CmaEsSampler(**own, warn_independent_sampling=False, **options)
            case "qmc":
                shared = random.Random(settings.seed).getrandbits(32)
                return _Point(number, space, seed=shared, **{"scramble": True} | options)
            case "nsga2":
                return samplers.NSGAIISampler(**own, **options)
    return samplers.RandomSampler(**own)


class PerTrial(samplers.BaseSampler):  # type: ignore[misc]
    """Draws every trial by a sampler made for it.

    Args:
        make: the sampler of the trial of that number.
        begin: called with the number as soon as the trial exists.
    """

    def __init__(self, make: Callable[[int], Any], begin: Callable[[int], None]) -> None:
        self._make, self._begin = make, begin

    def before_trial(self, study: Any, trial: Any) -> None:
        """Called first; the others, of one trial, follow in the same thread."""
        self._begin(trial.number)
        self._own = self._make(trial.number)
        self._own.before_trial(study, trial)

    def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
        """What is drawn together."""
        return self._own.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:
        """Values drawn together."""
        return self._own.sample_relative(study, trial, search_space)

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        """One value drawn by itself."""
        return self._own.sample_independent(study, trial, param_name, param_distribution)


class _Point(samplers.QMCSampler):  # type: ignore[misc]
    """Point ``number`` of a sequence over all parameters, those too that the trial is not asked for.

    Optuna's own counts points in the storage, where two processes may read the same count, and takes its parameters
    from the first trial.
    """

    def __init__(self, number: int, space: Space, **options: Any) -> None:
        super().__init__(**options)
        drawn = {parameter.key: distribution(parameter) for parameter in space.parameters}
        self._number = number
        self._drawn = {key: among for key, among in drawn.items() if not among.single()}

    def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
        """All parameters that have more than one value."""
        return self._drawn

    def _find_sample_id(self, study: Any, search_space: Any) -> int:
        return self._number


def distribution(parameter: Parameter) -> Any:
    """What Optuna draws a parameter from."""
    if parameter.choices:
        return CategoricalDistribution(parameter.choices)
    if parameter.integer:
        return IntDistribution(parameter.low, parameter.high, parameter.log, parameter.step or 1)
    return FloatDistribution(parameter.low, parameter.high, parameter.log, parameter.step)


def choose(trial: Any, parameter: Parameter) -> Any:
    """The value that the Optuna trial ``trial`` draws for a parameter."""
    if parameter.choices:
        return trial.suggest_categorical(parameter.key, parameter.choices)
    if parameter.integer:
        step = parameter.step or 1
        return trial.suggest_int(parameter.key, parameter.low, parameter.high, step=step, log=parameter.log)
    return trial.suggest_float(parameter.key, parameter.low, parameter.high, step=parameter.step, log=parameter.log)
