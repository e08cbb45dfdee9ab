"""The MLflow that holds the record: a database or a server. mlflow is imported only when it is asked.

It is a sink for records, and gives runs back as plain data; what it raises names no password. Models are in seg.deploy.
"""

import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from seg.errors import ConfigError, SegError, without_passwords
from seg.files import PRIVATE, atomic
from seg.records.address import ADDRESS, address_given, completed, default_uri, file_of, is_server, pages, ui_command
from seg.records.folder import RunFolder, one_at_a_time
from seg.records.journal import GONE, Journal, Recorded, Report, status_report
from seg.records.provenance import common_tags
from seg.records.sink import Sink, UnreachableError
from seg.records.state import Process, State

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param, Run, RunTag
    from mlflow.store.entities import PagedList

log = logging.getLogger(__name__)
T = TypeVar("T")
NOTE = "mlflow.note.content"
"""A tag of MLflow's own: the description."""
HISTORY_OF = "seg.history_of"
"""A tag of a run that is no training: it keeps the history of the registered model that the tag names."""

_SETTINGS = {  # an address that does not answer is given up in seconds, not in MLflow's ten minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "PGCONNECT_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it would print the password of the address
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
_AT_FIRST = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}  # somebody waits
_REFUSED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")  # what MLflow will not take however often it is sent
_UNKNOWN_USER, _FORBIDDEN = ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"), "PERMISSION_DENIED"
_DAMAGED = ("file is not a database", "database disk image is malformed")  # sqlite's words
_LONGEST_PARAM = 6000  # characters; the whole configuration is an artifact
_LONGEST_TAG = 8000  # characters, MLflow's own limit; the whole report of a study is an artifact
_BATCH = 500  # reports sent, or runs asked for, at once
_PROCESS, _ERROR = "seg.process", "error"  # tags of ours


class Mlflow(Sink):
    """An MLflow database or server that has answered once; where it does not, a ConfigError without its password.

    Only a run that begins may ``create`` a database: in an empty one every older run would seem lost. ``uri`` None is
    ``mlflow.db`` under ``outputs``, where a database's artifacts lie too; one without its password is completed from
    MLFLOW_TRACKING_URI where it is the same.
    """

    def __init__(self, uri: str | None, outputs: Path, *, create: bool = False) -> None:
        self.noted = uri
        self.uri = completed(uri) or default_uri(outputs)
        self._begins = create
        self._set_by = ADDRESS if self.uri == address_given() else "tracking.uri"
        self.name = f"MLflow at {without_passwords(self.uri, self.uri)}"
        self._artifacts = (outputs / "mlartifacts").resolve()
        self._pushed: dict[str, int] = {}  # bytes of each run's journal
        self._file = file_of(self.uri)
        if "***" in self.uri:
            raise ConfigError(f"The password of {uri} is never stored. Give the whole address: tracking.uri=….")
        if self._file and not self._file.exists() and not create:
            raise ConfigError(f"There is no database {self._file}. Say where the run was recorded: tracking.uri=….")
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient
        from mlflow.store.db import utils

        utils.MAX_RETRY_COUNT = 1  # it would try a database for two minutes
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # one warning of ours says it
        with self.explained(), warnings.catch_warnings(), _hurried():
            warnings.filterwarnings("ignore", "The ``noload`` loader")  # MLflow's own use of SQLAlchemy
            if self._file and not self._file.exists():
                self._create(self._file)
            self.client = MlflowClient(tracking_uri=self.uri)
            self.client.search_experiments(max_results=1)

    def _create(self, file: Path) -> None:
        """Makes the database, whole or not at all.

        Of several first starts that each create its tables all but one would die of it. MLflow's client would make its
        experiment Default keep files in ./mlruns of the working folder.
        """
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        with one_at_a_time(file.parent):
            if not file.exists():
                self._artifacts.mkdir(PRIVATE, parents=True, exist_ok=True)
                with atomic(file) as draft:
                    SqlAlchemyStore(f"sqlite:///{draft}", self._artifacts.as_uri())._dispose_engine()

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turns whatever MLflow raises into one message without passwords; errors of ours pass as they are."""
        try:
            yield
        except SegError:
            raise
        except Exception as error:  # of MLflow, SQLAlchemy, requests, and of whichever driver the address names
            reason, code = self.reason(error), getattr(error, "error_code", "")
            if code in _UNKNOWN_USER:
                raise ConfigError(
                    f"{self._set_by}: {self.name} does not accept this user and password. Set MLFLOW_TRACKING_USERNAME "
                    "and MLFLOW_TRACKING_PASSWORD, or write both into the address, before the host."
                ) from None
            if code == _FORBIDDEN:
                user = os.environ.get("MLFLOW_TRACKING_USERNAME") or urlsplit(self.uri).username or "that you are"
                raise ConfigError(
                    f"{self._set_by}: {self.name} does not allow this to the user {user}. Ask whoever runs it for the "
                    "permission EDIT, or set tracking.experiment to an experiment of your own."
                ) from None
            if self._file and (found := next((words for words in _DAMAGED if words in reason), "")):
                raise ConfigError(
                    f"{self._file} is damaged: {found}. Restore it from a copy, or move it away: the next run makes a "
                    "new one, and each run's own folder has its record, too."
                ) from None
            said = f"{self._set_by}: {self.name} does not answer: {reason}. Start it, or fix the address"
            raise ConfigError(f"{said}{', or choose tracking=none' if self._begins else ''}.") from None

    def open_run(self, state: State, run_id: str | None) -> tuple[str, dict[str, str]]:
        """Creates a run, or continues ``run_id`` in a new process; first marks those whose process died.

        Returns:
            Its id, and how to look at it: what holds it, its charts, and the table of all runs beside it.

        Raises:
            ConfigError: there is no such run, or no answer.
        """
        with self.explained():
            self._mark_dead_runs()
            run = self._reopen(run_id, state) if run_id else self._begin(state)
        return run.info.run_id, self._look(run)

    def _look(self, run: "Run") -> dict[str, str]:
        # Without the last part MLflow opens its view of language models, where a training looks empty.
        runs, view = f"{pages(self.uri)}/#/experiments/{run.info.experiment_id}/runs", "?workflowType=machine_learning"
        return {
            "record": pages(self.uri) if is_server(self.uri) else ui_command(self.uri),
            "its charts": f"{runs}/{run.info.run_id}/model-metrics{view}",
            "all runs": f"{runs}{view}",
        }

    def _reopen(self, run_id: str, state: State) -> "Run":
        if self.stage(run_id) != "active":
            raise ConfigError(f"{self.name} has no run {run_id}, or it was deleted. Restore it, or start a new run.")
        self.client.set_tag(run_id, _PROCESS, json.dumps(asdict(state.process)))
        self._set_status(run_id, status_report("RUNNING"))
        return self.client.get_run(run_id)

    def _begin(self, state: State) -> "Run":
        ours = common_tags()
        tags = {
            "mlflow.user": ours["developer"],
            "mlflow.source.git.commit": ours["git_commit"],
            "mlflow.source.name": Path(sys.argv[0]).name,
            "mlflow.source.type": "LOCAL",
            _PROCESS: json.dumps(asdict(state.process)),
        }
        return self.client.create_run(self.experiment(state.experiment), tags=tags, run_name=state.name)

    def experiment(self, name: str) -> str:
        """The id of the experiment ``name``, made if missing; a server decides itself where to store artifacts."""
        from mlflow.exceptions import MlflowException

        place = None if is_server(self.uri) else self._artifacts.as_uri()
        try:
            return self.client.create_experiment(name, artifact_location=place)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = self.client.get_experiment_by_name(name)
        if found is None or found.lifecycle_stage == "deleted":
            raise ConfigError(f"The experiment {name} was deleted in MLflow. Restore it there, or set another study=….")
        return found.experiment_id

    def _mark_dead_runs(self) -> None:
        """Marks as KILLED the runs of this machine that say RUNNING although their process no longer exists."""
        from mlflow.exceptions import MlflowException

        for run in [run for run, _ in self._runs("attributes.status = 'RUNNING'") if _dead(run)]:
            try:
                self._set_status(run.info.run_id, status_report("KILLED", GONE))
            except MlflowException as error:  # a colleague's, which this user may only read
                if error.error_code != _FORBIDDEN:
                    raise

    def stage(self, run_id: str) -> str:
        """``active``, ``deleted``, or ``unknown`` where MLflow never had the run or has no trace of it any more."""
        return self.stages([run_id]).get(run_id, "unknown")

    def stages(self, run_ids: Sequence[str]) -> dict[str, str]:
        """By its id whether each run is ``active`` or ``deleted``; one that MLflow does not know is left out."""
        found: dict[str, str] = {}
        with self.explained():
            for start in range(0, len(run_ids), _BATCH):
                ids = ", ".join(f"'{run_id}'" for run_id in run_ids[start : start + _BATCH])
                known = self._runs(f"attributes.run_id IN ({ids})", deleted_too=True)
                found |= {run.info.run_id: run.info.lifecycle_stage for run, _ in known}
        return found

    def run(self, run_id: str | None) -> "Run | None":
        """What MLflow knows of a run; None where it knows none of that id."""
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_run(run_id or "None")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    def search(self, run: str, tags: Mapping[str, str]) -> list[Recorded]:
        """Every run whose id begins with ``run`` and that has ``tags``, newest first."""
        conditions = {"attributes.run_id LIKE": f"{run}%"} | {f"tags.`{key}` =": value for key, value in tags.items()}
        # MLflow cannot take a quote in a value: such a condition is left to the caller, who looks at all of them again.
        where = " and ".join(f"{what} '{value}'" for what, value in conditions.items() if "'" not in value)
        with self.explained():
            return [_recorded(run, name) for run, name in self._runs(where) if HISTORY_OF not in run.data.tags]

    def read_artifact(self, run_id: str, path: str) -> str | None:
        """The text of a run's artifact; None where it has none of that name, or where there is no such run."""
        with self.explained(), TemporaryDirectory() as place:
            if self.run(run_id) is None:
                return None
            if path not in [file.path for file in self.client.list_artifacts(run_id, str(Path(path).parent))]:
                return None
            return Path(self.client.download_artifacts(run_id, path, place)).read_text("utf-8")

    def readings(self, run_id: str) -> Iterator[dict[str, float]]:
        """Readings of the machine's load, named as MLflow names them."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        # Its own loop would send past our queue, and log the address. Only its instruments are used.
        instruments = SystemMetricsMonitor(run_id, tracking_uri=self.uri).monitors
        while True:
            values: dict[str, float] = {}
            for instrument in instruments:
                instrument.collect_metrics()
                values |= {f"system/{name}": value for name, value in instrument.aggregate_metrics().items()}
                instrument.clear_metrics()
            yield values

    def _runs(self, where: str, deleted_too: bool = False) -> "Iterator[tuple[Run, str]]":
        """Runs, each with the name of its experiment."""
        from mlflow.entities import ViewType

        view = ViewType.ALL if deleted_too else ViewType.ACTIVE_ONLY
        experiments = _pages(partial(self.client.search_experiments, view_type=view))
        names = {experiment.experiment_id: experiment.name for experiment in experiments}
        found = _pages(partial(self.client.search_runs, [*names], where, view))
        return ((run, names[run.info.experiment_id]) for run in found)

    def push(self, run: RunFolder, unwritten: Sequence[Report] = ()) -> None:
        """Sends what is new in the journal of ``run`` since this process last did; see ``Sink.push``."""
        journal, start = Journal(run.run), self._pushed.get(run.run_id, 0)
        try:
            while (found := journal.read_from(start, _BATCH))[0]:
                self._send(run, found[0])
                start = self._pushed[run.run_id] = found[1]
            self._send(run, unwritten)
        except Exception as error:  # whatever it is, it may not reach the training, nor show the password
            raise UnreachableError(self.reason(error)) from None

    def _send(self, run: RunFolder, reports: Sequence[Report]) -> None:
        """Gives ``reports`` to a run in few calls. One that comes twice changes nothing."""
        from mlflow.entities import Metric, Param, RunTag

        items: list[Metric | Param | RunTag] = []
        for report in reports:
            items += [Param(key, value[:_LONGEST_PARAM]) for key, value in report.get("params", {}).items()]
            items += [RunTag(key, value[:_LONGEST_TAG]) for key, value in report.get("tags", {}).items()]
            numbers = report.get("metrics", {}).items()
            items += [Metric(key, value, report["time"], report["step"]) for key, value in numbers]
        if items:
            self._log(run.run_id, items)
        for report in reports:
            self._single(run, report)
        for last in [report for report in reports if "status" in report][-1:]:
            self._set_status(run.run_id, last)

    def _log(self, run_id: str, items: "Sequence[Metric | Param | RunTag]") -> None:
        """Logs ``items``; where MLflow refuses, halves them until the refused one is isolated."""
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.exceptions import MlflowException

        try:
            self.client.log_batch(
                run_id,
                metrics=[item for item in items if isinstance(item, Metric)],
                params=[item for item in items if isinstance(item, Param)],
                tags=[item for item in items if isinstance(item, RunTag)],
            )
        except MlflowException as error:
            if error.error_code not in _REFUSED:
                raise
            if len(items) == 1:
                log.warning("%s rejected %s: %s", self.name, items[0].key, self.reason(error))
                return
            self._log(run_id, items[: len(items) // 2])
            self._log(run_id, items[len(items) // 2 :])

    def _single(self, run: RunFolder, report: Report) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        if "path" in report:
            path = Path(os.path.normpath(run.run.absolute() / report["path"]))
            if not path.is_relative_to(os.path.normpath(run.outputs.absolute())) or path.is_symlink():
                log.warning("%s is not sent to MLflow: it is not of this run, nor of its outputs.", path)
            elif path.exists():
                self.client.log_artifact(run.run_id, str(path), report["folder"] or None)
            else:
                log.warning("%s was removed before it could be sent to MLflow.", path)
        elif "dataset" in report:
            seen = report["dataset"]
            dataset = Dataset(seen["name"], seen["digest"], "local", json.dumps({"uri": seen["source"]}))
            self.client.log_inputs(run.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def _set_status(self, run_id: str, report: Report) -> None:
        """The last word counts: it takes the place of what was said before, and of the reason given for it."""
        if report["status"] == "RUNNING":
            self.client.update_run(run_id, "RUNNING")
        else:
            self.client.set_terminated(run_id, report["status"], report["time"])
        if report["error"]:
            self.client.set_tag(run_id, _ERROR, report["error"])
        elif _ERROR in self.client.get_run(run_id).data.tags:
            self.client.delete_tag(run_id, _ERROR)

    def reason(self, error: Exception) -> str:
        """The reason within an error that names every layer it went through; without the password."""
        text = without_passwords(str(error), self.uri)
        reason = re.search(r"\[Errno -?\d+\] [^'\")]+", text)
        return reason[0] if reason else text[:300].rstrip(".")


def _recorded(run: "Run", experiment: str) -> Recorded:
    inputs = run.inputs.dataset_inputs if run.inputs else []
    dead = _dead(run)
    return Recorded(
        run.info.run_id,
        run.info.run_name,
        "KILLED" if dead else run.info.status,
        experiment,
        inputs[0].dataset.name if inputs else None,
        started=run.info.start_time,
        ended=run.info.end_time,
        tags=run.data.tags | ({_ERROR: GONE} if dead else {}),
        metrics=run.data.metrics,
        params=run.data.params,
    )


def _dead(run: "Run") -> bool:
    """Whether the run says RUNNING and its process, of this machine, has gone."""
    process = run.data.tags.get(_PROCESS)
    return run.info.status == "RUNNING" and process is not None and Process(**json.loads(process)).gone


@contextmanager
def _hurried() -> Iterator[None]:
    """Within it a server is given up soon, unless the user's own variables say otherwise."""
    ours = {name: value for name, value in _AT_FIRST.items() if os.environ[name] == _SETTINGS[name]}
    os.environ |= ours
    try:
        yield
    finally:
        os.environ |= {name: _SETTINGS[name] for name in ours}


def _pages(search: "Callable[..., PagedList[T]]") -> Iterator[T]:
    """All that ``search`` finds; MLflow gives a thousand at a time."""
    page = search()
    yield from page
    while page.token:
        page = search(page_token=page.token)
        yield from page
