"""Where the record of a run is pushed to. Another tracker is one subclass of Sink, named by ``tracking.kind``."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from seg.config.build import named
from seg.errors import ConfigError
from seg.records.folder import RunFolder
from seg.records.journal import Report
from seg.records.state import State

ADDRESS, EXPERIMENT = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"  # MLflow's own variables
PARENT = "mlflow.parentRunId"  # a tag of MLflow's own


class UnreachableError(Exception):
    """A sink does not answer, or refuses for now."""


class Sink:
    """Takes the record of runs to where their user looks at it.

    Args:
        uri: as ``tracking.uri``; None: the sink's own place.
        outputs: holds the run folders.
        create: whether a place that is not there yet may be made.

    Raises:
        ConfigError: it cannot be reached.
    """

    name = "a sink"

    def __init__(self, uri: str | None, outputs: Path, *, create: bool = False) -> None:
        """Keeps nothing."""

    def open_run(self, state: State, run_id: str | None, parent: str | None) -> tuple[str, dict[str, str]]:
        """Before a run has its folders: its id, and where to look at it. A sink that gives no ids takes a new one."""
        return run_id or new_run_id(), {}

    def push(self, run: RunFolder, unwritten: Sequence[Report] = ()) -> None:
        """Takes what is new in the journal of ``run``; a second time it changes nothing.

        Args:
            run: whose journal is read.
            unwritten: reports for which the disk had no room.

        Raises:
            UnreachableError: not all arrived.
        """

    def readings(self, run_id: str) -> Iterator[dict[str, float]] | None:
        """The load of the machine, again and again; None where the sink does not show it."""
        return None


def sink_of(kind: str, uri: str | None, outputs: Path, *, create: bool = False) -> Sink | None:
    """The sink that ``tracking.kind`` names: mlflow, none, or the path of a class.

    Raises:
        ConfigError: there is no such class, or it may not be used, or it is not a sink, or it cannot be reached.
    """
    if kind == "none":
        return None
    if kind == "mlflow":
        from seg.records.mlflow import Mlflow

        return Mlflow(uri, outputs, create=create)
    found = named(kind, "tracking.kind")
    if not (isinstance(found, type) and issubclass(found, Sink)):
        raise ConfigError(f"tracking.kind is {kind!r}, which is not a subclass of {Sink.__module__}.Sink.")
    return found(uri, outputs, create=create)


def new_run_id() -> str:
    """32 random characters, as MLflow's are."""
    return os.urandom(16).hex()


def address_given() -> str | None:
    """The address in MLflow's own variable: where a new run is recorded whose configuration names none."""
    return os.environ.get(ADDRESS) or None
