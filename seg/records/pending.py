"""What is added to a run's record, and pushed to its sink, once the run's process has ended."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from seg.errors import ConfigError
from seg.records.address import completed
from seg.records.folder import RunFolder, one_at_a_time, place_given
from seg.records.journal import GONE, Journal, now_ms, status_report
from seg.records.sink import UnreachableError, sink_class
from seg.records.state import State, read_state, write_state

log = logging.getLogger(__name__)


def warn_of_rest(run: RunFolder, reason: str) -> None:
    """Logs why not all of a run arrived, and the command that sends the rest."""
    log.warning("%s Send it later with: python -m seg.sync run=%s%s", reason, run.short, place_given(run.outputs))


def add_to_record(
    run: Path,
    *,
    status: str | None = None,
    error: str = "",
    metrics: Mapping[str, float] | None = None,
    artifacts: Sequence[Path] = (),
    uri: str | None = None,
) -> None:
    """Adds to the record of a run whose process has ended, maybe without a word: it was killed, or ran out of memory.

    In its own folder and in its sink. What does not arrive there now, seg.sync sends later.

    Args:
        run: the run's folder.
        status: FAILED or FINISHED, if that is not known there yet; the run's log goes with it.
        error: why; becomes a tag.
        metrics: final numbers.
        artifacts: files that take the place of those of the same name.
        uri: of the sink; None: where the folder says.
    """
    state, journal = read_state(run), Journal(run)
    if state is None:  # it died before it could say anything, and the next run that begins will mark it dead
        return
    folder = RunFolder.at(run)
    if metrics:
        journal.append({"metrics": dict(metrics), "step": 0, "time": now_ms()})
    for path in artifacts:
        journal.append_file(path, "")
    if status:
        _close(folder, state, status, error)
    if state.pushed:
        folder.pending.touch()
        try:
            push_again(folder, uri)
        except ConfigError as reason:
            warn_of_rest(folder, str(reason))


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
    state = read_state(run.run)
    assert state is not None
    sink = sink_class(state.kind)(completed(uri or state.uri), run.outputs)
    if state.status == "RUNNING":
        finished = run.summary.exists()  # it was killed after its last number
        _close(run, state, "FINISHED" if finished else "KILLED", "" if finished else GONE)
    try:
        with one_at_a_time(run.outputs):  # not while another run that begins takes this one for killed
            sink.push(run)
    except UnreachableError as error:
        raise ConfigError(f"{sink.name} did not accept all of run {run.short}: {error}.") from None
    run.arrived()
    return sink.name


def _close(run: RunFolder, state: State, status: str, error: str) -> None:
    journal = Journal(run.run)
    if run.log.exists():
        journal.append_file(run.log, "")
    journal.append(status_report(status, error))
    write_state(run.run, replace(state, status=status))
