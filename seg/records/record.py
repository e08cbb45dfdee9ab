"""The record of a run: written into its own folder, and pushed from there to a sink such as MLflow.

Whatever a run reports is first written to disk as a line. A thread pushes the folder about every ten seconds, so no
database and no server can slow, stop or lose a run; what did not arrive is pushed again later, by ``seg.sync``.
"""

import logging
import os
import re
import shlex
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from seg.errors import ConfigError, InterruptedRunError, without_passwords
from seg.records.folder import RunFolder, claim, find, one_at_a_time
from seg.records.journal import Journal, Report, now_ms, status_report
from seg.records.sink import ADDRESS, EXPERIMENT, PARENT, Sink, UnreachableError, address_given, new_run_id, sink_of
from seg.records.state import Process, State, read_state, write_state

log = logging.getLogger(__name__)

_PUSH_SECONDS = (10.0, 300.0)  # between two pushes; at most, while the sink is away
_SAMPLE_SECONDS = 5.0
_LATER = "%s Send it later with: %s"


class Record:
    """The record of one run. Every call writes a line and returns; only ``finish`` waits for the sink.

    Args:
        folders: of the run.
        state: of the run as it begins.
        sink: where the folder is pushed to; None: nowhere.
        place: where the record is kept, and what decided so.
        look: where the record is to be seen: commands, addresses, folders by what they show.
    """

    def __init__(self, folders: RunFolder, state: State, sink: Sink | None, place: str, look: dict[str, str]) -> None:
        self.run_id, self.folders, self.name = folders.run_id, folders, state.name
        self.place, self.look = place, look
        self._state, self._sink, self._journal = state, sink, Journal(folders.run)
        self._lock = threading.Lock()  # the sampler writes, too
        before = self._journal.read()  # of a resumed run
        self._known = {key for report in before for key in report.get("params", ())}
        self._reached = {key: report["step"] for report in before for key in report.get("metrics", ())}
        self._since = next((report["time"] for report in before if "time" in report), now_ms())
        self._unwritten: list[Report] = []
        self._arrived = False  # all of it, at the last push
        self._ending, self._closing = threading.Event(), threading.Event()  # of the sampler; of the last push
        self._sampler = self._pusher = threading.Thread()
        self._put(status_report("RUNNING"))
        if sink:
            folders.pending.touch()
            self._pusher = _started(self._push_often, sink)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Settings; they cannot be changed, so those that a resumed run has already are left as they are."""
        given = {_key(name): str(value) for name, value in params.items()}
        self._put({"params": {key: value for key, value in given.items() if key not in self._known}})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Labels to search by."""
        self._put({"tags": {_key(name): str(value) for name, value in tags.items()}})

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Numbers at one step; NaN and infinity are allowed."""
        values = {_key(name): float(value) for name, value in metrics.items()}
        self._put({"metrics": values, "step": step, "time": now_ms()})

    def reached(self, metric: str) -> int:
        """The last step at which a resumed run reported ``metric`` before; 0 where it never did."""
        return int(self._reached.get(metric, 0))

    def log_artifact(self, path: Path, folder: str) -> None:
        """The file ``path`` under ``folder`` of the run's artifacts; "" is their root."""
        with self._lock:
            self._journal.append_file(path, folder)

    def log_dataset(self, name: str, digest: str, source: str) -> None:
        """The data the run is trained on; ``digest`` is shortened because MLflow shows it beside the name."""
        self._put({"dataset": {"name": name, "digest": digest[:8], "source": without_passwords(source)}})

    def sample(self, readings: Iterator[dict[str, float]]) -> None:
        """Takes a reading every few seconds until the run ends, and reports it."""
        self._sampler = _started(self._sample, readings)

    def finish(self, status: str, error: str = "") -> None:
        """Closes the record as FINISHED, FAILED or KILLED; why, ``error``, becomes a tag.

        Waits for the last push, and says how to repeat it where not all arrived. Raises no OSError: a full disk may be
        what ended the run.
        """
        self._ending.set()
        _join(self._sampler)
        last = status_report(status, error)
        try:
            self._put(last)
        except OSError:
            self._unwritten = [last]
        with suppress(OSError):
            write_state(self.folders.run, replace(self._state, status=status))
        self._closing.set()
        _join(self._pusher)
        if self._arrived:
            self.folders.arrived()
        elif self._sink:
            log.warning(_LATER, f"Not everything reached {self._sink.name}; the rest is kept.", _sync(self.folders))

    @contextmanager
    def closing(self, logged: Path) -> Iterator[None]:
        """Gives the record its last state: FINISHED, KILLED if the user or the cluster stopped it, otherwise FAILED.

        The file ``logged`` goes with it.
        """
        state, reason = "FAILED", ""
        try:
            yield
            state = "FINISHED"
        except (InterruptedRunError, KeyboardInterrupt, SystemExit):
            state = "KILLED"
            raise
        except BaseException as error:
            reason = without_passwords(str(error))
            raise
        finally:
            with suppress(OSError):  # a full disk must not keep the state from being recorded
                self.log_artifact(logged, "")
            self.finish(state, reason)

    def _put(self, report: Report) -> None:
        with self._lock:
            self._journal.append(report)

    def _push_often(self, sink: Sink) -> None:
        """Pushes until the run ends, and then once more; at growing intervals while the sink does not answer."""
        (usual, longest), pause, away, last = _PUSH_SECONDS, 0.0, False, False
        while not last:
            last = self._closing.wait(pause)
            try:
                sink.push(self.folders, self._unwritten)
            except (UnreachableError, OSError) as error:  # OSError: of the run's own disk
                if not away:
                    log.warning("%s does not answer (%s); the run continues and keeps its reports.", sink.name, error)
                away, pause = True, min(longest, max(usual, 2 * pause))
            else:
                if away:
                    log.warning("%s is back and has everything that was kept.", sink.name)
                away, pause = False, usual
        self._arrived = not away

    def _sample(self, readings: Iterator[dict[str, float]]) -> None:
        try:
            next(readings)  # from which the next one counts
            while not self._ending.wait(_SAMPLE_SECONDS):
                self.log_metrics(next(readings), step=(now_ms() - self._since) // 1000)
        except Exception as error:  # whatever it is, it may not reach the training
            log.info("system metrics are no longer recorded: %s", error)


def open_record(
    kind: str,
    *,
    outputs: Path,
    uri: str | None,
    experiment: str,
    run_name: str,
    run_id: str | None = None,
    parent_run_id: str | None = None,
    system_metrics: bool = False,
    predictions: bool = True,
) -> Record:
    """Begins a record, or continues that of the run ``run_id``; the run's folders are its own from here on.

    Args:
        kind: of the sink, see ``sink_of``.
        outputs: holds the run folders, and ``mlflow.db`` where nothing names another place.
        uri: of the sink; None: see ``_place``.
        experiment: under which a new run is filed.
        run_name: of a new run, for people.
        run_id: of the run to resume.
        parent_run_id: of the run this one is a part of.
        system_metrics: whether to sample the machine's load.
        predictions: whether the run will make any; without them it has no folder for them.

    Raises:
        ConfigError: the sink does not answer; the run to resume is unknown, deleted or still going.
    """
    process = Process.this()
    known = claim(outputs, find(outputs, run_id).run_id, predictions=predictions) if run_id else None
    begun = read_state(known.run) if known else _state_of(outputs, parent_run_id)
    if known and begun:
        run_name, experiment = begun.name, begun.experiment
    uri, why = _place(uri, begun, "where it began" if known else "where its parent is")
    sink = sink_of(kind, uri, outputs, create=not run_id)
    state = State(kind, without_passwords(uri) if sink and uri else None, experiment, run_name, "RUNNING", process)
    with one_at_a_time(outputs):
        last = read_state(known.run) if known else None
        if last and last.process != process and last.true_status == "RUNNING" and last.process.host == process.host:
            raise ConfigError(f"Run {run_id} is still running as process {last.process.pid}. Stop it first.")
        folders, look = _opened(sink, state, known.run_id if known else None, parent_run_id, outputs, predictions)
    place = f"{sink.name} ({why})" if sink else f"{folders.run} (tracking=none)"
    record = Record(folders, state, sink, place, look or {"record": str(folders.run)})
    if parent_run_id and not sink:
        record.set_tags({PARENT: parent_run_id})
    readings = sink.readings(folders.run_id) if sink and system_metrics else None
    if readings:
        record.sample(readings)
    return record


def _opened(
    sink: Sink | None, state: State, run_id: str | None, parent: str | None, outputs: Path, predictions: bool
) -> tuple[RunFolder, dict[str, str]]:
    """The run's folders, its own from now on, and where to look at it; a run that gets none has failed."""
    own, look = sink.open_run(state, run_id, parent) if sink else (run_id or new_run_id(), {})
    folders = None
    try:
        folders = claim(outputs, own, predictions=predictions)
        write_state(folders.run, state)
    except BaseException as error:  # a full disk, or a folder without write permission
        if sink:
            with suppress(UnreachableError):
                nowhere = folders or RunFolder.of(outputs, own, own)
                sink.push(nowhere, [status_report("FAILED", str(error))])
        raise
    return folders, look


def _place(uri: str | None, begun: State | None, where: str) -> tuple[str | None, str]:
    """The address that holds a run, None for the sink's own place, and what decides so.

    The configuration's ``uri``; else that of the run itself or of its parent, ``begun``, named by ``where``; else that
    of MLflow's own variable.
    """
    if uri:
        return uri, "tracking.uri"
    if begun:
        return begun.uri, where
    given = address_given()
    return given, ADDRESS if given else "by default"


def experiment_name(given: str | None, usual: str) -> str:
    """The experiment of a new run: the configuration's, otherwise that of MLflow's variable, otherwise the default."""
    return given or os.environ.get(EXPERIMENT) or usual


def _state_of(outputs: Path, run_id: str | None) -> State | None:
    """What the folder of the run says; None where it is not here."""
    with suppress(ConfigError):
        return read_state(find(outputs, run_id).run) if run_id else None
    return None


def add_to_record(
    run: Path,
    *,
    status: str | None = None,
    error: str = "",
    tags: Mapping[str, str] | None = None,
    artifacts: Sequence[Path] = (),
    uri: str | None = None,
) -> None:
    """Adds to the record of a run whose process has ended, maybe without a word: it was killed, or ran out of memory.

    In its own folder and in its sink. What does not arrive there now, seg.sync sends later.

    Args:
        run: the run's folder.
        status: FAILED or FINISHED, if that is not known there yet; the run's log goes with it.
        error: why; becomes a tag.
        tags: to be set.
        artifacts: files that take the place of those of the same name.
        uri: of the sink; None: where the folder says.
    """
    state, journal = read_state(run), Journal(run)
    if state is None:  # it died before it could say anything, and the next run that begins will mark it dead
        return
    folders = RunFolder.at(run)
    if tags:
        journal.append({"tags": dict(tags)})
    for path in artifacts:
        journal.append_file(path, "")
    if status:
        if folders.log.exists():
            journal.append_file(folders.log, "")
        journal.append(status_report(status, error))
        write_state(run, replace(state, status=status))
    if state.kind != "none":
        folders.pending.touch()
        try:
            push_again(folders, uri)
        except ConfigError as reason:
            log.warning(_LATER, reason, _sync(folders))


def push_again(run: RunFolder, uri: str | None = None) -> str:
    """Pushes all of a run that has ended, with its true last state: it may have had no time to say it.

    Args:
        run: whose state is known.
        uri: of the sink; None: where the folder says.

    Returns:
        The name of the sink.

    Raises:
        ConfigError: the sink does not answer.
    """
    outputs, state = run.run.parent.parent, read_state(run.run)
    assert state is not None
    sink = sink_of(state.kind, uri or state.uri, outputs)
    assert sink is not None
    if state.status == "RUNNING":
        status = "FINISHED" if run.summary.exists() else "KILLED"
        Journal(run.run).append(status_report(status, "" if status == "FINISHED" else "its process has gone"))
        write_state(run.run, replace(state, status=status))
    try:
        with one_at_a_time(outputs):  # not while another run that begins takes this one for killed
            sink.push(run)
    except UnreachableError as error:
        raise ConfigError(f"{sink.name} did not accept all of run {run.short}: {error}.") from None
    run.arrived()
    return sink.name


def _started(work: Callable[[Any], None], argument: Any) -> threading.Thread:
    thread = threading.Thread(target=work, args=(argument,), name="record", daemon=True)
    thread.start()
    return thread


def _join(thread: threading.Thread) -> None:
    if thread.is_alive():
        thread.join()


def _sync(run: RunFolder) -> str:
    """The command that pushes what is left."""
    return f"python -m seg.sync run={run.short} {shlex.quote(f'paths.outputs={run.run.parent.parent}')}"


def _key(name: str) -> str:
    """``name`` with the characters that MLflow does not take in a key replaced."""
    return re.sub(r"[^\w\-./: ]", "_", name)
