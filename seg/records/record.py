"""The record of a run, in MLflow or, with ``tracking=none``, in the run's own folder.

Whatever a run tells its Tracker is a line on disk first; seg.records.pending takes it from there to
seg.records.mlflow. So no database and no server can slow, stop or lose a run.
"""

import logging
import os
import re
import shlex
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from seg.errors import ConfigError, without_passwords
from seg.records.folder import Process, RunFolders, State, claim, find, one_at_a_time, read_state, write_state
from seg.records.mlflow import ADDRESS, EXPERIMENT, PARENT, Mlflow, address_given
from seg.records.pending import Courier, Journal, UnreachableError, now_ms, status_report

log = logging.getLogger(__name__)

_SAMPLE_SECONDS = 5.0


class Tracker:
    """The record of one run. Every call writes a line and returns; only ``finish`` may wait for the receiver.

    Args:
        folders: of the run.
        state: of the run as it begins.
        courier: of the run's journal; None: reports stay in the run's folder, where its files lie already.
        place: where the record is kept, and what decided so.
        look: where the record is to be seen: commands, addresses, folders by what they show.
    """

    def __init__(
        self, folders: RunFolders, state: State, courier: Courier | None, place: str, look: dict[str, str]
    ) -> None:
        self.run_id, self.folders, self.name = folders.run_id, folders, state.name
        self.place, self.look = place, look
        self._state, self._courier = state, courier
        journal = courier.journal if courier else Journal(folders.run)
        self._put = courier.put if courier else journal.append
        before = journal.read()  # of a resumed run
        self._known = {key for report in before for key in report.get("params", ())}
        self._reached = {key: report["step"] for report in before for key in report.get("metrics", ())}
        self._since = next((report["time"] for report in before if "time" in report), now_ms())
        self._ending, self._sampler = threading.Event(), threading.Thread()
        self._put(status_report("RUNNING"))

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
        self._put({"path": str(path.absolute()), "folder": folder})

    def log_dataset(self, name: str, digest: str, source: str) -> None:
        """The data the run is trained on; ``digest`` is shortened, for MLflow shows it beside the name."""
        self._put({"dataset": {"name": name, "digest": digest[:8], "source": without_passwords(source)}})

    def sample(self, readings: Iterator[dict[str, float]]) -> None:
        """Takes a reading every few seconds until the run ends, and reports it."""
        self._sampler = threading.Thread(target=self._sample, args=(readings,), daemon=True)
        self._sampler.start()

    def finish(self, status: str, error: str = "") -> None:
        """Closes the record as FINISHED, FAILED or KILLED; why, ``error``, becomes a tag.

        Waits while reports still get through, and says how to send what is left. Raises no OSError: a full disk may be
        what ended the run.
        """
        self._ending.set()
        if self._sampler.is_alive():
            self._sampler.join()
        unwritten = [status_report(status, error)]
        with suppress(OSError):
            self._put(unwritten[0])
            unwritten = []
        with suppress(OSError):
            write_state(self.folders.run, replace(self._state, status=status))
        if self._courier and not self._courier.close(unwritten):
            where = shlex.quote(f"paths.outputs={self.folders.run.parent.parent}")
            command = f"python -m seg.sync run={self.folders.short} {where}"
            log.warning("Not all reached %s; the rest is kept. Send it later with: %s", self._courier.receiver, command)

    def _sample(self, readings: Iterator[dict[str, float]]) -> None:
        try:
            next(readings)  # from which the next one counts
            while not self._ending.wait(_SAMPLE_SECONDS):
                self.log_metrics(next(readings), step=(now_ms() - self._since) // 1000)
        except Exception as error:  # whatever it is, it may not reach the training
            log.info("no more system metrics: %s", error)


def open_tracker(
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
) -> Tracker:
    """Begins a record, or goes on with that of the run ``run_id``; the run's folders are its own from here on.

    Args:
        kind: ``mlflow`` or ``none``.
        outputs: holds the run folders, and ``mlflow.db`` where nothing names another place.
        uri: of an MLflow server or database; None: see ``_place``.
        experiment: under which a new run is filed.
        run_name: of a new run, for people.
        run_id: of the run to resume.
        parent_run_id: of the run this one is a part of.
        system_metrics: whether to sample the machine's load.
        predictions: whether the run will make any; without them it has no folder for them.

    Raises:
        ConfigError: MLflow does not answer; the run to resume is unknown, deleted or still going.
    """
    process = Process.this()
    known = claim(outputs, find(outputs, run_id).run_id, predictions=predictions) if run_id else None
    begun = _state_of(outputs, run_id or parent_run_id)
    if known and begun:
        run_name, experiment = begun.name, begun.experiment
    uri, why = _place(uri, begun, "where it began" if known else "where its parent is")
    mlflow = Mlflow(uri, outputs, create=not run_id) if kind == "mlflow" else None
    noted = without_passwords(uri) if mlflow and uri else None
    state = State(kind, noted, experiment, run_name, "RUNNING", process)
    with one_at_a_time(outputs):
        last = read_state(known.run) if known else None
        if last and last.process != process and last.true_status == "RUNNING" and last.process.host == process.host:
            raise ConfigError(f"Run {run_id} is still going, as process {last.process.pid}. Stop that one first.")
        own, look = known.run_id if known else os.urandom(16).hex(), None
        if mlflow:
            own, look = mlflow.open_run(state, known.run_id if known else None, parent_run_id)
        try:
            folders = claim(outputs, own, predictions=predictions)
            write_state(folders.run, state)
        except BaseException as error:  # a full disk, a folder where one may not write
            if mlflow:
                with suppress(UnreachableError):
                    mlflow.send(own, [status_report("FAILED", str(error))])
            raise
    courier = Courier(Journal(folders.run), partial(mlflow.send, own), mlflow.name) if mlflow else None
    place = f"{mlflow.name} ({why})" if mlflow else f"{folders.run} (tracking=none)"
    tracker = Tracker(folders, state, courier, place, look or {"record": str(folders.run)})
    if parent_run_id and not mlflow:
        tracker.set_tags({PARENT: parent_run_id})
    if mlflow and system_metrics:
        tracker.sample(mlflow.instruments(own))
    return tracker


def _place(uri: str | None, begun: State | None, where: str) -> tuple[str | None, str]:
    """The MLflow that holds a run, None for ``mlflow.db``, and what decides so.

    The configuration's ``uri``; else that of the run itself or of its parent, ``begun``, told as ``where``; else that
    of MLflow's own variable.
    """
    if uri:
        return uri, "tracking.uri"
    if begun:
        return begun.uri, where
    given = address_given()
    return given, ADDRESS if given else "by default"


def experiment_name(given: str | None, usual: str) -> str:
    """The experiment of a new run: the configuration's, else that of MLflow's own variable, else the usual one."""
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

    In its own folder and in MLflow. What MLflow does not get now, seg.sync sends later.

    Args:
        run: the run's folder.
        status: FAILED or FINISHED, if that is not known there yet; the run's log goes with it.
        error: why; becomes a tag.
        tags: to be set.
        artifacts: files that take the place of those of the same name.
        uri: of MLflow; None: where the folder says.
    """
    outputs, state, journal = run.parent.parent, read_state(run), Journal(run)
    if state is None:  # it died before it could say anything, and the next run that begins will bury it
        return
    if tags:
        journal.append({"tags": dict(tags)})
    for path in artifacts:
        journal.append({"path": str(path.absolute()), "folder": ""})
    if status:
        if (run / "log.txt").exists():
            journal.append({"path": str((run / "log.txt").absolute()), "folder": ""})
        journal.append(status_report(status, error))
        write_state(run, replace(state, status=status))
    if state.kind == "mlflow":
        try:
            Mlflow(uri or state.uri, outputs).catch_up(find(outputs, str(run)))
        except ConfigError as reason:
            where = shlex.quote(f"paths.outputs={outputs}")
            log.warning("%s Send it later with: python -m seg.sync run=%s %s", reason, run.name[4:], where)


def _key(name: str) -> str:
    """``name`` with the characters that MLflow does not take in a key replaced."""
    return re.sub(r"[^\w\-./: ]", "_", name)
