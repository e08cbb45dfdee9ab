"""Jobs of one worker thread: a queue with a limit, progress, cancelling, and results that are kept for a while."""

import logging
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from seg.errors import SegError

log = logging.getLogger(__name__)
Status = Literal["receiving", "waiting", "running", "finished", "failed", "cancelled", "removed"]
_ENDED = ("finished", "failed", "cancelled")
_TIDY_SECONDS = 30.0  # between two looks for what is kept too long, while there is nothing to do
_STOP_SECONDS = 120.0  # until the running job must have noticed that it is to stop


class FullError(Exception):
    """No further job can wait, or none is taken any more."""


class CancelledError(Exception):
    """The job is not wanted any more."""


@dataclass(eq=False)
class Job:
    """One scan that somebody sent. Its id says nothing of it, and is known to its sender alone."""

    folder: Path  # its files, of this job alone
    view: bool = False  # whether its sender wants to look at it in the page
    images: tuple[Path, ...] = ()
    status: Status = "receiving"
    progress: float = 0.0  # share of the network's forward passes
    error: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    unwanted: bool = False
    ended: float = 0.0  # time.monotonic()

    @property
    def id(self) -> str:
        """32 hexadecimal digits."""
        return self.folder.name

    def note(self, share: float) -> None:
        """How far it is, 0 to 1.

        Raises:
            CancelledError: it was cancelled meanwhile.
        """
        if self.unwanted:
            raise CancelledError
        self.progress = share


class Jobs:
    """Runs jobs in the order in which they arrived whole, one at a time, and outlives each of them.

    A scan is removed as soon as its job has ended; the result is kept until ``keep`` later ones ended, or for
    ``keep_seconds``.
    """

    def __init__(
        self, work: Callable[[Job], dict[str, Any]], folder: Path, *, queue: int, keep: int, keep_seconds: float
    ) -> None:
        """``work`` gives the result of a job; what it raises is the reason of a failure. ``folder`` is private."""
        self._work, self._folder = work, folder
        self._queue, self._keep, self._keep_seconds = queue, keep, keep_seconds
        self._jobs: dict[str, Job] = {}  # in the order of their arrival
        self._changed = threading.Condition()
        self._stopping = False
        self._seconds = 5.0  # that the latest job took
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether jobs are taken and done."""
        return self._thread.is_alive() and not self._stopping

    @property
    def retry_seconds(self) -> int:
        """When there may be room in a full queue."""
        return max(1, min(600, round(self._seconds)))

    def open(self, *, view: bool = False) -> Job:
        """A place in the queue, and a folder for the files that are about to come.

        Raises:
            FullError: there is no place, or it is not ``ready``.
        """
        with self._changed:
            self._forget_old()
            taken = sum(job.status in ("receiving", "waiting") for job in self._jobs.values())
            if taken >= self._queue or not self.ready:
                raise FullError
            job = Job(self._folder / secrets.token_hex(16), view)
            job.folder.mkdir(0o700)
            self._jobs[job.id] = job
        return job

    def submit(self, job: Job) -> None:
        """All its files are there: it may begin."""
        with self._changed:
            self._jobs[job.id] = self._jobs.pop(job.id)  # behind those whose files were there earlier
            job.status = "waiting"
            self._changed.notify_all()
        log.info("job %s waits", job.id)

    def get(self, name: str) -> Job | None:
        """The job of this id, unless it was never there, or is kept no more."""
        with self._changed:
            self._forget_old()
            job = self._jobs.get(name)
        return None if job is None or job.status == "receiving" else job

    def ahead(self, job: Job) -> int:
        """How many jobs come before it."""
        with self._changed:
            if job.status != "waiting":
                return 0
            due = [one for one in self._jobs.values() if one.status in ("waiting", "running")]
            return due.index(job)

    def remove(self, job: Job) -> None:
        """Cancels what waits or runs, as soon as that is possible; forgets what has ended, or never arrived whole."""
        with self._changed:
            if job.status == "running":
                job.unwanted = True
            elif job.status == "waiting":
                self._close(job, "cancelled")
            else:
                self._forget(job)

    def stop(self) -> None:
        """Ends the thread: what runs or waits is cancelled; and removes every file."""
        with self._changed:
            self._stopping = True
            for job in [job for job in self._jobs.values() if job.status not in _ENDED]:
                job.unwanted = True
            self._changed.notify_all()
        self._thread.join(_STOP_SECONDS)
        with self._changed:
            for job in [*self._jobs.values()]:
                if job.status not in _ENDED:
                    self._close(job, "cancelled")
                self._forget(job)

    def _run(self) -> None:
        while job := self._next():
            begin = time.monotonic()
            status: Status = "failed"
            try:
                job.note(0.0)
                job.result = self._work(job)
                status = "cancelled" if job.unwanted else "finished"
            except CancelledError:
                status = "cancelled"
            except (SegError, MemoryError) as error:
                job.error = str(error) or "There is not enough memory for this scan."
            except Exception as error:  # nothing that a scan holds may end the service
                log.exception("job %s: unexpected error", job.id)
                job.error = f"Unexpected error ({type(error).__name__}). The details are in the log of the service."
            with self._changed:
                self._seconds = time.monotonic() - begin
                self._close(job, status)

    def _next(self) -> Job | None:
        """The first job that waits, once there is one; None to stop."""
        with self._changed:
            while not self._stopping:
                self._forget_old()
                for job in self._jobs.values():
                    if job.status == "waiting":
                        job.status = "running"
                        return job
                self._changed.wait(_TIDY_SECONDS)
        return None

    def _close(self, job: Job, status: Status) -> None:
        for path in job.images if status == "finished" else [job.folder]:
            _removed(path)
        job.progress = 1.0 if status == "finished" else job.progress
        job.status, job.ended = status, time.monotonic()
        log.info("job %s %s%s", job.id, status, f": {job.error}" if job.error else "")

    def _forget_old(self) -> None:
        ended = sorted((job for job in self._jobs.values() if job.status in _ENDED), key=lambda job: job.ended)
        since = time.monotonic() - self._keep_seconds
        many = len(ended) - self._keep
        for job in [job for place, job in enumerate(ended) if place < many or job.ended < since]:
            self._forget(job)

    def _forget(self, job: Job) -> None:
        _removed(job.folder)
        self._jobs.pop(job.id, None)
        job.status = "removed"


def _removed(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
