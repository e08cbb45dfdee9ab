"""The ledger of a sweep: what is to run, what runs, and what became of it. It is an Optuna study in one storage.

Any number of processes share a ledger, on one machine through a journal file, on several through a database. What
Optuna leaves open is held here:

- A sweep ends with exactly ``n_trials`` finished or pruned trials. A process that took a trial and then finds that
  those before it suffice gives it up as ``surplus``; such a trial is shown nowhere.
- What a trial draws depends on its number and on what is known, not on who asks. So no two processes draw the same
  random point, and a sweep that was stopped goes on as if it had not been.
- A process may die at any moment: what it ran is an orphan, and what it was about to enter is entered by the next.
"""

import logging
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from seg.errors import without_passwords
from seg.records.folder import SILENT, Process
from seg.sweep import plots, rows
from seg.sweep.entries import Job, entry, grid_points, starts
from seg.sweep.samplers import PerTrial, Settings, check, choose, make_sampler, quiet
from seg.sweep.space import Space
from seg.sweep.storage import close_storage, first_said, open_storage, open_study, patient

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Job", "Ledger", "Settings", "Trial"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """A trial to run."""

    number: int
    params: dict[str, Any]
    overrides: tuple[str, ...]
    attempt: int = 1


class Ledger:
    """One process's hand in a sweep. Any thread may call its methods.

    While the storage does not answer, a method tries again for some minutes before it raises SegError.

    Args:
        name: of the sweep; whoever gives the same name and storage takes part.
        address: a journal file, or a database such as ``postgresql://user:password@host/database``.
        settings: what is searched for.
        worker: this process.
        space: of a search; None for a grid.

    Raises:
        ConfigError: what would stop the sweep later, every fault at once; the storage cannot be reached; the name is
            another sweep's.
    """

    def __init__(
        self, name: str, address: str | Path, settings: Settings, worker: Process, space: Space | None = None
    ) -> None:
        check(settings, space)
        self.name, self.address = name, address
        self.settings, self.space, self.worker = settings, space, worker
        self._lock = threading.RLock()
        self._begun: set[int] = set()  # trials that this process has begun to take
        self._mine: set[int] = set()  # those it got and has not yet told the end of
        self._overrides: dict[str, tuple[str, ...]] = {}  # of a grid's jobs, as this process runs them
        self._points: dict[str, dict[str, Any]] = {}  # of a grid sampler
        if space and settings.sampler == "grid":
            points = list(grid_points(space))
            random.Random(settings.seed).shuffle(points)  # so that the first n_trials are spread over the space
            self._points = {entry(point): point for point in points}
        self._entered_only = space is None or settings.n_trials is None or settings.sampler == "grid"
        self._study = self._joined(open_storage(address))
        self._storage = self._study._storage  # with Optuna's cache of finished trials

    @patient
    def enqueue(self, jobs: Sequence[Job], again: bool = True) -> None:
        """Enters those of ``jobs`` that have not been entered yet, which run before all that is drawn.

        A grid's job is known by what varies, and runs as this process says. With ``again`` one that failed for good is
        entered once more, unless other processes are at work.

        Raises:
            ConfigError: a search is to start from values that it does not search.
        """
        values = [{} for _ in jobs] if self.space is None else starts(self.space, jobs)
        seen: Counter[str] = Counter()
        with self._lock:
            trials = self._all()
            known = {trial.user_attrs.get("job") for trial in trials}
            for job, fixed in zip(jobs, values, strict=True):
                what = dict(job.params) if self.space is None else fixed
                seen[entry(what)] += 1
                name = entry(what, seen[entry(what)])
                grid = {"params": what, "overrides": list(job.overrides), "entry": name} if self.space is None else {}
                self._overrides[name] = job.overrides
                if name not in known:
                    self._study.enqueue_trial(fixed, {"job": name, **grid})
            at_work = any(trial.state == TrialState.RUNNING and not self._abandoned(trial) for trial in trials)
            if again and self.space is None and not at_work:
                retried = rows.retried(trials)
                for trial in rows.shown(trials):
                    if trial.state == TrialState.FAIL and trial.number not in retried:
                        self._enter_again(trial, attempt=1)

    @patient
    def take(self) -> Trial | None:
        """The next trial to run; None where there is none now, see ``over``."""
        with self._lock:
            while self._open(self._all()):
                if (trial := self._taken()) is not None:
                    return trial
        return None

    @patient
    def over(self) -> bool:
        """Whether nothing is left to take, and nothing runs anywhere that might fail and come back."""
        with self._lock:
            trials = self._all()
            return not any(trial.state == TrialState.RUNNING for trial in trials) and not self._open(trials)

    @patient
    def report(self, number: int, step: int, value: float) -> bool:
        """Notes what a trial has reached; whether it should stop there.

        Args:
            number: of the trial.
            step: an epoch or a fold; the same for all trials.
            value: of the objective; one that is not finite says nothing and is left out.
        """
        if len(self.settings.objectives) > 1 or not math.isfinite(value):
            return False
        with self._lock, quiet(UserWarning):  # Wilcoxon's, on folds that the best trial does not have
            trial_id = self._id(number)
            try:
                self._storage.set_trial_intermediate_value(trial_id, step, float(value))
            except UpdateFinishedTrialError:
                return True  # another machine took this one for dead and gave the trial up
            return bool(self._study.pruner.prune(self._study, self._storage.get_trial(trial_id)))

    @patient
    def note(self, number: int, **attrs: Any) -> None:
        """Keeps ``run_id``, ``predictions`` and the like with a trial that has not ended."""
        for key, value in attrs.items():
            with suppress(UpdateFinishedTrialError):
                self._storage.set_trial_user_attr(self._id(number), key, value)

    @patient
    def complete(self, number: int, values: Sequence[float]) -> None:
        """A trial finished with these values of the objectives; one that is not finite makes it a failure."""
        named = zip(self.settings.objectives, values, strict=True)
        if strange := [f"{name} is {value}" for name, value in named if not math.isfinite(value)]:
            self.fail(number, f"{', '.join(strange)}; an objective must be a finite number", retry=False)
        else:
            self._tell(number, TrialState.COMPLETE, [float(value) for value in values])

    @patient
    def prune(self, number: int, value: float | None = None) -> None:
        """A trial stopped as ``report`` said it should, having reached ``value``; None: what it reported last."""
        if value is not None:  # which Optuna's own ``tell`` does not take for a pruned trial
            with suppress(UpdateFinishedTrialError):
                self._storage.set_trial_state_values(self._id(number), TrialState.PRUNED, [float(value)])
        self._tell(number, TrialState.PRUNED)

    @patient
    def fail(self, number: int, error: str, retry: bool) -> None:
        """A trial failed; it is entered once more where ``retry`` is set and ``retries`` allow it."""
        with self._lock:
            trial = self._storage.get_trial(self._id(number))
            attempt = trial.user_attrs.get("attempt", 1)
            if trial.state == TrialState.RUNNING:
                self.note(number, error=without_passwords(error))
                if retry and attempt <= self.settings.retries:
                    self._enter_again(trial, attempt + 1)  # before the other, so that no other process takes its place
            self._tell(number, TrialState.FAIL)

    @patient
    def failures(self) -> list[tuple[int, str]]:
        """Number and error of every trial that failed, the oldest first."""
        failed = [trial for trial in rows.shown(self._all()) if trial.state == TrialState.FAIL]
        return [(trial.number, trial.user_attrs.get("error", "")) for trial in failed]

    @patient
    def orphans(self) -> list[Trial]:
        """Trials whose process has gone, for the caller to ``adopt``, or to say how they ended.

        Those that their process had not yet got, or had just given up, are settled here.
        """
        with self._lock:
            trials = self._all()
            left = {trial.number: trial for trial in trials if self._abandoned(trial)}
            counted = {trial.number for trial in rows.counted(trials)}
            for number, trial in list(left.items()):
                if number in counted and "overrides" in trial.user_attrs:
                    continue
                if number in counted and "job" in trial.user_attrs:
                    self._enter_again(trial, trial.user_attrs.get("attempt", 1))
                if "error" in trial.user_attrs:  # its process was about to call it failed
                    self._tell(number, TrialState.FAIL)
                else:
                    self._give_up(number)
                del left[number]
            return [self._trial(trial.number, rows.params(trial), trial.user_attrs) for trial in left.values()]

    @patient
    def adopt(self, number: int) -> bool:
        """Makes an orphan this process's own, unless another process was faster; whether it is."""
        mine, last = asdict(self.worker), self._storage.get_trial(self._id(number)).user_attrs.get("worker", {})
        while True:
            after = f"{self.name}: trial {number} after {last.get('host')} {last.get('pid')} {last.get('started')}"
            last = first_said(self._storage, after, mine)
            if last == mine:
                break
            if not Process(**last).gone:
                return False
        self.note(number, worker=self._sign())
        self._mine.add(number)
        return True

    def beat(self) -> None:
        """Shows other machines that this process's trials are alive; to be called every minute."""
        for number in tuple(self._mine):
            self.note(number, worker=self._sign())

    @patient
    def frame(self) -> "pd.DataFrame":
        """A row a trial: number, state (finished, pruned, failed, running, waiting), objectives, parameters, and more.

        ``attrs["parameters"]`` names the columns that hold what varies. A trial is ``retried`` where it failed and was
        entered once more.
        """
        return self._frame(rows.shown(self._all()))

    @patient
    def best(self) -> "pd.DataFrame":
        """The rows of ``frame`` of the best trial, or of the Pareto front, with a column ``overrides``."""
        finished = [trial for trial in self._all() if trial.state == TrialState.COMPLETE]
        if len(self.settings.objectives) > 1:
            best = sorted(self._study.best_trials, key=lambda trial: trial.number)
        else:
            sign = 1 if self.settings.directions == ("maximize",) else -1
            best = sorted(finished, key=lambda trial: (-sign * trial.value, trial.number))[:1]
        frame = self._frame(best)
        frame["overrides"] = [tuple(trial.user_attrs["overrides"]) for trial in best]
        return frame

    def importances(self) -> dict[str, float]:
        """How much of the first objective's differences each parameter explains; empty where that cannot be said."""
        return plots.importances(self._drawable())

    def plots(self, folder: Path) -> list[Path]:
        """Draws the sweep into ``folder``: a PNG for each plot, and all of them in ``plots.html``."""
        return plots.draw(self._drawable(), folder, self.name)

    @property
    @patient
    def parent(self) -> str | None:
        """Run id of the sweep's own run."""
        parent: str | None = self._study.user_attrs.get("parent")
        return parent

    @patient
    def set_parent_once(self, run_id: str) -> str:
        """Says which run is the sweep's own; of several processes the first is heard.

        Returns:
            The run that it is.
        """
        if self.parent is None:
            first = first_said(self._storage, f"{self.name}: parent", run_id)
            self._study.set_user_attr("parent", first)
        return self.parent or run_id

    def close(self) -> None:
        """Lets go of the storage."""
        close_storage(self._storage)

    @patient
    def _joined(self, storage: Any) -> Any:
        sampler = PerTrial(partial(make_sampler, self.settings, self.space), self._sign_on)
        return open_study(storage, self.name, self.settings, self.space, sampler)

    def _open(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether a trial can be taken: one that was entered, or a new one."""
        counted = rows.counted(trials)
        if any(trial.state == TrialState.WAITING for trial in counted[: self.settings.n_trials]):
            return True
        if self.settings.n_trials is not None and len(counted) >= self.settings.n_trials:
            return False
        return not self._entered_only or self._next_point(trials) is not None

    def _next_point(self, trials: Sequence[FrozenTrial]) -> str | None:
        """The next of a grid sampler's points that is not entered yet."""
        known = {trial.user_attrs.get("job") for trial in trials}
        return next((name for name in self._points if name not in known), None)

    def _taken(self) -> Trial | None:
        """A trial taken, or None where that failed because other processes were faster."""
        trials = self._all()
        waiting = any(trial.state == TrialState.WAITING for trial in trials)
        if not waiting and (name := self._next_point(trials)) is not None:
            self._study.enqueue_trial(self._points[name], {"job": name})
        try:
            trial = self._study.ask()
            if not self._wanted(trial.number):
                self._give_up(trial.number)
                return None
            attrs = trial.user_attrs
            if "overrides" not in attrs:
                assert self.space is not None
                attrs["params"] = self.space.suggest(partial(choose, trial))
                attrs["overrides"] = self.space.overrides(attrs["params"])
                trial.set_user_attr("overrides", attrs["overrides"])
        except UpdateFinishedTrialError:
            return None  # another machine took this process for dead
        self._mine.add(trial.number)
        return self._trial(trial.number, attrs["params"], attrs)

    def _trial(self, number: int, params: dict[str, Any], attrs: dict[str, Any]) -> Trial:
        overrides = self._overrides.get(attrs.get("entry", ""), attrs["overrides"])
        return Trial(number, params, tuple(overrides), attrs.get("attempt", 1))

    def _wanted(self, number: int) -> bool:
        """Whether the sweep needs the trial of that number, which this process has just taken."""
        counted = {trial.number: trial for trial in rows.counted(self._all())[: self.settings.n_trials]}
        return number in counted and (not self._entered_only or "job" in counted[number].user_attrs)

    def _sign_on(self, number: int) -> None:
        self._begun.add(number)
        self._storage.set_trial_user_attr(self._id(number), "worker", self._sign())

    def _sign(self) -> dict[str, Any]:
        return asdict(self.worker) | {"beat": time.time()}

    def _abandoned(self, trial: FrozenTrial) -> bool:
        if trial.state != TrialState.RUNNING:
            return False
        if (sign := trial.user_attrs.get("worker")) is None:  # its process died, or lost the storage, before it signed
            return trial.number in self._begun or time.time() - trial.datetime_start.timestamp() > SILENT
        process = Process(sign["host"], sign["pid"], sign["started"])
        if process == self.worker:  # what it could not take whole, or an earlier ledger of the same process left
            return trial.number not in self._mine
        return process.lost(sign["beat"])

    def _enter_again(self, trial: FrozenTrial, attempt: int) -> None:
        grid = {key: trial.user_attrs[key] for key in ("params", "overrides", "entry") if self.space is None}
        attrs = {"job": f"{trial.number} again", "retry_of": trial.number, "attempt": attempt}
        self._study.enqueue_trial(rows.params(trial) if self.space else {}, grid | attrs)

    def _give_up(self, number: int) -> None:
        self.note(number, surplus=True)
        self._tell(number, TrialState.FAIL)

    def _tell(self, number: int, state: TrialState, values: Sequence[float] | None = None) -> None:
        told = None
        with suppress(UpdateFinishedTrialError):
            told = self._study.tell(number, values, state, skip_if_finished=True)
        if told is None or told.state != state:
            log.warning("Trial %d had been given up before it was %s.", number, rows.STATES[state.name])
        self._mine.discard(number)

    def _id(self, number: int) -> int:
        trial_id: int = self._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)
        return trial_id

    def _all(self) -> list[FrozenTrial]:
        trials: list[FrozenTrial] = self._study.get_trials(deepcopy=False)
        return trials

    def _frame(self, trials: Sequence[FrozenTrial]) -> "pd.DataFrame":
        keys = [parameter.key for parameter in self.space.parameters] if self.space else []
        return rows.frame(trials, self.settings.objectives, keys)

    @patient
    def _drawable(self) -> Any:
        return plots.drawable(self._all(), self.settings.objectives, self.settings.directions)
