"""Whoever asks for a run, as the run sees it: the engine knows nothing of sweeps."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from seg.records.folder import RunFolder


class Reporter(Protocol):
    """Whoever asked for a run and follows it, such as a sweep's trial. The run then shows nothing itself."""

    pruned: bool  # whether it has ended the run after an epoch, as worse than others

    @property
    def log(self) -> Path:
        """A file for the run's log lines, besides the run's own."""

    def begin(self, run: RunFolder | None) -> None:
        """Before the record is opened (None), and as soon as the run has its folders.

        Raises:
            InterruptedRunError: the run should not begin.
        """

    def epoch(self, numbers: Mapping[str, float]) -> bool:
        """After each epoch; whether the run should end here, pruned."""

    def interrupted(self) -> bool:
        """After each step: whether the run should save and stop."""

    def stop(self) -> None:
        """A signal asks the run to stop."""
