"""How a sweep and its trials communicate: small files in the trial's folder.

A trial may be this process, another one, or a job on another machine of the cluster; one that outlives its sweep loses
nothing. The sweep writes ``trial.json`` before the trial starts, and ``stop`` to stop it; ``run.json``,
``progress.json`` and ``result.json`` are the trial's reports. Each epoch goes to the sweep's storage, too, where Optuna
decides whether the trial should stop.
"""

import json
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg.errors import InterruptedRunError, SegError
from seg.files import atomic_write
from seg.records.folder import RunFolder
from seg.records.state import Process

if TYPE_CHECKING:
    from seg.sweep.goal import Judge

log = logging.getLogger(__name__)

TOKEN = "SEG_TRIAL_TOKEN"  # in a job's environment
STORAGE = "SEG_SWEEP_STORAGE"  # in a job's environment: a database, whose address may hold a password
_PAUSE = 300.0  # seconds without another question to a storage that did not answer
_BEAT = 30.0  # seconds between a trial's signs of life
_TAKEN = "the sweep has launched another job for this trial, or has given it up"


@dataclass(frozen=True)
class Assignment:
    """What the sweep asks of a trial."""

    sweep: str  # name
    number: int
    parent: str | None  # run id of the sweep's own run
    experiment: str  # in MLflow: a child is shown below its parent only within one experiment
    objective: str  # the number of an epoch to report
    id: int = 0  # of the trial in the storage
    storage: str | None = None  # a journal file; None: the database that the environment names
    reports: bool = True  # to the storage; not where there are several objectives
    pruner: str = "none"
    pruner_options: Mapping[str, object] = field(default_factory=dict)
    token: str = ""  # of the job that is to do it; a queue may start one of an earlier sweep process late
    deaths: int = 0  # jobs before this one that died without a message, and without an epoch more than the one before
    reached: int = 0  # epochs before this job


@dataclass(frozen=True)
class Outcome:
    """How a trial ended."""

    status: str  # finished | pruned | failed | killed
    metrics: dict[str, float] = field(default_factory=dict)
    error: str = ""
    permanent: bool = False  # another try would end the same


class TrialFolder:
    """A trial's folder, as the sweep sees it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def assign(self, assignment: Assignment) -> Assignment:
        """Prepares the folder, before the trial is launched; the assignment as it is there."""
        self.path.mkdir(parents=True, exist_ok=True)
        before, reached = self._read("trial"), self.reached
        died = bool(before) and self.outcome is None
        again = before.get("deaths", 0) if before.get("reached") == reached else 0
        assignment = replace(assignment, deaths=again + 1 if died else 0, reached=reached)
        for name in ("result.json", "stop"):
            (self.path / name).unlink(missing_ok=True)
        self._write("trial", asdict(assignment))
        return assignment

    def ask_to_stop(self) -> None:
        """Asks the trial to save and stop, at once or as soon as it has prepared its data."""
        (self.path / "stop").touch()
        process = Process(**self.run["process"]) if self.is_alive() else None
        if process and process.here:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)

    def dismiss(self) -> None:
        """Whatever starts in this folder from now on (a job that the cluster requeues, say) ends at once."""
        self._write("trial", self._read("trial") | {"token": "-"})

    @property
    def progress(self) -> dict[str, Any]:
        """``epoch`` and ``value`` of the last epoch, by whichever of its jobs; empty before the first."""
        return self._read("progress")

    @property
    def reached(self) -> int:
        """Epochs so far, by all of its jobs."""
        return int(self.progress.get("epoch", 0))

    @property
    def run(self) -> dict[str, Any]:
        """``run_id``, ``run`` (its folder) and ``process`` of the trial's run; empty before it has begun."""
        return self._read("run")

    @property
    def folders(self) -> RunFolder | None:
        """Those of the trial's run, whether or not they are still there; None before it has begun."""
        if not (run := self.run):
            return None
        place = Path(run["run"])
        return RunFolder.of(place.parents[1], run["run_id"], place.name.removeprefix("run_"))

    def interrupted(self) -> bool:
        """Whether the trial was asked to stop: by its sweep, for it notices no signal while it prepares its data."""
        return (self.path / "stop").exists()

    @property
    def own_outcome(self) -> Outcome | None:
        """How the trial ended, as it reported; None while it runs, or if it died."""
        result = self._read("result")
        return Outcome(**result) if result else None

    @property
    def outcome(self) -> Outcome | None:
        """How the trial ended; one whose process died after its run had ended, like the run."""
        if self.own_outcome or not (folders := self.folders) or not Process(**self.run["process"]).gone:
            return self.own_outcome
        with suppress(OSError, ValueError):
            summary = json.loads(folders.summary.read_text("utf-8"))
            return Outcome(summary["status"], summary["metrics"])
        return None

    def is_alive(self) -> bool:
        """Whether the trial's process is at work: it began, has not ended, and is not lost."""
        run = self.run
        if not run or self.outcome:
            return False
        with suppress(FileNotFoundError):
            return not Process(**run["process"]).lost((self.path / "run.json").stat().st_mtime)
        return False

    def _read(self, name: str) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            content: dict[str, Any] = json.loads((self.path / f"{name}.json").read_text("utf-8"))
            return content
        return {}

    def _write(self, name: str, content: Mapping[str, object]) -> None:
        atomic_write(self.path / f"{name}.json", json.dumps(content, indent=1))


class TrialReporter(TrialFolder):
    """The folder as the trial itself sees it: the run's reporter, see seg.engine.run."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.assignment = Assignment(**json.loads((path / "trial.json").read_text("utf-8")))
        self.pruned = False
        self._judge: Judge | None = None
        self._silent_until = 0.0
        self._over = threading.Event()

    @property
    def wanted(self) -> bool:
        """Whether the sweep still waits for this job, and has not launched another one in its place."""
        return bool(self._read("trial").get("token", "") == self.assignment.token == os.environ.get(TOKEN, ""))

    def stop(self) -> None:
        """Notes that it was asked to stop, for a sweep in the same process, which did not get the signal."""
        (self.path / "stop").touch()

    @property
    def begun(self) -> str | None:
        """Run id of a run that an earlier job of this trial began and saved; None where there is nothing to resume."""
        run = self.folders
        return run.run_id if run and run.checkpoint("last").exists() else None

    @property
    def tracking(self) -> dict[str, Any]:
        """Where its run is recorded and with which tags, as the configuration says it."""
        own = self.assignment
        return {"experiment": own.experiment, "parent": own.parent, "tags": trial_tags(own.sweep, own.number)}

    @property
    def log(self) -> Path:
        """The trial's own log; a retried job appends to it."""
        return self.path / "log.txt"

    def begin(self, run: RunFolder | None) -> None:
        """Says which run this trial is, and in which process, which from then on shows that it lives.

        Raises:
            InterruptedRunError: another job does this trial by now, or the sweep has been stopped.
        """
        if not self.wanted:
            raise InterruptedRunError(_TAKEN)
        if self.interrupted():
            raise InterruptedRunError("the sweep was stopped before this trial began to train")
        if run:
            process = asdict(Process.this())
            self._write("run", {"run_id": run.run_id, "run": str(run.run.absolute()), "process": process})
            threading.Thread(target=self._beat, name="beat", daemon=True).start()

    def epoch(self, numbers: Mapping[str, float]) -> bool:
        """Tells the sweep an epoch's numbers; whether the trial should stop, because others were better by then."""
        step, value = int(numbers["epoch"]), numbers.get(self.assignment.objective)
        self._write("progress", {"epoch": step, "value": value})
        if value is not None and math.isfinite(value) and self.assignment.reports:
            self.pruned = self._judged(step, value)
        return self.pruned

    @contextmanager
    def reported(self, metrics: dict[str, float]) -> Iterator[None]:
        """Reports to the sweep how the trial ended, with what was put into ``metrics`` meanwhile."""
        try:
            yield
        except (InterruptedRunError, KeyboardInterrupt, SystemExit) as error:
            self._end("killed", metrics, error)
            raise
        except Exception as error:
            self._end("failed", metrics, error)
            raise
        self._end("pruned" if self.pruned else "finished", metrics)

    def _beat(self) -> None:
        while not self._over.wait(_BEAT):
            with suppress(OSError):
                os.utime(self.path / "run.json")

    def _judged(self, step: int, value: float) -> bool:
        """Whether to prune; a storage that does not answer prunes nothing, and is not asked again for a while."""
        if time.monotonic() < self._silent_until:
            return False
        try:
            self._judge = self._judge or self._found_judge()
            return self._judge.stops(step, value)
        except Exception as error:  # of a file, a database, its driver: none may end a training
            log.warning("The sweep's storage does not answer (%s); the trial continues unpruned.", type(error).__name__)
            self._silent_until = time.monotonic() + _PAUSE
            return False

    def _found_judge(self) -> "Judge":
        from seg.sweep.goal import Judge

        own = self.assignment
        return Judge(own.sweep, own.storage or os.environ[STORAGE], own.id, own.pruner, own.pruner_options)

    def _end(self, status: str, metrics: dict[str, float], error: BaseException | None = None) -> None:
        self._over.set()
        with suppress(Exception):  # as above
            if self._judge:
                self._judge.close()
        if self.wanted:
            kind = "" if error is None or isinstance(error, SegError) else f"{type(error).__name__}: "
            permanent = isinstance(error, SegError) and error.exit_code == 2
            text = "" if error is None else f"{kind}{error}"
            self._write("result", asdict(Outcome(status, metrics, text, permanent)))


def trial_tags(sweep: str, number: int) -> dict[str, str]:
    """By which the run of a trial is found."""
    return {"sweep": sweep, "trial": str(number)}


def current_trial(output_dir: str) -> TrialReporter | None:
    """The trial whose folder Hydra made this job's own; None where no sweep of ours started the job.

    Raises:
        InterruptedRunError: another job runs this trial by now, or it is no longer needed.
    """
    folder = Path(output_dir)
    if not (folder / "trial.json").exists():
        return None
    if not (trial := TrialReporter(folder)).wanted:
        raise InterruptedRunError(_TAKEN)
    return trial
