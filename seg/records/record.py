"""The record of a run: written into its own folder, and pushed from there to a sink such as MLflow.

Whatever a run reports is first written to disk as a line. A thread pushes the folder about every ten seconds, so no
database and no server can slow, stop or lose a run; what did not arrive is pushed again later, by ``seg.sync``.
"""

import logging
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from seg.errors import InterruptedRunError, without_passwords
from seg.records.folder import RunFolder
from seg.records.journal import FILED, Journal, Report, now_ms, status_report
from seg.records.pending import warn_of_rest
from seg.records.sink import Pusher, Sampler, Sink
from seg.records.state import State, write_state

log = logging.getLogger(__name__)


class Record:
    """The record of one run. Every call writes a line and returns; only ``finish`` waits for the sink.

    Args:
        folders: of the run.
        state: of the run as it begins.
        sink: where the folder is pushed to.
        place: where the record is kept, and what decided so.
        look: where the record is to be seen: commands, addresses, folders by what they show.
    """

    def __init__(self, folders: RunFolder, state: State, sink: Sink, place: str, look: dict[str, str]) -> None:
        self.run_id, self.folders, self.name = folders.run_id, folders, state.name
        self.place, self.look = place, look
        self._state, self._sink, self._journal = state, sink, Journal(folders.run)
        self._lock = threading.Lock()  # the sampler writes, too
        before = self._journal.read()  # of a resumed run
        self._known = {key for report in before for key in report.get("params", ())}
        self._reached = {key: int(report["step"]) for report in before for key in report.get("metrics", ())}
        self._since = next((report["time"] for report in before if "time" in report), now_ms())
        self._sampler: Sampler | None = None
        self._put(status_report("RUNNING"))
        if state.pushed:
            folders.pending.touch()
        self._pusher = Pusher(sink, folders) if state.pushed else None

    def log_params(self, params: Mapping[str, object]) -> None:
        """Settings; they cannot be changed, so those that a resumed run has already are left as they are."""
        given = {_key(name): str(value) for name, value in params.items()}
        self._put({"params": {key: value for key, value in given.items() if key not in self._known}})

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Labels to search by."""
        self._put({"tags": {_key(name): str(value) for name, value in tags.items()}})

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Numbers at one step; NaN and infinity are allowed. Costs are filed as ``system/…``."""
        self._put({"metrics": {_key(k): float(v) for k, v in metrics.items()}, "step": step, "time": now_ms()})

    def reached(self, metric: str) -> int:
        """The last step at which a resumed run reported ``metric`` before; 0 where it never did."""
        return self._reached.get(_key(metric), 0)

    def log_artifact(self, path: Path, folder: str) -> None:
        """The file ``path`` under ``folder`` of the run's artifacts; "" is their root."""
        with self._lock:
            self._journal.append_file(path, folder)

    def log_dataset(self, name: str, digest: str, source: str) -> None:
        """The data the run is trained on; ``digest`` is shortened because MLflow shows it beside the name."""
        self._put({"dataset": {"name": name, "digest": digest[:8], "source": without_passwords(source)}})

    def sample(self, readings: Iterator[dict[str, float]]) -> None:
        """Takes a reading every few seconds until the run ends; its step is seconds since the start."""
        self._sampler = Sampler(readings, lambda found: self.log_metrics(found, (now_ms() - self._since) // 1000))

    def finish(self, status: str, error: str = "") -> None:
        """Closes the record as FINISHED, FAILED or KILLED; why, ``error``, becomes a tag.

        First in the folder. Then waits for the last push, and says how to repeat it where not all arrived. Raises no
        OSError: a full disk may be what ended the run.
        """
        if self._sampler:
            self._sampler.finish()
        last, unwritten = status_report(status, error), list[Report]()
        try:
            self._put(last)
        except OSError:
            unwritten.append(last)
        with suppress(OSError):
            write_state(self.folders.run, replace(self._state, status=status))
        if self._pusher:
            self._await(self._pusher, unwritten)

    def _await(self, pusher: Pusher, unwritten: list[Report]) -> None:
        arrived = False
        try:
            arrived = pusher.finish(unwritten)
        finally:  # Ctrl-C: the user does not want to wait
            if arrived:
                self.folders.arrived()
            else:
                warn_of_rest(self.folders, f"Not everything reached {self._sink.name}; the rest is kept.")

    @contextmanager
    def closing(self, logged: Path) -> Iterator[None]:
        """Gives the record its last state: FINISHED, KILLED if the user or the cluster stopped it, otherwise FAILED.

        The file ``logged`` goes with it.
        """
        status, reason = "FAILED", ""
        try:
            yield
            status = "FINISHED"
        except (InterruptedRunError, KeyboardInterrupt, SystemExit) as error:
            status, reason = "KILLED", str(error) if isinstance(error, InterruptedRunError) else "stopped by the user"
            raise
        except BaseException as error:
            reason = without_passwords(str(error)) or type(error).__name__
            raise
        finally:
            with suppress(OSError):  # a full disk must not keep the state from being recorded
                self.log_artifact(logged, "")
            self.finish(status, reason)

    def _put(self, report: Report) -> None:
        with self._lock:
            self._journal.append(report)


def _key(name: str) -> str:
    """``name`` as it is filed, with the characters that MLflow does not take in a key replaced."""
    return re.sub(r"[^\w\-./: ]", "_", FILED.get(name, name))
