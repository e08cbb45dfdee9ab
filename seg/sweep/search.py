"""The trials of a sweep: asked for and recorded through one Optuna study, by any number of processes.

A grid is a search whose trials are all entered beforehand. Every process that shares the storage takes the next trial,
runs it, and records how it ended. Optuna's state of an unfinished trial, RUNNING, is not trusted: each trial carries
the process that took it, and one whose process has gone is taken again; that of another machine counts as gone when
it has given no sign of life for five minutes.
"""

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from seg.errors import ConfigError, without_passwords
from seg.records.state import Process
from seg.sweep.goal import Goal, drawn, make_pruner, make_sampler
from seg.sweep.jobs import Space, Value
from seg.sweep.storage import alone, close_storage, open_storage, patient

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
STATES = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}


@dataclass(frozen=True)
class Trial:
    """A trial to run."""

    number: int
    id: int  # in the storage
    params: dict[str, Value]
    overrides: tuple[str, ...]
    again: bool = False  # begun by a process that no longer exists


class Search:
    """One process's part in a sweep. Any thread may call its methods.

    While the storage does not answer, a method tries again for some minutes before it raises SegError.

    Args:
        name: of the sweep; every process with the same name and storage takes part.
        address: a journal file, or a database such as ``postgresql://user:password@host/database``.
        goal: what is searched for.
        process: this one.
        space: what varies.
        starts: all trials of a grid but those that ``add`` adds, or those that a search begins with.
        overrides: of the trial that has these values; None: as the space says.
        definition: plain data that may not change once the sweep has begun.
        shared: whether other processes work at the sweep at the same time.

    Raises:
        ConfigError: the storage cannot be reached; the name is another sweep's.
    """

    def __init__(
        self,
        name: str,
        address: str | Path,
        goal: Goal,
        process: Process,
        space: Space,
        starts: Sequence[Mapping[str, Value]] = (),
        *,
        overrides: Callable[[Mapping[str, Value]], tuple[str, ...]] | None = None,
        definition: Mapping[str, object] | None = None,
        shared: bool = False,
    ) -> None:
        self.name, self.address, self.goal, self.process = name, address, goal, process
        self.space, self.overrides = space, overrides or space.overrides
        self._starts, self._definition, self._shared = starts, dict(definition or {}), shared
        self._lock = threading.RLock()
        self._mine: dict[int, optuna.Trial] = {}  # trials that this process took and whose end it has not recorded
        self._storage = open_storage(address)
        self.study = self._opened()

    @patient
    def enter(self, again: bool = True) -> None:
        """Enters the trials known beforehand that have not been entered yet; they run before all that is drawn.

        With ``again`` a grid's trial that failed for good is entered once more, unless other processes are at work.
        """
        with self._alone():
            later = [params for batch in self.batches for params in batch["trials"]]
            for params in [*self._starts, *later]:
                self.study.enqueue_trial(dict(params), skip_if_exists=True)
            trials = self._trials()
            at_work = any(trial.state == TrialState.RUNNING and not self._abandoned(trial) for trial in trials)
            if again and self.goal.n_trials is None and not at_work:
                retried = _retried(trials)
                for trial in trials:
                    if trial.state == TrialState.FAIL and trial.number not in retried:
                        self._enter_again(trial, attempt=1)

    @patient
    def take(self) -> Trial | None:
        """The next trial to run, abandoned ones first; None if there is none now, see ``over``."""
        with self._lock:
            with self._alone():
                trials = self._trials()
                left = next(filter(self._abandoned, trials), None)
                if left is None and not self._open(trials):
                    return None
                trial = self.study.ask() if left is None else optuna.Trial(self.study, left._trial_id)
                trial.set_user_attr("process", self._sign())
                params = self.space.suggest(partial(drawn, trial))
            self._mine[trial.number] = trial  # only now: if the storage goes away before, the trial is taken once more
        again = left is not None and "process" in left.user_attrs
        return Trial(trial.number, trial._trial_id, params, self.overrides(params), again)

    @patient
    def over(self) -> bool:
        """Whether nothing is left to take, and nothing runs anywhere that might fail and come back."""
        with self._alone():
            trials = self._trials()
            return not any(trial.state == TrialState.RUNNING for trial in trials) and not self._open(trials)

    @patient
    def note(self, number: int, **attrs: str) -> None:
        """Keeps ``run_id``, ``predictions`` and the like with a trial that this process runs."""
        for key, value in attrs.items():
            with suppress(UpdateFinishedTrialError, KeyError):  # it has ended: another machine may have given it up
                self._mine[number].set_user_attr(key, value)

    @patient
    def complete(self, number: int, values: Sequence[float]) -> None:
        """A trial finished with these values of the objectives, all finite."""
        self._tell(number, TrialState.COMPLETE, values)
        self.let_go(number)

    @patient
    def prune(self, number: int) -> None:
        """A trial stopped as Optuna said it should; its value is what it reported last."""
        self._tell(number, TrialState.PRUNED)
        self.let_go(number)

    @patient
    def fail(self, number: int, error: str, retry: bool) -> None:
        """A trial failed; it is entered once more where ``retry`` is set and ``retries`` allow it."""
        with self._alone():
            self.note(number, error=without_passwords(error))
            self._tell(number, TrialState.FAIL)
            trials = self._trials()
            trial, attempt = trials[number], trials[number].user_attrs.get("attempt", 1)
            failed = number in self._mine and trial.state == TrialState.FAIL and number not in _retried(trials)
            if failed and retry and attempt <= self.goal.retries:
                self._enter_again(trial, attempt + 1)
        self.let_go(number)  # only now: if the storage goes away before, its retry is not lost

    @patient
    def failures(self) -> list[tuple[int, str]]:
        """Number and error of every trial that failed, the oldest first."""
        failed = [trial for trial in self._trials() if trial.state == TrialState.FAIL]
        return [(trial.number, trial.user_attrs.get("error", "")) for trial in failed]

    def let_go(self, number: int) -> None:
        """A trial is no longer this process's: it has ended, or was stopped and waits for whoever continues it."""
        self._mine.pop(number, None)

    @patient
    def beat(self) -> None:
        """Shows other machines that this process's trials are alive; to be called every minute."""
        if self._shared:
            for trial in tuple(self._mine.values()):
                with suppress(UpdateFinishedTrialError):
                    trial.set_user_attr("process", self._sign())

    @patient
    def frame(self) -> "pd.DataFrame":
        """A row per trial: number, state, objectives, parameters, and more.

        The state is finished, pruned, failed, waiting, running, or killed if no process runs it any more.
        ``attrs["parameters"]`` names the columns that hold what varies. A trial is ``retried`` where it failed and was
        entered once more.
        """
        trials = self._trials()
        table = _table(trials, self.goal.objectives, [parameter.key for parameter in self.space.parameters])
        table.loc[[self._abandoned(trial) for trial in trials], "state"] = "killed"
        return table

    @patient
    def best(self) -> "pd.DataFrame":
        """The rows of ``frame`` of the best trial, the first of equal ones, or of the Pareto front."""
        found = sorted(trial.number for trial in self.study.best_trials)
        return self.frame().iloc[found if len(self.goal.objectives) > 1 else found[:1]]

    @property
    @patient
    def parent(self) -> str | None:
        """Run id of the sweep's own run."""
        parent: str | None = self.study.user_attrs.get("parent")
        return parent

    @patient
    def set_parent_once(self, run_id: str) -> str:
        """Sets the sweep's own run; of several processes the first one wins. Returns the run that is set."""
        with self._alone():
            if (known := self.study.user_attrs.get("parent")) is None:
                self.study.set_user_attr("parent", run_id)
            return known or run_id

    @property
    @patient
    def batches(self) -> list[dict[str, Any]]:
        """What ``add`` added to a grid, the first batch first."""
        return list(self.study.user_attrs.get("batches", []))

    @patient
    def add(self, place: int, trials: Sequence[Mapping[str, Value]], why: str = "") -> None:
        """Adds trials to a grid as its batch ``place``, counted from 0; of several processes the first one wins.

        An empty batch is the last one, and ``why`` says why.
        """
        with self._alone():
            known = self.batches
            if len(known) == place:
                batch = {"trials": [dict(params) for params in trials], "why": why}
                self.study.set_user_attr("batches", [*known, batch])
        self.enter(again=False)

    def close(self) -> None:
        """Lets go of the storage."""
        close_storage(self._storage)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._lock, alone(self._storage, self.address, self.name):
            yield

    @patient
    def _opened(self) -> Study:
        with self._alone():
            study = optuna.create_study(
                storage=self._storage,
                study_name=self.name,
                directions=[StudyDirection[way.upper()] for way in self.goal.directions],
                pruner=make_pruner(self.goal.pruner, self.goal.pruner_options),
                load_if_exists=True,
            )
            self._check_same(study)
            begun = len(study.get_trials(deepcopy=False))
            # A continued sweep draws other points than before; a sequence such as qmc's keeps its place in the storage.
            own = f"{self.goal.seed} {begun} {self.process if self._shared else ''}"
            seed = self.goal.seed if self.goal.sampler == "qmc" else random.Random(own).getrandbits(32)
            study.sampler = make_sampler(self.goal, self.space, seed)
            study.stop = lambda: None  # type: ignore[method-assign]  # what some samplers call; n_trials ends a search
            return study

    def _check_same(self, study: Study) -> None:
        """Whether the study that was opened is this sweep's."""
        before = study.user_attrs.get("definition", self._definition)
        changed = [key for key, value in before.items() if self._definition.get(key) != value]
        if changed and {*changed} <= {"data", "split"}:
            raise ConfigError(
                f"The data changed since the sweep {self.name} began, so its scores could not be compared. Put them "
                "back, or choose another hydra.sweeper.name to train all anew."
            )
        if changed:
            raise ConfigError(
                f"The sweep {self.name} was begun with other settings ({', '.join(changed)}). "
                "Choose another hydra.sweeper.name, or leave it out."
            )
        study.set_user_attr("definition", self._definition)
        study.set_metric_names(list(self.goal.objectives))

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _open(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether a trial can be taken: one that was entered, or a new one."""
        states = Counter(trial.state for trial in trials)
        if self.goal.n_trials is None:
            return states[TrialState.WAITING] > 0
        return states[TrialState.COMPLETE] + states[TrialState.PRUNED] + states[TrialState.RUNNING] < self.goal.n_trials

    def _enter_again(self, trial: FrozenTrial, attempt: int) -> None:
        self.study.enqueue_trial(_params(trial), {"retry_of": trial.number, "attempt": attempt})

    def _sign(self) -> dict[str, object]:
        return asdict(self.process) | {"beat": time.time()}

    def _abandoned(self, trial: FrozenTrial) -> bool:
        """Whether a trial is under way and its process is not, as far as this machine can tell."""
        if trial.state != TrialState.RUNNING:
            return False
        known = trial.user_attrs.get("process")
        if not (self._shared and known) or (known["host"], known["pid"]) == (self.process.host, self.process.pid):
            return trial.number not in self._mine
        return Process(known["host"], known["pid"], known["started"]).lost(known["beat"])

    def _tell(self, number: int, state: TrialState, values: Sequence[float] | None = None) -> None:
        ended = None
        with suppress(UpdateFinishedTrialError):
            ended = self.study.tell(number, values, state, skip_if_finished=True)
        if ended is None or ended.state != state:
            log.warning("Trial %d had been given up before it was %s.", number, STATES[state.name])


def _params(trial: FrozenTrial) -> dict[str, Any]:
    """The values of a trial, or what is known of them before it is taken."""
    return dict(trial.params or trial.system_attrs.get("fixed_params", {}))


def _retried(trials: Iterable[FrozenTrial]) -> set[int]:
    """The numbers of those that were entered once more."""
    return {trial.user_attrs["retry_of"] for trial in trials if "retry_of" in trial.user_attrs}


def _table(trials: Sequence[FrozenTrial], objectives: Sequence[str], keys: Sequence[str]) -> "pd.DataFrame":
    import pandas as pd

    own, retried = ("run_id", "predictions", "error"), _retried(trials)
    rows = [
        {"number": trial.number, "state": STATES[trial.state.name]}
        | _params(trial)
        | {key: trial.user_attrs.get(key) for key in own}
        | {"attempt": trial.user_attrs.get("attempt", 1), "retried": trial.number in retried}
        | {"started": trial.datetime_start, "seconds": trial.duration.total_seconds() if trial.duration else None}
        | dict(zip(objectives, trial.values or [None] * len(objectives), strict=True))  # seconds may be one of them
        for trial in trials
    ]
    columns = ["number", "state", *objectives, *keys, "run_id", "predictions", "attempt", "retried", "started"]
    table = pd.DataFrame(rows, columns=[*dict.fromkeys([*columns, "seconds", "error"])])
    table = table.astype(dict.fromkeys([*objectives, "seconds"], float) | {"retried": bool})
    for key in own:  # None where there is none, which pandas would make NaN
        table[key] = table[key].astype(object).where(table[key].notna(), None)
    table.attrs["parameters"] = list(keys)
    return table
