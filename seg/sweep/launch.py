"""Runs trials: each worker takes the next one as soon as it is free, whatever the others do."""

import json
import logging
import math
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import partial
from pathlib import Path
from signal import Signals
from typing import NamedTuple, cast

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from seg.config.arguments import quoted
from seg.config.compose import keys_of
from seg.data.processors import processors
from seg.errors import ConfigError, without_passwords
from seg.records.address import ADDRESS
from seg.records.folder import RunFolder
from seg.records.pending import add_to_record
from seg.records.state import Process
from seg.signals import heard
from seg.sweep.definition import Sweep
from seg.sweep.jobs import lines_of
from seg.sweep.looks import NextSeed
from seg.sweep.parent import open_own
from seg.sweep.search import Search, Trial
from seg.sweep.trial import STORAGE, TOKEN, Assignment, Outcome, TrialFolder, trial_tags

log = logging.getLogger(__name__)
OWNER = "owner.json"  # the sweep's process
_BEAT = 60.0  # seconds between two signs of life
_IDLE = 0.2  # seconds between two questions for work
_FOREVER = 60 * 24 * 365  # minutes; submitit's own limit is one hour


class Worker(NamedTuple):
    """Where a worker launches: its own launcher, and what it adds to each trial."""

    launcher: Launcher
    overrides: tuple[str, ...]


class Running(NamedTuple):
    """A trial at work."""

    trial: Trial
    folder: TrialFolder
    since: float  # by the monotonic clock


def worker_of(owner: Path) -> Process | None:
    """The process that works, or worked, at a sweep; None where there was none, or its file is damaged."""
    with suppress(OSError, ValueError, TypeError):
        return Process(**json.loads(owner.read_text("utf-8")))
    return None


class Workers:
    """Runs a sweep's trials until it is over, too many failed, or it is stopped.

    Args:
        search: what is to run, and what became of it.
        sweep: what all trials have in common.
        experiment: of MLflow.
        workers: each is used by one thread only.
        ended: called after each trial with its status and a sentence.
    """

    def __init__(
        self,
        search: Search,
        sweep: Sweep,
        experiment: str,
        workers: list[Worker],
        ended: Callable[[Trial, str, str], None],
    ) -> None:
        self.search, self.sweep, self.experiment = search, sweep, experiment
        self.running: dict[int, Running] = {}
        self.stopped = False  # by the user or the cluster: what runs may continue later
        kind = type(workers[0].launcher).__name__  # without their imports: Hydra loads plugins a second time
        self.in_process, self._on_cluster = kind == "BasicLauncher", kind == "SlurmLauncher"
        self._workers, self._ended = workers, ended
        self._next_seed = NextSeed(sweep, search)
        self._failed_before = {number for number, _ in search.failures()}
        self._over = threading.Event()
        self._crash: BaseException | None = None

    def failures(self) -> list[tuple[int, str]]:
        """Number and error of the trials that failed since this process began, the oldest first."""
        return [failure for failure in self.search.failures() if failure[0] not in self._failed_before]

    def work(self) -> None:
        """Works in this thread where trials run in it (signals reach only the main one), else in one thread each."""
        beat = threading.Thread(target=self._guarded, args=(self._beat,), name="beat", daemon=True)
        beat.start()
        try:
            with heard(self._stop):
                if self.in_process:
                    self._guarded(self._work, self._workers[0])
                else:
                    self._side_by_side()
        finally:
            self._over.set()
            beat.join()
        if self._crash:
            raise self._crash

    def _side_by_side(self) -> None:
        threads = [
            threading.Thread(target=self._guarded, args=(self._work, worker), name=f"worker {n}", daemon=True)
            for n, worker in enumerate(self._workers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive() and not (self.stopped and self._on_cluster):  # whose jobs continue without us
                thread.join(0.2)  # in parts, so that signals are handled

    def _guarded(self, work: Callable[..., None], *arguments: Worker) -> None:
        """Our own errors (a lost storage, say) end the sweep, not just one thread silently."""
        try:
            work(*arguments)
        except BaseException as error:
            self._crash = self._crash or error
            self._over.set()

    def _work(self, worker: Worker) -> None:
        while (trial := self._next()) is not None:
            folder = TrialFolder(self.sweep.trial(trial.number))
            if not trial.again:  # never run before: what is in its folder belongs to another sweep
                shutil.rmtree(folder.path, ignore_errors=True)
            self.running[trial.number] = Running(trial, folder, time.monotonic())
            try:
                outcome = self._run(trial, folder, worker)
            finally:
                del self.running[trial.number]
            self._settle(trial, folder, outcome)

    def _next(self) -> Trial | None:
        while not (self._ending or len(self.failures()) >= self.sweep.max_failures):
            if trial := self.search.take():
                return trial
            if self.search.over() and not self._next_seed.more():
                return None
            time.sleep(_IDLE)
        return None

    @property
    def _ending(self) -> bool:
        return self.stopped or self._over.is_set()

    def _run(self, trial: Trial, folder: TrialFolder, worker: Worker) -> Outcome:
        """Runs a trial, however many jobs it takes: a job that something else stopped has saved."""
        in_vain = 0
        while True:
            before = folder.reached
            outcome = self._job(trial, folder, worker)
            in_vain = 0 if folder.reached > before else in_vain + 1
            if outcome.status != "killed" or self.stopped or self.in_process or in_vain > self.sweep.goal.retries:
                return outcome
            log.info("trial %d was asked to stop; it continues", trial.number)

    def _job(self, trial: Trial, folder: TrialFolder, worker: Worker) -> Outcome:
        """One job of a trial; it continues the run that a job before it began."""
        while folder.is_alive():  # it outlived the sweep process that launched it
            if self._ending:
                return Outcome("killed")
            time.sleep(_IDLE)
        error = ""
        if not folder.outcome or folder.outcome.status == "killed":
            if (run := folder.folders) and not run.checkpoint("last").exists():
                self._mark_dead(folder, "its process died before the first checkpoint")
            assignment = folder.assign(self._assignment(trial))
            if self.in_process and assignment.deaths > self.sweep.goal.retries + 1:  # each time it took the sweep along
                error = f"its process died {assignment.deaths} times at the same epoch, perhaps out of memory"
                return self._mark_dead(folder, error, permanent=True)
            if not self.stopped:
                error = self._launched(trial, folder, worker, assignment.token)
            while self.stopped and folder.is_alive():  # Ctrl-C may end a launcher before its trial has saved
                time.sleep(_IDLE)
            self.stopped = self.stopped or (self.in_process and folder.interrupted())
            folder.dismiss()
        if outcome := folder.outcome:
            if folder.own_outcome is None:  # its process died after its run had ended, and before it could say so
                add_to_record(Path(folder.run["run"]), status="FINISHED", uri=self.sweep.cfg.tracking.uri)
            return outcome
        return Outcome("killed") if self.stopped else self._mark_dead(folder, error)

    def _launched(self, trial: Trial, folder: TrialFolder, worker: Worker, token: str) -> str:
        """Starts a job and waits for its end; the message where the trial leaves none itself."""
        place = folder.path.absolute()
        own = {f"+hydra.job.env_set.{TOKEN}": [token], "hydra.sweep.dir": [str(place.parent)]}
        own["hydra.sweep.subdir"] = [place.name]
        error = "its process died without a message; the end of its log may say why"
        try:
            overrides = [*trial.overrides, *worker.overrides, *lines_of(own)]
            (job,) = worker.launcher.launch([overrides], trial.number)
            if job.status == JobStatus.FAILED:
                raise job._return_value  # as job.return_value does, without printing of it
        except KeyboardInterrupt:  # it reached a trial in this process before the trial handled signals itself
            self.stopped = True
        except Exception as failure:  # of the launcher: a job that was killed, a queue that refused it
            error = f"{error} ({type(failure).__name__}: {' '.join(str(failure).split())[:400]})"
        return error

    def _assignment(self, trial: Trial) -> Assignment:
        goal, address = self.sweep.goal, str(self.search.address)
        return Assignment(
            self.sweep.name,
            trial.number,
            self.search.parent,
            self.experiment,
            goal.objectives[0],
            id=trial.id,
            storage=None if "://" in address else str(Path(address).absolute()),
            reports=len(goal.objectives) == 1,
            pruner=goal.pruner,
            pruner_options=dict(goal.pruner_options),
            token=uuid.uuid4().hex,
        )

    def _mark_dead(self, folder: TrialFolder, error: str, *, permanent: bool = False) -> Outcome:
        """Marks the run of a process that died FAILED, in its folder and in MLflow."""
        if run := folder.folders:
            add_to_record(run.run, status="FAILED", error=error, uri=self.sweep.cfg.tracking.uri)
        return Outcome("failed", error=error, permanent=permanent)

    def _record_failure(self, trial: Trial, error: str) -> RunFolder | None:
        """A record for a trial that failed before its run opened one; None if MLflow does not answer."""
        try:
            record = open_own(self.sweep, self.experiment, f"t{trial.number}", parent=self.search.parent)
        except ConfigError:
            return None
        record.set_tags(trial_tags(self.sweep.name, trial.number))
        record.finish("FAILED", error)
        return record.folders

    def _settle(self, trial: Trial, folder: TrialFolder, outcome: Outcome) -> None:
        """Records how the trial ended."""
        values = {name: outcome.metrics.get(name, math.nan) for name in self.sweep.goal.objectives}
        missing = [name for name, value in values.items() if not math.isfinite(value)]
        status, message, permanent = outcome.status, outcome.error, outcome.permanent
        if status == "finished" and missing:
            status, permanent = "failed", True
            message = f"the run has no {', '.join(missing)}; it has {', '.join(sorted(outcome.metrics))}"
        elif status in ("finished", "pruned"):
            message = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        elif status == "killed" and (self._ending or self.in_process):
            status, message = "stopped", "the same command continues it"
        else:
            status, message = "failed", message or "its process was asked to stop"
        if run := folder.folders or (self._record_failure(trial, message) if status == "failed" else None):
            self.search.note(trial.number, run_id=run.run_id, predictions=str(run.predictions))
        if status == "finished":
            self.search.complete(trial.number, list(values.values()))
        elif status == "pruned":
            self.search.prune(trial.number)
        elif status == "failed":
            self.search.fail(trial.number, message, retry=not permanent)
        else:
            self.stopped = True
            self.search.let_go(trial.number)
        self._ended(trial, status, message)

    def _beat(self) -> None:
        """Shows that this process and its trials live."""
        while not self._over.wait(_BEAT):
            self.search.beat()
            owner = self.sweep.folder / OWNER
            if (known := worker_of(owner)) and known.own:  # nobody says of another that it lives
                with suppress(OSError):
                    os.utime(owner)

    def _stop(self, number: Signals) -> None:
        """At a signal: local trials are asked to stop, save, and can continue later."""
        if self.stopped and number == Signals.SIGINT:
            raise KeyboardInterrupt
        what = "the jobs of the cluster continue, and" if self._on_cluster else "the trials at work save and stop;"
        log.warning("%s: %s the same command continues the sweep.", number.name, what)
        self.stopped = True
        if self.in_process and self.running:
            raise KeyboardInterrupt  # a trial that trains handles the signal itself
        for running in [] if self._on_cluster else list(self.running.values()):
            running.folder.ask_to_stop()


def make_workers(sweep: Sweep, context: HydraContext, task: TaskFunction, config: DictConfig) -> list[Worker]:
    """A launcher for each worker, with its share of this machine's processors and GPUs."""
    name, jobs = config.hydra.runtime.choices["hydra/launcher"], sweep.n_jobs
    config, places, uri = deepcopy(config), [*sweep.given], sweep.cfg.tracking.uri or ""
    with open_dict(config):
        if (shown := without_passwords(uri)) != uri:  # a launcher writes all this down; the environment it does not
            os.environ[ADDRESS] = uri  # which the processes of the trials inherit, and complete what is shown from it
            places = _naming(shown, places)
            config.tracking.uri = shown
            typed = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
            config.hydra.overrides.task = _naming(shown, cast("list[str]", typed))
            config.hydra.job.override_dirname = ""  # the overrides again, for the names of folders
        if name == "basic" and jobs > 1:  # this process can do one at a time only
            name = "submitit_local"
            config.hydra.launcher = ConfigStore.instance().load("hydra/launcher/submitit_local.yaml").node
        if name == "submitit_local":
            config.hydra.launcher.timeout_min = _FOREVER
        config.hydra.sweep.dir = str(sweep.folder.absolute())  # where a launcher keeps its own files
        config.hydra.sweeper.storage = None  # a launcher writes this down, and an address may hold a password
        config.hydra.overrides.hydra = [o for o in config.hydra.overrides.hydra if "hydra.sweeper.storage" not in o]
    if "://" in str(sweep.address):
        os.environ[STORAGE] = str(sweep.address)  # which the processes of the trials inherit
    shares = [_share(slot, jobs) if jobs > 1 and name == "submitit_local" else {} for slot in range(jobs)]
    launch = partial(Plugins.instance().instantiate_launcher, hydra_context=context, task_function=task)
    return [
        Worker(
            launch(config=config), (*places, *(f"+hydra.job.env_set.{key}='{value}'" for key, value in share.items()))
        )
        for share in shares
    ]


def _naming(uri: str, overrides: Sequence[str]) -> list[str]:
    """The overrides, with this address in place of theirs."""
    address = quoted(f"tracking.uri={uri}")
    return [address if keys_of([one]) == ["tracking.uri"] else one for one in overrides]


def _share(slot: int, jobs: int) -> dict[str, str]:
    """Environment of a worker: threads that do not fight over the processors, and a GPU of its own."""
    share = {}
    if "OMP_NUM_THREADS" not in os.environ:
        share["OMP_NUM_THREADS"] = str(max(1, processors() // jobs))
    if gpus := _gpus():
        share["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    return share


def _gpus() -> list[str]:
    """The GPUs this process may use, by number."""
    if given := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return given.split(",")
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
