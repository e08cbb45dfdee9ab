"""Where the record of a run is pushed to. Another tracker is one subclass of Sink, named by ``tracking.kind``."""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from seg.config.build import named
from seg.errors import ConfigError
from seg.records.folder import RunFolder
from seg.records.journal import Report
from seg.records.state import State

log = logging.getLogger(__name__)
PARENT = "mlflow.parentRunId"  # a tag of MLflow's own
_PUSH_SECONDS = (10.0, 300.0)  # between two pushes; at most, while the sink is away
_SAMPLE_SECONDS = 5.0
_PATIENCE = 3.0  # seconds after which it is said what the end of a run waits for


class UnreachableError(Exception):
    """A sink does not answer, or refuses for now."""


class Sink:
    """Takes the record of runs to where their user looks at it; this one, of ``tracking=none``, takes nothing.

    Args:
        uri: as ``tracking.uri``; None: the sink's own place.
        outputs: holds the run folders.
        create: whether a place that is not there yet may be made.

    Raises:
        ConfigError: it cannot be reached.
    """

    name = "a sink"

    def __init__(self, uri: str | None, outputs: Path, *, create: bool = False) -> None:
        """Keeps nothing."""

    def open_run(self, state: State, run_id: str | None) -> tuple[str, dict[str, str]]:
        """Before a run has its folders: its id, and where to look at it. A sink that gives no ids takes a new one."""
        return run_id or os.urandom(16).hex(), {}

    def push(self, run: RunFolder, unwritten: Sequence[Report] = ()) -> None:
        """Takes what is new in the journal of ``run``; a second time it changes nothing.

        Args:
            run: whose journal is read.
            unwritten: reports for which the disk had no room.

        Raises:
            UnreachableError: not all arrived.
        """

    def readings(self, run_id: str) -> Iterator[dict[str, float]] | None:
        """The load of the machine, again and again; None where the sink does not show it."""
        return None


def sink_class(kind: str) -> type[Sink]:
    """What ``tracking.kind`` names: mlflow, none, or the path of a class.

    Raises:
        ConfigError: there is no such class, or it may not be used, or it is not a sink.
    """
    if kind == "none":
        return Sink
    if kind == "mlflow":
        from seg.records.mlflow import Mlflow

        return Mlflow
    found = named(kind, "tracking.kind")
    if not (isinstance(found, type) and issubclass(found, Sink)):
        raise ConfigError(f"tracking.kind is {kind!r}, which is not a subclass of {Sink.__module__}.Sink.")
    return found


class Pusher:
    """A thread that pushes a run: every ten seconds, at growing intervals while the sink is away, and at the end."""

    def __init__(self, sink: Sink, run: RunFolder) -> None:
        self._sink, self._run = sink, run
        self._unwritten: Sequence[Report] = ()
        self._arrived = False  # all of it, at the last push
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="push", daemon=True)
        self._thread.start()

    def finish(self, unwritten: Sequence[Report]) -> bool:
        """Pushes a last time, with what the disk had no room for; whether all arrived."""
        self._unwritten = unwritten
        self._closing.set()
        self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            log.info("  waiting for %s; Ctrl-C leaves the rest to seg.sync", self._sink.name)
            self._thread.join()
        return self._arrived

    def _work(self) -> None:
        (usual, longest), pause, away, last = _PUSH_SECONDS, 0.0, False, False
        while not last:
            last = self._closing.wait(pause)
            try:
                self._sink.push(self._run, self._unwritten)
            except Exception as error:  # of MLflow, of the run's own disk, of somebody's own sink
                if not away:
                    message = "%s does not answer (%s); the run continues and keeps its reports."
                    log.warning(message, self._sink.name, error)
                away, pause = True, min(longest, max(usual, 2 * pause))
            else:
                if away:
                    log.warning("%s is back and has everything that was kept.", self._sink.name)
                away, pause = False, usual
        self._arrived = not away


class Sampler:
    """A thread that takes a reading every few seconds."""

    def __init__(self, readings: Iterator[dict[str, float]], note: Callable[[dict[str, float]], None]) -> None:
        self._readings, self._note = readings, note
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="sample", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Takes no further reading."""
        self._ending.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            next(self._readings)  # from which the next one counts
            while not self._ending.wait(_SAMPLE_SECONDS):
                self._note(next(self._readings))
        except Exception as error:  # whatever it is, it may not reach the training
            log.info("system metrics are no longer recorded: %s", error)
