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


class LiveTable:
    """The progress of one sweep; plain lines if there is no terminal."""

    def __init__(self, sweep: Sweep, search: Search) -> None:
        self.sweep, self.search = sweep, search
        self.console = terminal()
        self.counts = {"finished": 0, "pruned": 0, "failed": 0}
        self.best: float | None = None
        log.info("sweep %s: %s", sweep.name, sweep.folder)
        self._refresh()
        if total := sum(self.counts.values()):
            log.info("continued: %s (%d trials)", self._counted(), total)

    def ended(self, trial: Trial, status: str, message: str) -> None:
        """After each trial."""
        self._refresh()
        best = "" if self.best is None else f", best {self.best:.4g}"
        log.info("%s", f"trial {trial.number} {status}: {message}  [{settings_of(trial)}]  ({self._counted()}{best})")

    @contextmanager
    def watching(self, workers: Workers) -> Iterator[None]:
        """Shows the trials at work while the block runs."""
        if not self.console.is_terminal:
            yield
            return
        table = partial(self._table, workers)
        with Live(get_renderable=table, console=self.console, refresh_per_second=2, transient=True):
            yield

    def _table(self, workers: Workers) -> Group:
        objective = self.sweep.goal.objectives[0]
        table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left")
        for column in ("trial", "settings", "epoch", objective, "time"):
            table.add_column(column, justify="left" if column == "settings" else "right", no_wrap=column != "settings")
        for number, running in sorted(workers.running.items()):
            progress = running.folder.progress
            value = "–" if progress.get("value") is None else f"{progress['value']:.4f}"
            cells = (escape(settings_of(running.trial)), str(progress.get("epoch", "–")), value)
            table.add_row(str(number), *cells, clock(time.monotonic() - running.since))
        best = "" if self.best is None else f"   best {objective} {self.best:.4f}"
        return Group(Text(f"{self.sweep.name}   {self._counted()}{best}"), table)

    def _refresh(self) -> None:
        frame = self.search.frame()
        self.counts = {state: int((frame["state"] == state).sum()) for state in self.counts}
        if self.sweep.ranked and len(best := self.search.best()):
            self.best = float(best.iloc[0][self.sweep.goal.objectives[0]])

    def _counted(self) -> str:
        others = "".join(f", {self.counts[state]} {state}" for state in ("pruned", "failed") if self.counts[state])
        return f"{self.counts['finished']} of {self.sweep.total} finished{others}"


def settings_of(trial: Trial) -> str:
    """What makes a trial differ, in one line."""
    return ", ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in trial.params.items()
    )
