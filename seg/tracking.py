"""Where runs are recorded: MLflow, or with ``tracking=none`` the run's own folder. Only this file imports mlflow.

A run reports through a Tracker, which writes a line on disk and returns; seg.unsent takes it from there. So no
database and no server can slow, stop or lose a run. MLflow is imported when a record is opened: it costs a second.
"""

import json
import logging
import os
import re
import shlex
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import psutil

from seg.config import without_passwords
from seg.errors import ConfigError
from seg.provenance import common_tags
from seg.rundir import Process, RunFolders, State, find, one_at_a_time, read_state, write_state
from seg.unsent import Courier, Journal, Report, UnreachableError, append_line, deliver

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param, Run, RunTag

log = logging.getLogger(__name__)

_SETTINGS = {  # an address that does not answer is given up in seconds, not in MLflow's ten minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it would print the password of the address
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_REFUSED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")  # what MLflow will not take however often it is sent
_LONGEST_PARAM = 6000  # characters; the whole configuration is an artifact
_SAMPLE_SECONDS = 5.0
_HOST, _PID, _STARTED, _KILLED = "seg.host", "seg.pid", "seg.pid_started", "seg.killed"


class Tracker:
    """The record of one run: ``keep_unsent_in`` comes first, ``finish`` last; only that one may wait."""

    def __init__(self, run_id: str, state: State) -> None:
        self.run_id = run_id
        self._state = state
        self._folder = Path()

    def keep_unsent_in(self, run: Path) -> None:
        """Opens the record for reports; what cannot be sent stays in the run's folder ``run``."""
        self._folder = run
        write_state(run, self._state)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Settings; they cannot be changed later."""
        self._put({"params": {_key(name): str(value) for name, value in params.items()}})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Labels to search by."""
        self._put({"tags": {_key(name): str(value) for name, value in tags.items()}})

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Numbers at one step; NaN and infinity are allowed."""
        values = {_key(name): float(value) for name, value in metrics.items()}
        self._put({"metrics": values, "step": step, "time": _now()})

    def log_artifact(self, path: Path, folder: str) -> None:
        """The file ``path`` under ``folder`` of the run's artifacts; "" is their root."""
        self._put({"path": str(path.absolute()), "folder": folder})

    def log_dataset(self, name: str, digest: str, source: str) -> None:
        """The data the run is trained on; MLflow keeps 36 characters of ``digest``."""
        self._put({"dataset": {"name": name, "digest": digest[:36], "source": without_passwords(source)}})

    def finish(self, status: str) -> None:
        """Closes the record as FINISHED, FAILED or KILLED; no OSError: a full disk may be what ended the run."""
        with suppress(OSError):
            self._put({"status": status, "time": _now()})
        with suppress(OSError):
            write_state(self._folder, replace(self._state, status=status))

    def how_to_look(self) -> str:
        """The command, address or folder that shows the record."""
        return str(self._folder)

    def _put(self, report: Report) -> None:
        raise NotImplementedError


class LocalTracker(Tracker):
    """No MLflow: every report is a line of ``record.jsonl`` in the run's folder, where its files lie already."""

    def _put(self, report: Report) -> None:
        append_line(self._folder / "record.jsonl", json.dumps(report))


class MlflowTracker(Tracker):
    """A run in MLflow."""

    def __init__(self, mlflow: "Mlflow", run: "Run", state: State, system_metrics: bool) -> None:
        super().__init__(run.info.run_id, state)
        self._mlflow, self._run = mlflow, run
        self._known = set(run.data.params)  # of a resumed run: a parameter cannot be set twice
        self._ending = threading.Event()
        what = (self, mlflow.uri, run.info.start_time, self._ending)
        self._sampler = threading.Thread(target=_sample, args=what, daemon=True) if system_metrics else None

    def keep_unsent_in(self, run: Path) -> None:
        """Starts the thread that sends, with what an earlier part of a resumed run could not."""
        super().keep_unsent_in(run)
        self._courier = Courier(Journal(run), partial(self._mlflow.send, self.run_id), self._mlflow.name)
        if self._sampler:
            self._sampler.start()

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Settings; those a resumed run has already are left as they are."""
        super().log_params({name: value for name, value in params.items() if _key(name) not in self._known})

    def finish(self, status: str) -> None:
        """Closes the record; waits while reports still get through, and says how to send what is left."""
        if self._sampler:
            self._ending.set()
            self._sampler.join()
        super().finish(status)
        if not self._courier.close():
            where = shlex.quote(f"paths.outputs={self._folder.parent.parent}")
            command = f"python -m seg.sync run={self._folder.name.removeprefix('run_')} {where}"
            log.warning("Not all reached %s; the rest is kept. Send it later with: %s", self._mlflow.name, command)

    def how_to_look(self) -> str:
        """The run's page on a server; on a database the command that serves one."""
        if not self._mlflow.is_server:
            return f"python -m mlflow ui --backend-store-uri {shlex.quote(_safe(self._mlflow.uri))}"
        address = re.sub("//[^/]*@", "//", self._mlflow.uri).rstrip("/")
        return f"{address}/#/experiments/{self._run.info.experiment_id}/runs/{self.run_id}"

    def _put(self, report: Report) -> None:
        try:
            self._courier.put(report)
        except OSError:
            if "status" not in report:
                raise
            with suppress(UnreachableError):  # how it ended goes straight there
                self._mlflow.send(self.run_id, [report])


def _sample(tracker: Tracker, uri: str, since: int, ending: threading.Event) -> None:
    """Reports the machine's load every few seconds, named as MLflow names it; a failure ends this, never the run."""
    try:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        # Its own loop would send past our queue, and log the address. Only its instruments are used.
        instruments = SystemMetricsMonitor(tracker.run_id, tracking_uri=uri).monitors
        psutil.cpu_percent()  # is counted from the call before
        while not ending.wait(_SAMPLE_SECONDS):
            values: dict[str, float] = {}
            for instrument in instruments:
                instrument.collect_metrics()
                values |= {f"system/{name}": value for name, value in instrument.aggregate_metrics().items()}
                instrument.clear_metrics()
            tracker.log_metrics(values, step=(_now() - since) // 1000)
    except Exception as error:
        log.info("no more system metrics: %s", error)


class Mlflow:
    """An MLflow database or server that has answered once; where it does not, a ConfigError without its password.

    Only a run that begins may ``create`` a database: in an empty one every older run would seem lost.
    Several first starts on a fresh database would each create its tables, and all but one die of it: here one at a
    time asks the first question. ``uri`` None is ``mlflow.db`` under ``outputs``, where a database's artifacts lie too.
    """

    def __init__(self, uri: str | None, outputs: Path, *, create: bool = True) -> None:
        self.uri = uri or f"sqlite:///{(outputs / 'mlflow.db').resolve()}"
        self.name = f"MLflow at {_safe(self.uri, self.uri)}"
        self.is_server = urlsplit(self.uri).scheme in ("http", "https")
        self._artifacts = None if self.is_server else (outputs / "mlartifacts").resolve().as_uri()
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        if "***" in self.uri:
            raise ConfigError(f"The password of {uri} is never written down. Give the whole address: tracking.uri=….")
        file = re.match(r"sqlite[^:]*:///([^?]+)", self.uri)
        if file and not create and not Path(file[1]).exists():
            raise ConfigError(f"There is no database {file[1]}. Say where the run was recorded: tracking.uri=….")
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # one warning of ours says it
        with self.explained(), one_at_a_time(outputs), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The ``noload`` loader")  # MLflow's own use of SQLAlchemy
            self._client = MlflowClient(tracking_uri=self.uri)
            self._client.search_experiments(max_results=1)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turns whatever MLflow raises into one message without passwords."""
        try:
            yield
        except ConfigError:
            raise
        except Exception as error:  # of MLflow, SQLAlchemy, requests, and of whichever driver the address names
            said = f"tracking.uri: {self.name} does not answer: {self._said(error)}"
            raise ConfigError(f"{said}. Start it, mend the address, or choose tracking=none.") from None

    def begin(self, state: State, parent: str | None) -> "Run":
        """Creates a run. Its parent is a tag: ``mlflow.start_run`` forgets it where MLFLOW_RUN_ID is set."""
        tags = common_tags()
        own = {"mlflow.user": tags["developer"], "mlflow.source.git.commit": tags["git_commit"]} | _tags(state.process)
        own |= {"mlflow.source.name": Path(sys.argv[0]).name} | ({"mlflow.parentRunId": parent} if parent else {})
        return self._client.create_run(self._experiment(state.experiment), tags=own, run_name=state.name)

    def reopen(self, run_id: str, process: Process) -> "Run":
        """Sets a run that ended back to RUNNING, now in ``process``; ConfigError where there is no such run."""
        if self.stage(run_id) != "active":
            raise ConfigError(f"{self.name} has no run {run_id}, or deleted it. Restore it, or start a new run.")
        for key, value in _tags(process).items():
            self._client.set_tag(run_id, key, value)
        self._client.update_run(run_id, status="RUNNING")
        self._revive(run_id)
        return self._client.get_run(run_id)

    def bury_dead_runs(self) -> None:
        """Marks KILLED the runs of this machine that say RUNNING and whose process has gone: it could not say so."""
        experiments = [experiment.experiment_id for experiment in self._client.search_experiments()]
        running = f"attributes.status = 'RUNNING' and tags.`{_HOST}` = '{Process.this().host}'"
        for run in self._client.search_runs(experiments, running):
            tags = run.data.tags
            if Process(tags[_HOST], int(tags[_PID]), float(tags[_STARTED])).gone:
                self._client.set_tag(run.info.run_id, _KILLED, "its process has gone")
                self._client.set_terminated(run.info.run_id, "KILLED")

    def catch_up(self, folders: RunFolders) -> int:
        """Sends what a run that has ended could not, buries it where it was killed; returns how many reports went."""
        with self.explained():
            sent = deliver(Journal(folders.run), partial(self.send, folders.run_id))
            self.bury_dead_runs()
        return sent

    def stage(self, run_id: str) -> str:
        """``active``, ``deleted``, or ``unknown`` where MLflow never had the run or has no trace of it any more."""
        from mlflow.exceptions import MlflowException

        with self.explained():
            try:
                return str(self._client.get_run(run_id).info.lifecycle_stage)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return "unknown"
                raise

    def send(self, run_id: str, reports: Sequence[Report]) -> None:
        """Gives ``reports`` to a run in few calls, or raises UnreachableError. One that comes twice changes nothing."""
        from mlflow.entities import Metric, Param, RunTag

        try:
            items: list[Metric | Param | RunTag] = []
            for report in reports:
                params, tags, metrics = (report.get(kind, {}).items() for kind in ("params", "tags", "metrics"))
                items += [Param(key, value[:_LONGEST_PARAM]) for key, value in params]
                items += [RunTag(key, value) for key, value in tags]
                items += [Metric(key, value, report["time"], report["step"]) for key, value in metrics]
            self._log(run_id, items)
            for report in reports:
                self._single(run_id, report)
        except Exception as error:  # whatever it is, it may not reach the training, nor show the password
            raise UnreachableError(self._said(error)) from None

    def _log(self, run_id: str, items: "Sequence[Metric | Param | RunTag]") -> None:
        """Logs ``items``; where MLflow refuses, halves them until the one that it refuses stands alone."""
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.exceptions import MlflowException

        metrics, params, tags = ([item for item in items if isinstance(item, kind)] for kind in (Metric, Param, RunTag))
        try:
            self._client.log_batch(run_id, metrics=metrics, params=params, tags=tags)
        except MlflowException as error:
            if error.error_code not in _REFUSED:
                raise
            if len(items) == 1:
                log.warning("%s does not take %s: %s", self.name, items[0].key, self._said(error))
                return
            self._log(run_id, items[: len(items) // 2])
            self._log(run_id, items[len(items) // 2 :])

    def _single(self, run_id: str, report: Report) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        if "path" in report and not Path(report["path"]).exists():
            log.warning("%s was gone before it could be sent to MLflow.", report["path"])
        elif "path" in report:
            self._client.log_artifact(run_id, report["path"], report["folder"] or None)
        elif "dataset" in report:
            seen = report["dataset"]
            dataset = Dataset(seen["name"], seen["digest"], "local", json.dumps({"uri": seen["source"]}))
            self._client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
        elif "status" in report:
            self._revive(run_id)
            self._client.set_terminated(run_id, report["status"], report["time"])

    def _said(self, error: Exception) -> str:
        """The reason within an error that names every layer it went through; without the password."""
        text = _safe(str(error), self.uri)
        reason = re.search(r"\[Errno -?\d+\] [^'\")]+", text)
        return reason[0] if reason else text[:300].rstrip(".")

    def _revive(self, run_id: str) -> None:
        if _KILLED in self._client.get_run(run_id).data.tags:  # another run took this one for dead
            self._client.delete_tag(run_id, _KILLED)

    def _experiment(self, name: str) -> str:
        """The id of the experiment ``name``, made where missing; a server decides itself where its artifacts lie."""
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name, artifact_location=self._artifacts))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self._client.get_experiment_by_name(name)  # another process was first
        if found.lifecycle_stage == "deleted":
            raise ConfigError(f"The experiment {name} was deleted in MLflow. Restore it there, or set another study=….")
        return str(found.experiment_id)


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
) -> Tracker:
    """Begins a record, or goes on with that of the run ``run_id``.

    Args:
        kind: ``mlflow`` or ``none``.
        outputs: holds the run folders, and ``mlflow.db`` where ``uri`` is None.
        uri: of an MLflow server or database.
        experiment: under which the run is filed.
        run_name: for people.
        run_id: of the run to resume.
        parent_run_id: of the run this one is a part of.
        system_metrics: whether to sample the machine's load.

    Raises:
        ConfigError: MLflow does not answer; the run to resume is unknown, deleted or still going.
    """
    process = Process.this()
    state = State(kind, without_passwords(uri) if uri else None, experiment, run_name, "RUNNING", process)
    folder = find(outputs, run_id).run if run_id else None
    mlflow = Mlflow(uri, outputs, create=not run_id) if kind == "mlflow" else None
    with one_at_a_time(outputs), mlflow.explained() if mlflow else nullcontext():
        last = read_state(folder) if folder else None
        if last and last.process != process and last.true_status == "RUNNING" and last.process.host == process.host:
            raise ConfigError(f"Run {run_id} is still going, as process {last.process.pid}. Stop that one first.")
        tracker: Tracker = LocalTracker(run_id or os.urandom(16).hex(), state)
        if mlflow:
            mlflow.bury_dead_runs()
            run = mlflow.reopen(run_id, process) if run_id else mlflow.begin(state, parent_run_id)
            tracker = MlflowTracker(mlflow, run, state, system_metrics)
        if folder:
            write_state(folder, state)  # at once, so that a second process that would resume the run sees it
        return tracker


def _tags(process: Process) -> dict[str, str]:
    return {_HOST: process.host, _PID: str(process.pid), _STARTED: str(process.started)}


def _safe(text: str, uri: str = "") -> str:
    """``text`` without passwords, neither as the address ``uri`` spells its own nor as a library unquotes it."""
    password = urlsplit(uri).password
    for secret in {password, unquote(password)} if password else ():
        text = text.replace(secret, "***")
    return without_passwords(text)


def _key(name: str) -> str:
    """``name`` with the characters that MLflow does not take in a key replaced."""
    return re.sub(r"[^\w\-./: ]", "_", name)


def _now() -> int:
    return int(time.time() * 1000)
