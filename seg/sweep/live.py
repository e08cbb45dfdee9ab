"""What a user sees of a sweep: a live table of the running trials, and a line for each that ended."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from seg.engine.console import clock, terminal
from seg.sweep.definition import Sweep
from seg.sweep.launch import Workers
from seg.sweep.search import Search, Trial

log = logging.getLogger(__name__)
_ENDS = ("finished", "pruned", "failed")


class LiveTable:
    """The progress of one sweep; plain lines if there is no terminal."""

    def __init__(self, sweep: Sweep, search: Search) -> None:
        self.sweep, self.search = sweep, search
        self.ended_so_far = self._count()
        log.info("sweep %s: %s", sweep.name, sweep.folder)
        if search.frame()["state"].isin(_ENDS).any():
            log.info("continued: %s", self.ended_so_far)

    def ended(self, trial: Trial, status: str, message: str) -> None:
        """After each trial."""
        self.ended_so_far = self._count()
        log.info("%s", f"trial {trial.number} {status}: {message}  [{settings_of(trial)}]  ({self.ended_so_far})")

    @contextmanager
    def watching(self, workers: Workers) -> Iterator[None]:
        """Shows the trials at work while the block runs."""
        if not terminal().is_terminal:
            yield
            return
        table = partial(self._table, workers)
        with Live(get_renderable=table, console=terminal(), refresh_per_second=2, transient=True):
            yield

    def _table(self, workers: Workers) -> Group:
        table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left")
        for column in ("trial", "settings", "epoch", self.sweep.goal.objectives[0], "time"):
            table.add_column(column, justify="left" if column == "settings" else "right", no_wrap=column != "settings")
        for number, (trial, folder, since) in sorted(workers.running.items()):
            progress = folder.progress
            value = "–" if progress.get("value") is None else f"{progress['value']:.4f}"
            cells = (escape(settings_of(trial)), str(progress.get("epoch", "–")), value)
            table.add_row(str(number), *cells, clock(time.monotonic() - since))
        return Group(Text(f"{self.sweep.name}   {self.ended_so_far}"), table)

    def _count(self) -> str:
        """How many trials ended how, and the best so far."""
        frame = self.search.frame()
        counts = {state: int((frame["state"] == state).sum()) for state in _ENDS}
        others = "".join(f", {counts[state]} {state}" for state in _ENDS[1:] if counts[state])
        found = self.search.best() if self.sweep.ranked else frame[:0]
        best = f", best {found.iloc[0][self.sweep.goal.objectives[0]]:.4g}" if len(found) else ""
        most = "at most " if self.sweep.study and self.sweep.study.until else ""
        return f"{counts['finished']} of {most}{self.sweep.total} finished{others}{best}"


def settings_of(trial: Trial) -> str:
    """What makes a trial differ, in one line."""
    return ", ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in trial.params.items()
    )
