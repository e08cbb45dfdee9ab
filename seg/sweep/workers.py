"""Trials at work: each worker takes the next one as soon as it is free, whatever the others do."""

import logging
import math
import os
import queue
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobStatus
from hydra.plugins.launcher import Launcher

from seg.records.record import add_to_record
from seg.sweep.ledger import Ledger, Trial
from seg.sweep.trial import TOKEN, Assignment, Watch

log = logging.getLogger(__name__)
_LOOK, _BEAT, _ORPHANS = 0.02, 60.0, 30.0  # seconds between two looks at the trials, two signs of life, two searches
OWNER = "owner.json"  # the sweep's process
_IDLE = 0.2  # seconds between two questions for work
_ENDED = ("finished", "pruned", "failed")  # not "killed": such a run goes on
_UNDONE: dict[str, Any] = {
    "status": "killed",
    "metrics": {},
    "error": None,
    "hopeless": False,
}  # left by a stopped sweep


@dataclass(frozen=True)
class Order:
    """What every trial of a sweep has in common."""

    sweep: str
    folder: Path  # of the sweep
    parent: str | None
    uri: str | None  # of MLflow
    experiment: str
    objectives: tuple[str, ...]
    prunes: bool
    folds: tuple[int, ...] | None  # a trial is a run for each
    given: tuple[str, ...]  # overrides of the command line that say where things lie, for every trial
    retries: int
    max_failures: int


@dataclass(frozen=True)
class Desk:
    """Where a worker launches: its own launcher, and what it adds to each trial."""

    launcher: Launcher
    overrides: tuple[str, ...]


@dataclass
class Running:
    """A trial at work."""

    trial: Trial
    watch: Watch
    since: float = field(default_factory=time.monotonic)
    epoch: int = 0
    value: float | None = None
    named: bool = False  # its run is in the ledger
    carried: threading.Lock = field(default_factory=threading.Lock)  # by one thread at a time


class Workers:
    """Runs a ledger's trials until it is over, too many failed, or somebody stops them.

    Args:
        ledger: what is to run, and what became of it.
        order: what all trials have in common.
        desks: one a worker; each is used by one thread only.
        ended: called after each trial with its number, status and a sentence.
    """

    def __init__(
        self, ledger: Ledger, order: Order, desks: list[Desk], ended: Callable[[Trial, str, str], None]
    ) -> None:
        self.ledger, self.order = ledger, order
        self.running: dict[int, Running] = {}
        self.stopped = False  # by the user or the cluster: what runs may go on later
        self._desks, self._ended = desks, ended
        self.in_process = isinstance(desks[0].launcher, BasicLauncher)
        self._on_cluster = type(desks[0].launcher).__name__ == "SlurmLauncher"  # without its import
        self._orphans: queue.SimpleQueue[Trial] = queue.SimpleQueue()
        self._adopted: set[int] = set()
        self._failed_before = {number for number, _ in ledger.failures()}
        self._over = threading.Event()
        self._crash: BaseException | None = None

    def failures(self) -> list[tuple[int, str]]:
        """Number and error of the trials that failed since this process began, the oldest first."""
        return [failure for failure in self.ledger.failures() if failure[0] not in self._failed_before]

    def work(self) -> None:
        """Works in this thread where trials run in it (signals reach only the main one), else in one thread each."""
        self._find_orphans()
        watcher = threading.Thread(target=self._guarded, args=(self._watch,), name="watch", daemon=True)
        watcher.start()
        try:
            with self._stopping_on_signals():
                if self.in_process:
                    self._guarded(self._worker, self._desks[0])
                else:
                    self._side_by_side()
        finally:
            self._over.set()
            watcher.join()
        if self._crash:
            raise self._crash

    def _side_by_side(self) -> None:
        threads = [
            threading.Thread(target=self._guarded, args=(self._worker, desk), name=f"worker {n}", daemon=True)
            for n, desk in enumerate(self._desks)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive() and not (self.stopped and self._on_cluster):  # whose jobs go on without us
                thread.join(0.2)  # in parts, so that signals are heard

    def _guarded(self, work: Callable[..., None], *arguments: Any) -> None:
        """Our own errors (a storage that goes away, say) end the sweep instead of one silent thread."""
        try:
            work(*arguments)
        except BaseException as error:
            self._crash = self._crash or error
            self._over.set()

    def _worker(self, desk: Desk) -> None:
        while (trial := self._next()) is not None:
            self._run(trial, desk)

    def _next(self) -> Trial | None:
        while not (self.stopped or self._over.is_set() or len(self.failures()) >= self.order.max_failures):
            with suppress(queue.Empty):
                return self._orphans.get_nowait()
            if trial := self.ledger.take():
                return trial
            if self.ledger.over():
                return None
            time.sleep(_IDLE)
        return None

    def _run(self, trial: Trial, desk: Desk) -> None:
        """One trial, from its assignment to what the ledger says of it."""
        results = []
        folds = self.order.folds or (None,)
        if trial.number not in self._adopted:  # nobody ran it before: what lies in its folder is not of this sweep
            shutil.rmtree(self.order.folder / f"trials/{trial.number}", ignore_errors=True)
        for fold, watch in zip(folds, self._watches(trial), strict=True):
            part = () if fold is None else (f"data.fold={fold}",)
            self.running[trial.number] = running = Running(trial, watch)
            try:
                result = self._launch(trial, part, watch, desk)
                self._carry(running)  # what it reported since the watcher's last look
            finally:
                del self.running[trial.number]
            results.append(result)
            if result["status"] != "finished" or self._judged(trial, fold, results):
                break
        self._settle(trial, results)

    def _launch(self, trial: Trial, part: tuple[str, ...], watch: Watch, desk: Desk) -> dict[str, Any]:
        """Runs one part of a trial, however many jobs it takes: one that somebody else told to stop has saved."""
        in_vain = 0
        while True:
            before = watch.reached
            result = self._job(trial, part, watch, desk)
            in_vain = 0 if watch.reached > before else in_vain + 1
            if result["status"] != "killed" or self.stopped or self.in_process or in_vain > self.order.retries:
                return result
            log.info("trial %d was told to stop; it goes on", trial.number)

    def _job(self, trial: Trial, part: tuple[str, ...], watch: Watch, desk: Desk) -> dict[str, Any]:
        """One job of a trial; it goes on with the run that a job before it began."""
        while watch.alive:  # began under a sweep process that died, and outlived it
            if self.stopped or self._over.is_set():
                return dict(_UNDONE)
            time.sleep(_IDLE)
        if watch.result.get("status") in _ENDED:
            return self._concluded(watch)
        if (run := watch.run) and not (Path(run["run"]) / "checkpoints" / "last.pt").exists():
            self._bury(watch, "its process died before the first checkpoint")
        token = uuid.uuid4().hex
        deaths = watch.assign(self._assignment(trial, token)).deaths
        if self.in_process and deaths > self.order.retries + 1:  # each time it took the sweep with it
            error = f"its process died {deaths} times at the same epoch, out of memory perhaps"
            self._bury(watch, error)
            return {"status": "failed", "metrics": {}, "error": error, "hopeless": True}
        if self.stopped:  # before the assignment took an older word to stop away
            return dict(_UNDONE)
        overrides = [*trial.overrides, *self.order.given, *part]
        error = "its process died without a word; the end of its log may tell why"
        try:
            own = (f"+hydra.job.env_set.{TOKEN}='{token}'", *_in(watch.folder))
            (job,) = desk.launcher.launch([[*overrides, *desk.overrides, *own]], trial.number)
            if job.status == JobStatus.FAILED:
                raise job._return_value  # as job.return_value does, without printing of it
        except KeyboardInterrupt:  # it reached a trial in this process before the trial could hear signals itself
            self.stopped = True
        except Exception as failure:  # of the launcher: a job that was killed, a queue that refused it
            error = f"{error} ({type(failure).__name__}: {' '.join(str(failure).split())[:400]})"
        return self._outcome(watch, error)

    def _outcome(self, watch: Watch, error: str) -> dict[str, Any]:
        """What a trial said at its end; where it said nothing, ``error``, unless the sweep was stopped."""
        if self.stopped:  # Ctrl-C may end a launcher before its trial has saved
            while watch.alive:
                time.sleep(_IDLE)
        self.stopped = self.stopped or (self.in_process and watch.stopping)
        watch.dismiss()
        if watch.result:
            return self._concluded(watch)
        if self.stopped:
            return dict(_UNDONE)
        self._bury(watch, error)
        return {"status": "failed", "metrics": {}, "error": error, "hopeless": False}

    def _assignment(self, trial: Trial, token: str) -> Assignment:
        order = self.order
        prunes = order.prunes and order.folds is None
        return Assignment(order.sweep, trial.number, order.parent, order.experiment, order.objectives[0], prunes, token)

    def _bury(self, watch: Watch, error: str) -> None:
        """Marks the run of a process that died FAILED, in its folder and in MLflow."""
        if run := watch.run:
            add_to_record(Path(run["run"]), status="FAILED", error=error, uri=self.order.uri)

    def _concluded(self, watch: Watch) -> dict[str, Any]:
        """The result of a trial; where its process died after its run's last word, the run's record is closed, too."""
        result, run = watch.result, watch.run
        if result["status"] in ("finished", "pruned") and not watch.told:
            add_to_record(Path(run["run"]), status="FINISHED", uri=self.order.uri)
        return result

    def _judged(self, trial: Trial, fold: int | None, results: list[dict[str, Any]]) -> bool:
        """Whether the folds so far are enough to give the trial up."""
        if fold is None or self.order.folds is None:
            return False
        value = results[-1]["metrics"].get(self.order.objectives[0], math.nan)
        last = len(results) == len(self.order.folds)
        if self.ledger.report(trial.number, self.order.folds.index(fold), value) and not last:
            results[-1] = results[-1] | {"status": "pruned"}
            for watch in self._watches(trial):
                if run := watch.run:
                    add_to_record(Path(run["run"]), tags={"status": "pruned"}, uri=self.order.uri)
            return True
        return False

    def _settle(self, trial: Trial, results: list[dict[str, Any]]) -> None:
        """Tells the ledger how the trial ended."""
        self._name_runs(trial)
        status, hopeless = results[-1]["status"], results[-1].get("hopeless", False)
        values = [
            _mean([result["metrics"].get(name, math.nan) for result in results]) for name in self.order.objectives
        ]
        reached = dict(zip(self.order.objectives, values, strict=True))
        said = ", ".join(f"{name} {value:.4g}" for name, value in reached.items())
        if status == "killed" and (self.stopped or self.in_process):
            self.stopped = True  # the ledger keeps the trial as running
            status, said = "stopped", "the same command goes on with it"
        elif status == "finished" and not all(map(math.isfinite, values)):
            missing = [name for name, value in reached.items() if not math.isfinite(value)]
            status, hopeless = "failed", True
            said = f"the run has no {', '.join(missing)}; it has {', '.join(sorted(results[-1]['metrics']))}"
        elif status == "finished":
            self.ledger.complete(trial.number, values)
        elif status == "pruned":
            self.ledger.prune(trial.number, values[0] if self.order.folds else None)
        else:
            status, said = "failed", results[-1]["error"] or "its process was told to stop"
        if status == "failed":
            self.ledger.fail(trial.number, said, retry=not hopeless)
        self._ended(trial, status, said)

    def _name_runs(self, trial: Trial) -> None:
        """Tells the ledger which runs a trial has."""
        runs = [run for watch in self._watches(trial) if (run := watch.run)]
        notes = {key: ",".join(run[key] for run in runs) for key in ("run_id", "predictions")}
        self.ledger.note(trial.number, **notes)

    def _watches(self, trial: Trial) -> list[Watch]:
        folder = self.order.folder / f"trials/{trial.number}"
        if self.order.folds is None:
            return [Watch(folder)]
        return [Watch(folder / f"fold_{fold}") for fold in self.order.folds]

    def _watch(self) -> None:
        """Carries the trials' reports to the ledger and its verdicts back; shows that this process lives."""
        beat = orphans = time.monotonic()
        while not self._over.wait(_LOOK):
            for running in list(self.running.values()):
                self._carry(running)
            now = time.monotonic()
            if now - beat > _BEAT:
                self.ledger.beat()
                with suppress(OSError):
                    os.utime(self.order.folder / OWNER)
                beat = now
            if now - orphans > _ORPHANS:
                self._find_orphans()
                orphans = now

    def _carry(self, running: Running) -> None:
        with running.carried:
            self._carry_alone(running)

    def _carry_alone(self, running: Running) -> None:
        if not running.named and running.watch.run:
            running.named = True
            self._name_runs(running.trial)
        for report in running.watch.epochs():
            running.epoch, value = report["epoch"], report["value"]
            if value is None:
                continue
            running.value = value
            if self.order.folds is None:
                prune = self.ledger.report(running.trial.number, running.epoch, value)
                if self.order.prunes:
                    running.watch.answer(report, prune)

    def _find_orphans(self) -> None:
        for trial in self.ledger.orphans():
            if trial.number not in self.running and self.ledger.adopt(trial.number):
                self._adopted.add(trial.number)
                self._orphans.put(trial)

    @contextmanager
    def _stopping_on_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM stop the sweep: local trials are told so, save, and can go on later."""

        def note(number: int, _: object) -> None:
            if self.stopped and number == signal.SIGINT:
                raise KeyboardInterrupt
            what = "the jobs of the cluster go on, and" if self._on_cluster else "the trials at work save and stop;"
            log.warning("%s: %s the same command goes on.", signal.Signals(number).name, what)
            self.stopped = True
            if self.in_process and self.running:
                raise KeyboardInterrupt  # a trial that trains already hears the signal itself
            for running in [] if self._on_cluster else list(self.running.values()):
                running.watch.stop()

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _in(folder: Path) -> tuple[str, str]:
    """The overrides that make ``folder`` a job's own."""
    return f"hydra.sweep.dir='{folder.parent.absolute()}'", f"hydra.sweep.subdir={folder.name}"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
