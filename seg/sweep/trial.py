"""What a sweep and its trials tell each other: small files in the trial's folder.

A trial may be this process, another one, or a job on another machine of the cluster; it needs nothing but its folder,
and one that outlives its sweep loses nothing. ``trial.json`` is the sweep's word before the trial starts, ``stop`` its
last one; ``run.json`` and ``result.json`` are the trial's words, ``epochs.jsonl`` and ``verdict.json`` the talk about
pruning.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from seg.errors import InterruptedRunError, SegError
from seg.files import atomic_write
from seg.records.folder import Process, RunFolders
from seg.records.pending import append_line

TOKEN = "SEG_TRIAL_TOKEN"  # in a job's environment
_PATIENCE = 10.0  # seconds that a trial waits for the sweep's verdict on an epoch, once
_BEAT = 30.0  # seconds between a trial's signs of life
_TAKEN = "the sweep has launched another job for this trial, or has given it up"


@dataclass(frozen=True)
class Assignment:
    """What the sweep says to a trial."""

    sweep: str  # name
    number: int
    parent: str | None  # run id of the sweep's own run
    experiment: str  # in MLflow: a child is shown below its parent only within one experiment
    objective: str  # the number of an epoch to report
    prunes: bool  # whether an epoch's report is answered
    token: str = ""  # of the job that is to do it; a queue may start one of an earlier sweep process late
    deaths: int = 0  # jobs before this one that died without a word, and without an epoch more than the one before
    reached: int = 0  # epochs reported before this job


class Trial:
    """The trial's side of its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.assignment = Assignment(**json.loads((folder / "trial.json").read_text()))
        self.pruned = False
        self._patience = _PATIENCE
        self._over = threading.Event()

    @property
    def wanted(self) -> bool:
        """Whether the sweep still waits for this job, and has not launched another one in its place."""
        token = _read(self.folder / "trial.json").get("token", "")
        return bool(token == self.assignment.token == os.environ.get(TOKEN, ""))

    def interrupted(self) -> bool:
        """Whether the sweep has been stopped; a signal is not heard by a trial that still prepares its data."""
        return (self.folder / "stop").exists()

    def stop(self) -> None:
        """Leaves word that it was told to stop, for a sweep in the same process, which did not hear the signal."""
        (self.folder / "stop").touch()

    @property
    def begun(self) -> str | None:
        """Run id of a run that an earlier job of this trial began and saved; None where there is nothing to resume."""
        run = _read(self.folder / "run.json")
        return run["run_id"] if run and (Path(run["run"]) / "checkpoints" / "last.pt").exists() else None

    @property
    def tracking(self) -> dict[str, Any]:
        """Where its run is recorded and with which tags, as the configuration says it."""
        tags = {"sweep": self.assignment.sweep, "trial": str(self.assignment.number)}
        return {"experiment": self.assignment.experiment, "parent": self.assignment.parent, "tags": tags}

    @property
    def log(self) -> Path:
        """The trial's own log; a job that is tried again writes on."""
        return self.folder / "log.txt"

    def begin(self, run: RunFolders | None) -> None:
        """Says which run this trial is, and in which process, which from then on shows that it lives.

        Raises:
            InterruptedRunError: another job does this trial by now, or the sweep has been stopped.
        """
        if not self.wanted:
            raise InterruptedRunError(_TAKEN)
        if self.interrupted():
            raise InterruptedRunError("the sweep was stopped before this trial began to train")
        if run is None:
            return
        content = {"run_id": run.run_id, "run": str(run.run.absolute()), "predictions": str(run.predictions)}
        atomic_write(self.folder / "run.json", json.dumps(content | {"process": asdict(Process.this())}))
        threading.Thread(target=self._beat, name="beat", daemon=True).start()

    def _beat(self) -> None:
        while not self._over.wait(_BEAT):
            with suppress(OSError):
                os.utime(self.folder / "run.json")

    def epoch(self, numbers: Mapping[str, float]) -> bool:
        """Tells the sweep an epoch's numbers; whether it answers that the trial should stop here.

        A sweep that does not answer in time is not waited for again, until it has answered once more.
        """
        own, epoch = self.assignment.token, int(numbers["epoch"])
        told = {"epoch": epoch, "value": numbers.get(self.assignment.objective), "token": own}
        append_line(self.folder / "epochs.jsonl", json.dumps(told))
        if not self.assignment.prunes or told["value"] is None:
            return False
        deadline = time.monotonic() + self._patience
        while (verdict := _read(self.folder / "verdict.json")).get("epoch", 0) < epoch or verdict["token"] != own:
            if time.monotonic() >= deadline:
                self._patience = 0.0
                return False
            time.sleep(0.01)
        self._patience = _PATIENCE
        self.pruned = bool(verdict["prune"])
        return self.pruned

    @contextmanager
    def reported(self, metrics: dict[str, float]) -> Iterator[None]:
        """Tells the sweep how the trial ended, and what was put into ``metrics`` meanwhile."""
        try:
            yield
        except (InterruptedRunError, KeyboardInterrupt, SystemExit) as error:
            self._end("killed", metrics, error)
            raise
        except Exception as error:
            self._end("failed", metrics, error)
            raise
        self._end("pruned" if self.pruned else "finished", metrics)

    def _end(self, status: str, metrics: dict[str, float], error: BaseException | None = None) -> None:
        self._over.set()
        if not self.wanted:
            return
        kind = "" if error is None or isinstance(error, SegError) else f"{type(error).__name__}: "
        content = {
            "status": status,
            "metrics": metrics,
            "error": None if error is None else f"{kind}{error}",
            "hopeless": isinstance(error, SegError) and error.exit_code == 2,  # another try would end the same
        }
        atomic_write(self.folder / "result.json", json.dumps(content))


def current_trial(output_dir: str) -> Trial | None:
    """The trial whose folder Hydra made this job's own; None where no sweep of ours started the job.

    Raises:
        InterruptedRunError: another job does this trial by now, or nobody needs it any more.
    """
    folder = Path(output_dir)
    if not (folder / "trial.json").exists():
        return None
    if not (trial := Trial(folder)).wanted:
        raise InterruptedRunError(_TAKEN)
    return trial


class Watch:
    """The sweep's side of a trial's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read = 0  # bytes of epochs.jsonl

    def assign(self, assignment: Assignment) -> Assignment:
        """Prepares the folder, before the trial is launched; the assignment as it stands there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        before, reached = _read(self.folder / "trial.json"), self.reached
        died = bool(before) and not self.result
        again = before.get("deaths", 0) if before.get("reached") == reached else 0
        assignment = replace(assignment, deaths=again + 1 if died else 0, reached=reached)
        for name in ("result.json", "stop"):
            (self.folder / name).unlink(missing_ok=True)
        atomic_write(self.folder / "trial.json", json.dumps(asdict(assignment), indent=1))
        return assignment

    def stop(self) -> None:
        """Asks the trial to save and stop, at once or as soon as it has prepared its data."""
        atomic_write(self.folder / "stop", "")
        process = Process(**self.run["process"]) if self.alive else None
        if process and process.host == Process.this().host:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)

    def dismiss(self) -> None:
        """Whatever starts in this folder from now on, a job that the cluster starts once more, say, ends at once."""
        content = _read(self.folder / "trial.json")
        atomic_write(self.folder / "trial.json", json.dumps(content | {"token": "-"}, indent=1))

    def epochs(self) -> list[dict[str, Any]]:
        """The reports that came since the last call."""
        try:
            with (self.folder / "epochs.jsonl").open("rb") as file:
                file.seek(self._read)
                new = file.read()
        except FileNotFoundError:
            return []
        new = new[: new.rfind(b"\n") + 1]
        self._read += len(new)
        return [json.loads(line) for line in new.splitlines()]

    def answer(self, report: Mapping[str, Any], prune: bool) -> None:
        """The verdict on the reports up to this one of ``epochs``."""
        verdict = {"epoch": report["epoch"], "token": report["token"], "prune": prune}
        atomic_write(self.folder / "verdict.json", json.dumps(verdict))

    @property
    def reached(self) -> int:
        """Epochs reported so far, by all of its jobs."""
        return max((report["epoch"] for report in Watch(self.folder).epochs()), default=0)

    @property
    def run(self) -> dict[str, Any]:
        """``run_id``, ``run``, ``predictions``, ``process`` of the trial's run; empty before it has begun."""
        return _read(self.folder / "run.json")

    @property
    def stopping(self) -> bool:
        """Whether the trial was told to stop, by its sweep or by a signal that it heard."""
        return (self.folder / "stop").exists()

    @property
    def told(self) -> bool:
        """Whether the trial itself said how it ended."""
        return bool(_read(self.folder / "result.json"))

    @property
    def result(self) -> dict[str, Any]:
        """``status``, ``metrics``, ``error``, ``hopeless``; empty while the trial goes on, or where it died.

        One whose process died after its run's last word and before its own finished like the run.
        """
        if (result := _read(self.folder / "result.json")) or not (run := self.run):
            return result
        concluded = _read(Path(run["run"]) / "summary.json")
        if not concluded or not Process(**run["process"]).gone:
            return {}
        return {"status": concluded["status"], "metrics": concluded["metrics"], "error": None, "hopeless": False}

    @property
    def alive(self) -> bool:
        """Whether the trial's process is at work: it began, has not ended, and is not lost."""
        run = self.run
        if not run or self.result:
            return False
        with suppress(FileNotFoundError):
            return not Process(**run["process"]).lost((self.folder / "run.json").stat().st_mtime)
        return False


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        return content
    except (OSError, ValueError):
        return {}
