"""What a run has to report and has not yet delivered: kept on disk, delivered by a thread, never in training's way.

Every report is a line of a file before anything is sent, and goes from there once it has arrived. So a receiver that
is slow, or dead, or a process that is killed, loses nothing, and one path serves all three. Reports are delivered in
order, at least once: the receiver must take one twice without harm.
"""

import json
import logging
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

from seg.atomic import atomic, atomic_write

log = logging.getLogger(__name__)

Report = dict[str, Any]
"""JSON values; a report with ``path`` is about that file, which is kept with it while it cannot be delivered."""

_BATCH = 500  # reports handed over at once
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds between two attempts


class UnreachableError(Exception):
    """The receiver does not answer, or refuses for now."""


class Journal:
    """The file of undelivered reports, ``<run folder>/unsent/reports.jsonl``; absent while there are none."""

    def __init__(self, run: Path) -> None:
        self.folder = run / "unsent"
        self.path = self.folder / "reports.jsonl"
        self._lock = threading.Lock()

    def append(self, report: Report) -> None:
        """Adds a report at the end."""
        with self._lock:
            self.folder.mkdir(exist_ok=True)
            append_line(self.path, json.dumps(report | {"id": uuid.uuid4().hex[:12]}))

    def first(self, count: int | None = None) -> list[Report]:
        """The oldest ``count`` reports, or all."""
        with self._lock:
            return [_parsed(line) for line in self._lines()[:count]]

    def drop(self, count: int) -> None:
        """Forgets the oldest ``count`` reports and their files; the last one takes the folder with it."""
        with self._lock:
            lines = self._lines()
            for line in lines[:count]:
                if "path" in (report := _parsed(line)):
                    self._copy(report).unlink(missing_ok=True)
                elif not report:
                    log.warning("%s held a damaged line, which was left out.", self.path)
            self._write(lines[count:])

    def forget(self, kind: str) -> None:
        """Forgets the reports of one kind, for being true no more."""
        with self._lock:
            self._write([line for line in self._lines() if kind not in _parsed(line)])

    def keep_files(self) -> None:
        """Copies the files that reports are about: the run may change or remove them before they are delivered."""
        for report in self.first():
            if "path" in report and not (copy := self._copy(report)).exists() and Path(report["path"]).exists():
                with atomic(copy) as draft:
                    shutil.copyfile(report["path"], draft)

    def located(self, report: Report) -> Report:
        """``report`` with the path of the copy of its file, where there is one."""
        if "path" in report and (copy := self._copy(report)).exists():
            return report | {"path": str(copy)}
        return report

    def _copy(self, report: Report) -> Path:
        return self.folder / str(report["id"]) / Path(report["path"]).name

    def _write(self, lines: Sequence[str]) -> None:
        if lines:
            atomic_write(self.path, "".join(lines))
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _lines(self) -> list[str]:
        if not self.path.exists():
            return []
        return [line for line in self.path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]


def append_line(path: Path, line: str) -> None:
    """Adds ``line`` to the file ``path``; half a line that a killed process or a full disk left is cut off first."""
    with path.open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        if file.read(1) not in (b"", b"\n"):
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
        file.write(line.encode() + b"\n")


def _parsed(line: str) -> Report:
    try:
        report: Report = json.loads(line)
        return report
    except ValueError:  # what a power failure left of it; an empty report changes nothing
        return {}


def deliver(journal: Journal, send: Callable[[Sequence[Report]], None]) -> int:
    """Delivers all that ``journal`` holds.

    Args:
        journal: of the run.
        send: gives reports to the receiver, in order; raises UnreachableError.

    Returns:
        How many reports went.

    Raises:
        UnreachableError: by ``send``; what it did not get stays in the journal.
    """
    sent = 0
    while reports := journal.first(_BATCH):
        batch = list(takewhile(lambda report: "path" not in report, reports)) or reports[:1]
        send([journal.located(report) for report in batch])
        journal.drop(len(batch))
        sent += len(batch)
    return sent


class Courier:
    """A thread that delivers a journal's reports as they come, and tries again later where it cannot.

    Args:
        journal: of the run.
        send: as for ``deliver``.
        receiver: its name for the log.
    """

    def __init__(self, journal: Journal, send: Callable[[Sequence[Report]], None], receiver: str) -> None:
        self.journal = journal
        self.receiver = receiver
        self.away = False  # the last attempt failed
        self._send = send
        self._progress = 0
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="courier", daemon=True)
        journal.forget("status")  # a run that goes on has not ended, whatever it could not say before
        self._wake.set()
        self._thread.start()

    def put(self, report: Report) -> None:
        """Takes a report: a line on disk, no more; the caller does not wait."""
        self.journal.append(report)
        self._wake.set()

    def close(self, patience: float = 60.0) -> bool:
        """Delivers what is left, as long as something arrives at least every ``patience`` seconds.

        Returns:
            Whether everything has arrived.
        """
        self._closing.set()
        self._wake.set()
        seen = -1
        while self._thread.is_alive() and self._progress > seen:
            seen = self._progress
            self._thread.join(patience)
        return not self.journal.first(1)

    def _work(self) -> None:
        pause = _FIRST_PAUSE
        while not self._closing.is_set():
            self._wake.wait()
            self._wake.clear()
            while not self._attempt() and not self._closing.wait(pause):
                pause = min(2 * pause, _LONGEST_PAUSE)
            pause = _FIRST_PAUSE
        self._attempt()

    def _attempt(self) -> bool:
        try:
            sent = deliver(self.journal, self._counted)
        except (UnreachableError, OSError) as error:  # OSError: the journal's own disk is full
            if not self.away:
                log.warning(
                    "%s does not answer (%s); the run goes on and keeps what it has to report.", self.receiver, error
                )
            self.away = True
            with suppress(OSError):  # a full disk is for the training to report
                self.journal.keep_files()
            return False
        if self.away:
            log.warning("%s is back: sent %d reports that had been kept.", self.receiver, sent)
        self.away = False
        return True

    def _counted(self, reports: Sequence[Report]) -> None:
        self._send(reports)
        self._progress += len(reports)
