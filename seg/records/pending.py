"""What a run reports: a line on disk at once, delivered by a thread later, never in training's way.

A report is in the run's folder before anything is sent, and counts as unsent until it has arrived. So a receiver that
is slow, or dead, or a process that is killed, loses nothing, and one path serves all three. Reports are delivered in
order, at least once: the receiver must take one twice without harm.
"""

import json
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from seg.files import atomic_write

log = logging.getLogger(__name__)

Report = dict[str, Any]
"""JSON values: ``params``, ``tags``, ``metrics`` with ``step`` and ``time``, ``path`` with ``folder``, ``dataset``, or
``status`` with ``error`` and ``time``."""

Send = Callable[[Sequence[Report]], None]
"""Gives reports to the receiver, in order; raises UnreachableError."""

_LONGEST_ERROR = 500  # characters
_BATCH = 500  # reports handed over at once
_PAUSE = 10.0  # seconds between two attempts


class UnreachableError(Exception):
    """The receiver does not answer, or refuses for now."""


def status_report(status: str, error: str = "") -> Report:
    """How a run goes from now on; the last one counts. ``error`` says why, in one line."""
    return {"status": status, "error": " ".join(error.split())[:_LONGEST_ERROR], "time": now_ms()}


def now_ms() -> int:
    """Milliseconds since the epoch, as MLflow counts."""
    return int(time.time() * 1000)


class Journal:
    """Every report of a run, a line each in ``record.jsonl``; ``record.sent`` tells how many bytes were delivered."""

    def __init__(self, run: Path) -> None:
        self.path = run / "record.jsonl"
        self._mark = run / "record.sent"
        self._files = run / "unsent"
        self._lock = threading.RLock()

    @property
    def sent(self) -> int:
        """Bytes of the file that were delivered."""
        return int(self._mark.read_text()) if self._mark.exists() else 0

    def append(self, report: Report) -> None:
        """Adds a report at the end."""
        with self._lock:
            append_line(self.path, json.dumps(report))

    def append_to_send(self, report: Report) -> None:
        """Adds a report; keeps the file it is about, which the run may replace or remove before it is delivered."""
        with self._lock:
            if "path" in report and Path(report["path"]).exists():
                file, kept = Path(report["path"]), self._files / uuid.uuid4().hex[:12]
                kept.mkdir(parents=True)
                try:
                    os.link(file, kept / file.name)
                except OSError:  # a file system without links
                    shutil.copyfile(file, kept / file.name)
                report = report | {"path": f"{self._files.name}/{kept.name}/{file.name}"}  # the run's folder may move
            self.append(report)

    def read(self) -> list[Report]:
        """Every report, delivered or not."""
        return [_parsed(line) for line in self._lines(0)]

    def first(self, count: int | None = None) -> list[Report]:
        """The oldest ``count`` unsent reports, or all of them."""
        return [_parsed(line) for line in self._lines(self.sent, count)]

    def drop(self, count: int) -> None:
        """Notes that the oldest ``count`` unsent reports were delivered."""
        lines = self._lines(self.sent, count)
        for line in lines:
            if not _parsed(line):
                log.warning("%s holds a damaged line, which was left out.", self.path)
        atomic_write(self._mark, str(self.sent + sum(map(len, lines))))

    def deliver(self, send: Send) -> int:
        """Delivers all unsent reports and returns how many.

        Raises:
            UnreachableError: by ``send``; what it did not get stays unsent.
        """
        sent = 0
        while reports := self.first(_BATCH):
            batch = list(takewhile(lambda report: "path" not in report, reports)) or reports[:1]
            if "path" in batch[0]:
                batch[0]["path"] = str(self.path.parent / batch[0]["path"])
            send(batch)
            self.drop(len(batch))
            sent += len(batch)
        with self._lock:
            if not self.first(1):
                shutil.rmtree(self._files, ignore_errors=True)
        return sent

    def _lines(self, start: int, count: int | None = None) -> list[bytes]:
        """Lines from the byte ``start`` on; half a last one is being written, or was when its process died."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(start)
            return list(takewhile(lambda line: line.endswith(b"\n"), islice(file, count)))


def append_line(path: Path, line: str) -> None:
    """Adds ``line`` to the file ``path``; half a line that a killed process or a full disk left is cut off first."""
    with path.open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        if file.read(1) not in (b"", b"\n"):
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
        file.write(line.encode() + b"\n")


def _parsed(line: bytes) -> Report:
    try:
        report: Report = json.loads(line)
        return report
    except ValueError:  # what a power failure left of it; an empty report changes nothing
        return {}


class Courier:
    """A thread that delivers a journal's reports as they come, and tries again later where it cannot.

    What an earlier part of a resumed run left unsent goes first. ``receiver`` is its name for the log.
    """

    def __init__(self, journal: Journal, send: Send, receiver: str) -> None:
        self.journal, self.send, self.receiver = journal, send, receiver
        self.away = False  # the last attempt failed
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="courier", daemon=True)
        self._thread.start()

    def put(self, report: Report) -> None:
        """Takes a report: a line on disk, no more; the caller does not wait."""
        self.journal.append_to_send(report)
        self._wake.set()

    def close(self, unwritten: Sequence[Report] = (), patience: float = 60.0) -> bool:
        """Delivers what is left, as long as something arrives every ``patience`` seconds; whether everything has.

        ``unwritten`` reports, for which the disk had no room, go straight there.
        """
        self._closing.set()
        self._wake.set()
        seen = -1
        while self._thread.is_alive() and (sent := self.journal.sent) > seen:
            seen = sent
            self._thread.join(patience)
        with suppress(UnreachableError):
            if unwritten:
                self.send(unwritten)
        return not self.journal.first(1)

    def _work(self) -> None:
        while True:
            last = self._closing.is_set()
            try:
                sent = self.journal.deliver(self.send)
            except (UnreachableError, OSError) as error:  # OSError: the journal's own disk is full
                if not self.away:
                    told = "%s does not answer (%s); the run goes on and keeps what it has to report."
                    log.warning(told, self.receiver, error)
                self.away = True
            else:
                if self.away:
                    log.warning("%s is back: sent %d reports that had been kept.", self.receiver, sent)
                self.away = False
            if last:
                return
            if self.away:
                self._closing.wait(_PAUSE)
            else:
                self._wake.wait()
            self._wake.clear()
