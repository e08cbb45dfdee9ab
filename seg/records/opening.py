"""How a record begins, or continues: which run it is, where it is recorded, and which folders are its own."""

from contextlib import suppress
from pathlib import Path

from seg.errors import ConfigError, without_passwords
from seg.files import remove_drafts
from seg.records.address import chosen, completed
from seg.records.folder import RunFolder, by_id, claim, find, one_at_a_time
from seg.records.journal import status_report
from seg.records.record import Record
from seg.records.sink import PARENT, Sink, UnreachableError, sink_class
from seg.records.state import Process, State, read_state, write_state


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
        kind: of the sink, see ``sink_class``.
        outputs: holds the run folders, and ``mlflow.db`` where nothing names another place.
        uri: of the sink; None: see ``address.chosen``.
        experiment: under which a new run is filed.
        run_name: of a new run, for people.
        run_id: of the run to resume.
        parent_run_id: of the run this one is a part of.
        system_metrics: whether to sample the machine's load.
        predictions: whether the run will make any; without them it has no folder for them.

    Raises:
        ConfigError: the sink does not answer; the run to resume is unknown, deleted or still going.
    """
    known = find(outputs, run_id) if run_id else None
    kept = known or (by_id(outputs).get(parent_run_id) if parent_run_id and outputs.is_dir() else None)
    begun = read_state(kept.run) if kept else None
    if known and begun:
        run_name, experiment = begun.name, begun.experiment
    uri, why = chosen(kind, uri, begun, "where it began" if known else "where its parent is")
    sink = sink_class(kind)(completed(uri), outputs, create=not run_id)
    noted = without_passwords(uri) if uri and kind != "none" else None
    state = State(kind, noted, experiment, run_name, "RUNNING", Process.this())
    with one_at_a_time(outputs):
        if known:
            _refuse_if_going(known)
            remove_drafts(known.run)
        folders, look = _opened(sink, state, outputs, known.run_id if known else None, predictions)
    place = f"{sink.name} ({why})" if state.pushed else f"{folders.run} (tracking=none)"
    record = Record(folders, state, sink, place, look or {"record": str(folders.run)})
    if parent_run_id:
        record.set_tags({PARENT: parent_run_id})
    if system_metrics and (readings := sink.readings(folders.run_id)):
        record.sample(readings)
    return record


def _refuse_if_going(run: RunFolder) -> None:
    last = read_state(run.run)
    if last and last.true_status == "RUNNING" and last.process.here and not last.process.own:
        raise ConfigError(f"Run {run.run_id} is still running as process {last.process.pid}. Stop it first.")


def _opened(
    sink: Sink, state: State, outputs: Path, run_id: str | None, predictions: bool
) -> tuple[RunFolder, dict[str, str]]:
    """The run's folders, its own from now on, and where to look at it; a run that gets none has failed."""
    own, look = sink.open_run(state, run_id)
    folders = RunFolder.of(outputs, own, own)
    try:
        folders = claim(outputs, own, predictions=predictions)
        write_state(folders.run, state)
    except BaseException as error:  # a full disk, or a folder without write permission
        with suppress(UnreachableError):
            sink.push(folders, [status_report("FAILED", str(error))])
        raise
    return folders, look
