"""The folders of a run: which are whose, so that two runs never mix.

Each run has ``<outputs>/runs/run_<short>/`` and ``<outputs>/predictions/run_<short>/``, where ``short`` is the first
eight characters of its run id, or more where those are taken. A file ``run_id`` in both names the owner.
"""

import json
import os
import re
import shutil
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from seg.errors import ConfigError, DataError
from seg.files import atomic_folder, atomic_write, sha256

SHORT = 8
OWNER = "run_id"
MANIFEST = "manifest.json"
_STATE = "state.json"
SILENT = 300.0  # seconds without a sign of life after which a process of another host counts as gone


@dataclass(frozen=True)
class RunFolder:
    """Where a run writes."""

    run_id: str
    short: str
    run: Path
    predictions: Path

    @property
    def pending(self) -> Path:
        """Is there while a sink may lack something of the run."""
        return self.run / "pending"

    def arrived(self) -> None:
        """Notes that the sink has all of the run."""
        for mark in (self.pending, self.run / "record.sent"):
            mark.unlink(missing_ok=True)

    @property
    def is_pending(self) -> bool:
        """Whether a sink may lack something; version 0.1.0 noted how many bytes of the journal had been sent."""
        sent, journal = self.run / "record.sent", self.run / "record.jsonl"
        old = sent.exists() and journal.exists() and int(sent.read_text()) < journal.stat().st_size
        return self.pending.exists() or old

    @property
    def log(self) -> Path:
        """What the run said, with times."""
        return self.run / "log.txt"

    @property
    def summary(self) -> Path:
        """Last numbers; is there once the run is finished or pruned."""
        return self.run / "summary.json"

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.run / "config" / "config.yaml"

    @property
    def computing(self) -> Path:
        """Precision and layout that were chosen."""
        return self.run / "config" / "computing.json"

    @property
    def split(self) -> Path:
        """Which cases were trained on, validated and tested."""
        return self.run / "data" / "split.json"

    @property
    def fingerprint(self) -> Path:
        """Of the data: classes, channels, and the hash of each case."""
        return self.run / "data" / "fingerprint.json"

    @property
    def plan(self) -> Path:
        """What every ``auto`` of the data became."""
        return self.run / "data" / "plan.json"

    @property
    def cases(self) -> Path:
        """Scores, a row a case and class."""
        return self.run / "data" / "cases.csv"

    @property
    def history(self) -> Path:
        """Numbers, a row an epoch."""
        return self.run / "history.csv"

    def checkpoint(self, name: str) -> Path:
        """``last`` or ``best``."""
        return self.run / "checkpoints" / f"{name}.pt"

    def chosen(self, wanted: str) -> Path:
        """The checkpoint ``best`` where it is wanted and a validation made one, else ``last``."""
        best = self.checkpoint("best")
        return best if wanted == "best" and best.exists() else self.checkpoint("last")

    @classmethod
    def at(cls, run: Path) -> "RunFolder":
        """Those of the run whose own folder is ``run``.

        Raises:
            DataError: it is no run's folder.
        """
        if not (run_id := owner(run)):
            raise DataError(f"{run} is no run's folder: no file {OWNER} in it names its run.")
        return cls(run_id, run.name.removeprefix("run_"), run, run.parent.parent / "predictions" / run.name)

    @classmethod
    def of(cls, outputs: Path, run_id: str, short: str) -> "RunFolder":
        """The two folders of that name, whether or not they exist."""
        return cls(run_id, short, outputs / "runs" / f"run_{short}", outputs / "predictions" / f"run_{short}")


@dataclass(frozen=True)
class Process:
    """A process, told apart from a later one that was given the same number."""

    host: str
    pid: int
    started: float  # seconds since the epoch

    @classmethod
    def this(cls) -> "Process":
        """The process that asks."""
        import psutil  # as all that is imported within functions: what answers at once does without

        return cls(_host(), os.getpid(), psutil.Process().create_time())

    @property
    def gone(self) -> bool:
        """Whether it has certainly ended; of another host's processes nothing is certain."""
        if self.host != _host():
            return False
        import psutil

        try:
            found = psutil.Process(self.pid)
            # The kernel's idea of when a process began shifts a little with each correction of the clock.
            return bool(abs(found.create_time() - self.started) > 10 or found.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True

    def lost(self, sign: float) -> bool:
        """Whether it has ended; of another host's, by when it last showed a sign of life (seconds since the epoch)."""
        return self.gone or (self.host != _host() and time.time() - sign > SILENT)


@dataclass(frozen=True)
class State:
    """What a run's own folder says of it without asking any server: ``state.json``."""

    kind: str  # of tracking: mlflow | none
    uri: str | None  # without password; None: mlflow.db beside the run folders
    experiment: str
    name: str
    status: str  # RUNNING | FINISHED | FAILED | KILLED
    process: Process

    @property
    def true_status(self) -> str:
        """The status; KILLED where it says RUNNING and the process has gone."""
        return "KILLED" if self.status == "RUNNING" and self.process.gone else self.status


def write_state(run: Path, state: State) -> None:
    """Notes ``state`` in the run's folder ``run``."""
    atomic_write(run / _STATE, json.dumps(asdict(state), indent=1))


def read_state(run: Path) -> State | None:
    """What ``write_state`` noted in the folder ``run``; None where there is nothing that can be read."""
    try:
        content = json.loads((run / _STATE).read_text())
        return State(**content | {"process": Process(**content["process"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def claim(outputs: Path, run_id: str, *, predictions: bool = True) -> RunFolder:
    """Makes the run's folders its own, or finds them again where the run is resumed.

    A folder appears with its owner's name already inside, so of several processes that want one name exactly one
    gets it and the others take a longer one.

    Args:
        outputs: holds ``runs`` and ``predictions``; made where missing.
        run_id: digits and lower-case letters.
        predictions: whether to make the folder of predictions, too.

    Raises:
        ConfigError: ``run_id`` has other characters, which might lead out of ``outputs``.
    """
    if not re.fullmatch("[0-9a-z]+", run_id):
        raise ConfigError(f"The run id {run_id!r} must be of digits and lower-case letters only.")
    lengths = range(min(SHORT, len(run_id)), len(run_id) + 1)
    names = [RunFolder.of(outputs, run_id, run_id[:length]) for length in lengths]
    own = [folders for folders in names if owner(folders.run) == run_id]
    for folders in own or names:
        free = owner(folders.predictions) in (None, run_id)
        if free and _take(folders.run, run_id) and (not predictions or _take(folders.predictions, run_id)):
            return folders
    raise ConfigError(f"Every folder run {run_id} could have under {outputs} is taken. Move {names[-1].run} away.")


def owner(folder: Path) -> str | None:
    """The run id in ``folder``; None where there is no folder, "" where it is no run's (a link, say)."""
    if not os.path.lexists(folder):
        return None
    try:
        return "" if folder.is_symlink() else (folder / OWNER).read_text().strip()
    except OSError:
        return ""


def claimed(outputs: Path, kind: str = "runs") -> list[RunFolder]:
    """Every run that has a folder in ``<outputs>/<kind>``, in the order of their names.

    Raises:
        ConfigError: there is no folder ``outputs``.
    """
    if not outputs.is_dir():
        raise ConfigError(f"There is no folder {outputs}. Say where the runs lie: paths.outputs=…")
    names = [(owner(path), path.name.removeprefix("run_")) for path in sorted((outputs / kind).glob("run_*"))]
    return [RunFolder.of(outputs, run_id, short) for run_id, short in names if run_id]


def find(outputs: Path, run: str) -> RunFolder:
    """The folders of the run that the user means.

    Args:
        outputs: where to look.
        run: the run id, its beginning, or one of the run's folders.

    Raises:
        ConfigError: no run or several are meant.
    """
    place = Path(run)
    named = owner(place) if place.name.startswith("run_") else None
    if named and place.resolve().parent.parent != outputs.resolve():
        raise ConfigError(f"{run} does not lie in {outputs}. Set paths.outputs={place.resolve().parent.parent}.")
    wanted = named or run.removeprefix("run_")
    known = claimed(outputs)
    meant = [folders for folders in known if wanted and folders.run_id.startswith(wanted)]
    if len(meant) == 1:
        return meant[0]
    ids = ", ".join(folders.run_id for folders in (meant or known)[:10])
    if meant:
        raise ConfigError(f"Run {run} may be any of {ids}. Give more of its characters.")
    raise ConfigError(f"There is no run {run} in {outputs / 'runs'}, which holds {ids or 'no run at all'}.")


def begin_predictions(folders: RunFolder) -> int:
    """Empties the run's own folder of predictions before it is written anew, and returns how many files that were.

    Raises:
        ConfigError: the folder is another run's; nothing was touched.
    """
    if not _take(folders.predictions, folders.run_id):
        raise ConfigError(f"{folders.predictions} is not of run {folders.run_id}. Move it away, then resume.")
    return empty(folders.predictions)


def empty(folder: Path) -> int:
    """Removes all in ``folder`` but its owner's name, and returns how many files; links are removed, never followed."""
    count = 0
    for path in folder.iterdir():
        if path.name == OWNER:
            continue
        if path.is_dir() and not path.is_symlink():
            count += sum(not inner.is_dir() for inner in path.rglob("*"))
            shutil.rmtree(path)
        else:
            count += 1
            path.unlink()
    return count


def write_manifest(folders: RunFolder, *, config_hash: str, checkpoint_hash: str) -> Path:
    """Lists the run's predictions in ``manifest.json``, written last: where it lies, the folder is complete.

    Both hashes are sha256: of the configuration, and of the checkpoint that predicted.
    """
    root = folders.predictions
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and path.name not in (OWNER, MANIFEST)]
    content = {
        "run_id": folders.run_id,
        "config_hash": config_hash,
        "checkpoint_hash": checkpoint_hash,
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "files": [
            {"path": path.relative_to(root).as_posix(), "bytes": path.stat().st_size, "sha256": sha256(path)}
            for path in files
        ],
    }
    atomic_write(root / MANIFEST, json.dumps(content, indent=1))
    return root / MANIFEST


@contextmanager
def one_at_a_time(outputs: Path) -> Iterator[None]:
    """Held by one process at a time, for what several that start together must not do at once.

    The lock is sqlite's own: every platform has it, and it ends with the process that holds it.
    """
    outputs.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(outputs / ".lock", timeout=300, isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        yield


def _take(folder: Path, run_id: str) -> bool:
    """Makes ``folder`` with its owner's name inside in one step; whether it is this run's now."""
    if owner(folder) is None:
        with atomic_folder(folder) as draft:
            (draft / OWNER).write_text(run_id + "\n")
    return owner(folder) == run_id


def _host() -> str:
    """This machine, or this container: processes are numbered per namespace."""
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}/{namespace.stat().st_ino}" if namespace.exists() else socket.gethostname()
