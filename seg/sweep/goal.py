"""What a sweep searches for, and Optuna's samplers and pruners: with their own options, in any process."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection

from seg.errors import ConfigError, nearest
from seg.sweep.jobs import Parameter, Space, Value
from seg.sweep.storage import close_storage, hush, open_storage

T = TypeVar("T")

SAMPLERS = {
    "tpe": "TPESampler",
    "gp": "GPSampler",
    "cmaes": "CmaEsSampler",
    "random": "RandomSampler",
    "qmc": "QMCSampler",
    "nsga2": "NSGAIISampler",
}
PRUNERS = {
    "none": "NopPruner",
    "median": "MedianPruner",
    "hyperband": "HyperbandPruner",
    "successive_halving": "SuccessiveHalvingPruner",
}
_USUAL: dict[str, dict[str, object]] = {  # what a parameter under `when` would otherwise warn of at each trial
    "gp": {"warn_independent_sampling": False},
    "qmc": {"warn_independent_sampling": False, "scramble": True},
}


@dataclass(frozen=True)
class Goal:
    """What is searched for, and how: settings of ``hydra.sweeper``."""

    objectives: tuple[str, ...]
    directions: tuple[str, ...]  # maximize | minimize, one for each objective
    n_trials: int | None = None  # finished or pruned ones; None: a grid, what was entered and no more
    sampler: str = "tpe"
    sampler_options: Mapping[str, object] = field(default_factory=dict)
    pruner: str = "none"
    pruner_options: Mapping[str, object] = field(default_factory=dict)
    seed: int = 0
    retries: int = 0  # further attempts at a trial that failed


class Judge:
    """Receives the epochs of a trial, in whichever process it runs, and decides whether it should stop.

    Args:
        name: of the sweep.
        address: of its storage.
        trial_id: of the trial in the storage.
        pruner: of the sweep, as are its ``options``.
    """

    def __init__(
        self, name: str, address: str | Path, trial_id: int, pruner: str, options: Mapping[str, object]
    ) -> None:
        self._storage = open_storage(address)
        chosen, nothing = make_pruner(pruner, options), optuna.samplers.RandomSampler()  # which draws nothing
        study = optuna.load_study(study_name=name, storage=self._storage, sampler=nothing, pruner=chosen)
        self._trial = optuna.Trial(study, trial_id)

    def stops(self, epoch: int, value: float) -> bool:
        """Keeps the value of the objective, a finite number, at an epoch; whether others were better by then."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # a resumed run may report an epoch once more
                self._trial.report(value, epoch)
            return bool(self._trial.should_prune())
        except UpdateFinishedTrialError:
            return True  # another machine took this one for dead and gave the trial up

    def close(self) -> None:
        """Lets go of the storage."""
        close_storage(self._storage)


def check(goal: Goal, space: Space) -> None:
    """Tries sampler and pruner on a study that is kept nowhere.

    Raises:
        ConfigError: Optuna refuses one of them, its options, or the goal.
    """
    hush()
    pruner, sampler = make_pruner(goal.pruner, goal.pruner_options), make_sampler(goal, space, 0)
    study = optuna.create_study(
        directions=[StudyDirection[way.upper()] for way in goal.directions], sampler=sampler, pruner=pruner
    )
    if goal.n_trials is not None:
        try:
            space.suggest(partial(drawn, study.ask()))
        except ValueError as error:
            raise ConfigError(f"hydra.sweeper.sampler={goal.sampler}: {error} Choose another sampler.") from error


def make_pruner(name: str, options: Mapping[str, object]) -> BasePruner:
    """Optuna's pruner of that name, with its own options."""
    return _made("pruner", name, PRUNERS, BasePruner, options)  # type: ignore[type-abstract]


def make_sampler(goal: Goal, space: Space, seed: int) -> BaseSampler:
    """Optuna's sampler of the name that ``goal`` gives, with its own options; ``seed`` is for what it draws."""
    options = _USUAL.get(goal.sampler, {}) | ({"seed": seed} if goal.sampler in SAMPLERS else {})
    if goal.sampler == "tpe" and any(parameter.when for parameter in space.parameters):
        # Ungrouped, it models together only what all trials have.
        options |= {"multivariate": True, "group": True}
    options |= goal.sampler_options
    return _made("sampler", goal.sampler, SAMPLERS, BaseSampler, options)  # type: ignore[type-abstract]


def _made(kind: str, name: str, known: Mapping[str, str], base: type[T], options: Mapping[str, object]) -> T:
    place = f"optuna.{kind}s."
    found = getattr(getattr(optuna, f"{kind}s"), known.get(name, name.removeprefix(place)), None)
    if not (isinstance(found, type) and issubclass(found, base) and (name in known or name.startswith(place))):
        near, short = nearest(name, list(known)), ", ".join(known)
        raise ConfigError(f"hydra.sweeper.{kind}={name} is not known.{near} Choose {short}, or a class {place}….")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return found(**options)
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(
            f"hydra.sweeper.{kind}_options={dict(options)} does not suit Optuna's {found.__name__}: {error}. "
            f"Its documentation lists what it takes: https://optuna.readthedocs.io/en/stable/reference/{kind}s"
        ) from None


def drawn(trial: optuna.Trial, parameter: Parameter) -> Value:
    """The value that Optuna draws for a parameter, or has drawn before."""
    among = parameter.distribution
    if isinstance(among, CategoricalDistribution):
        return str(trial.suggest_categorical(parameter.key, parameter.choices))
    if isinstance(among, IntDistribution):
        return trial.suggest_int(parameter.key, among.low, among.high, step=among.step, log=among.log)
    return trial.suggest_float(parameter.key, among.low, among.high, step=among.step, log=among.log)
