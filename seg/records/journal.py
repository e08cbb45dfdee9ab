"""Everything a run reports, one line each in ``record.jsonl`` of its folder: the record, which sinks read.

A report is on disk before anything is sent. So a sink that is slow or dead, or a process that is killed, loses nothing.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

Report = dict[str, Any]
"""JSON values: ``params``, ``tags``, ``metrics`` with ``step`` and ``time``, ``path`` with ``folder``, ``dataset``, or
``status`` with ``error`` and ``time``. A ``path`` is relative to the run's folder."""

GONE = "its process has gone"
"""Why a run was killed that could not say so."""
_LONGEST_ERROR = 500  # characters
_COSTS = (
    *("epoch_seconds", "samples_per_second", "memory_mib", "total_training_seconds", "gflops_a_patch"),
    *("peak_memory_mib", "inference_seconds_a_case", "best_epoch"),
)
# MLflow draws what is named system/… apart and last, but a section cost/… before losses and scores.
FILED = {name: f"system/{name}" for name in _COSTS}
"""What is called otherwise in the record: costs and bookkeeping."""


@dataclass(frozen=True)
class Recorded:
    """What the record says of a run, whoever holds it."""

    run_id: str
    name: str
    status: str
    experiment: str
    dataset: str | None
    started: int | None  # milliseconds since the epoch, as is ``ended``
    ended: int | None
    tags: Mapping[str, str]
    metrics: Mapping[str, float]  # the last of each
    params: Mapping[str, str]


def status_report(status: str, error: str = "") -> Report:
    """How a run goes from now on; the last one counts. ``error`` says why, in one line."""
    return {"status": status, "error": " ".join(error.split())[:_LONGEST_ERROR], "time": now_ms()}


def now_ms() -> int:
    """Milliseconds since the epoch, as MLflow counts."""
    return int(time.time() * 1000)


class Journal:
    """The reports of the run in the folder ``run``."""

    def __init__(self, run: Path) -> None:
        self.run, self.path = run, run / "record.jsonl"

    def append(self, *reports: Report) -> None:
        """Adds reports at the end, in one write."""
        append_line(self.path, "\n".join(map(json.dumps, reports)))

    def append_file(self, path: Path, folder: str) -> None:
        """Reports the file ``path``, which belongs in ``folder`` of the run's artifacts ("" is their root)."""
        self.append({"path": os.path.relpath(path.absolute(), self.run.absolute()), "folder": folder})

    def read(self) -> list[Report]:
        """Every report."""
        return self.read_from(0)[0]

    def tags(self) -> dict[str, str]:
        """Every tag with its last value."""
        return {key: value for report in self.read() for key, value in report.get("tags", {}).items()}

    def dataset(self) -> str | None:
        """The name of the data set that was noted last."""
        return next((report["dataset"]["name"] for report in reversed(self.read()) if "dataset" in report), None)

    def read_from(self, start: int, count: int | None = None) -> tuple[list[Report], int]:
        """At most ``count`` reports from the byte ``start`` on, and where the next one begins.

        Half a last line is being written, or was when its process died: it is left out.
        """
        if not self.path.exists():
            return [], start
        with self.path.open("rb") as file:
            file.seek(start)
            lines = list(takewhile(lambda line: line.endswith(b"\n"), islice(file, count)))
        return [_parsed(line) for line in lines], start + sum(map(len, lines))


def append_line(path: Path, line: str) -> None:
    """Adds ``line`` to the file ``path``; half a line that a killed process or a full disk left is cut off first."""
    with path.open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        if file.read(1) not in (b"", b"\n"):
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
        file.write(line.encode() + b"\n")


def _parsed(line: bytes) -> Report:
    try:
        report: Report = json.loads(line)
        return report
    except ValueError:  # what a power failure left of it; an empty report changes nothing
        return {}
