"""The state of a run according to its own folder (``state.json``), and whether its process is still alive."""

import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from seg.files import atomic_write
from seg.records.folder import RunFolder

_STATE = "state.json"
SILENT = 300.0  # seconds without a sign of life after which a process of another host counts as gone


@dataclass(frozen=True)
class Process:
    """A process, distinguished from a later one with the same number."""

    host: str
    pid: int
    started: float  # seconds since the epoch

    @classmethod
    def this(cls) -> "Process":
        """The process that asks."""
        import psutil  # as all that is imported within functions: what answers at once does without

        return cls(_host(), os.getpid(), psutil.Process().create_time())

    @property
    def here(self) -> bool:
        """Whether it is, or was, of this host."""
        return self.host == _host()

    @property
    def own(self) -> bool:
        """Whether it is the process that asks, whatever the clock now says of when that began."""
        return self.here and self.pid == os.getpid()

    @property
    def gone(self) -> bool:
        """Whether it has certainly ended; of another host's processes nothing is certain."""
        if not self.here:
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
        return self.gone or (not self.here and time.time() - sign > SILENT)


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
    def pushed(self) -> bool:
        """Whether the record goes to a sink, too."""
        return self.kind != "none"

    @property
    def true_status(self) -> str:
        """The status; KILLED if it says RUNNING but the process no longer exists."""
        return "KILLED" if self.status == "RUNNING" and self.process.gone else self.status


def has_finished(run: RunFolder) -> bool:
    """Whether its training came to its end, neither stopped nor pruned; DataError where its summary is damaged."""
    state = read_state(run.run)
    ended = state is not None and state.status == "FINISHED" and run.summary.exists()
    return ended and run.read(run.summary, json.loads)["status"] == "finished"


def write_state(run: Path, state: State) -> None:
    """Notes ``state`` in the run's folder ``run``."""
    atomic_write(run / _STATE, json.dumps(asdict(state), indent=1))


def read_state(run: Path) -> State | None:
    """What ``write_state`` noted in the folder ``run``; None where there is nothing that can be read."""
    try:
        content = json.loads((run / _STATE).read_text("utf-8"))
        return State(**content | {"process": Process(**content["process"])})
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _host() -> str:
    """This machine, or this container: processes are numbered per namespace."""
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}/{namespace.stat().st_ino}" if namespace.exists() else socket.gethostname()
