"""What a user sees during a run: a progress bar in a terminal, plain lines elsewhere, a summary at the end."""

import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from seg import metrics
from seg.engine.progress import Budget
from seg.engine.progress import Progress as State

log = logging.getLogger(__name__)
_WIDE = 10_000  # columns of a table that no terminal shows
_OURS = "seg"  # name of the handlers set here
_ANNOUNCED_AFTER = 3.0  # seconds from the first step until a run says how long it will take
_PLAIN_EVERY = (10.0, 60.0)  # seconds between two plain lines within an epoch: at first, and later


class Display:
    """The progress of one run. Silent where ``shown`` is false: on every rank but the first.

    Without ``live`` in lines of the log only, as where the terminal is that of a sweep.
    """

    def __init__(self, budget: Budget, shown: bool = True, live: bool = True) -> None:
        self.budget = budget
        self.console = terminal()
        self.shown = shown
        self.live = shown and live and self.console.is_terminal
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(None),
            TextColumn("{task.fields[numbers]}"),
            console=self.console,
            transient=True,
            disable=not self.live,
        )
        self.task = self.bar.add_task("training", total=1.0, numbers="")
        self.dice: tuple[str, float] | None = None  # of the last epoch: of the validation where there is one
        self.announced = False  # how long it will take
        self._first: tuple[float, int] | None = None
        self._gap, self._due = _PLAIN_EVERY[0], 0.0  # of plain lines: the first comes after the first step

    def __enter__(self) -> "Display":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def step(self, state: State, loss: float) -> None:
        """After each optimizer step."""
        if not self.shown:
            return
        now = time.monotonic()
        self._first = self._first or (now, state.step)
        speed = (state.step - self._first[1]) / max(1e-9, now - self._first[0])
        left = self.budget.remaining_seconds(state, speed)
        dice = "" if self.dice is None else f"  {self.dice[0]} dice {self.dice[1]:.4f}"
        pace = f"  {speed:.2f} steps/s  {clock(left)} left" if speed else ""
        numbers = f"step {state.step}  loss {loss:.3f}{dice}{pace}"
        if not self.announced and speed and now - self._first[0] > _ANNOUNCED_AFTER:
            self.announced = True
            log.info("  %s", announcement(self.budget, state, speed))
        if self.live:
            self.bar.update(self.task, completed=min(1.0, self.budget.done(state)), numbers=numbers)
        elif now >= self._due:
            self._due, self._gap = now + self._gap, min(2 * self._gap, _PLAIN_EVERY[1])
            log.info("  %s", numbers)

    def epoch(self, numbers: dict[str, float]) -> None:
        """After each epoch."""
        self._due = time.monotonic() + self._gap
        part = "val" if "val_dice" in numbers else "train"
        if self.dice is None or part == "val" or self.dice[0] == "train":
            self.dice = (part, numbers[f"{part}_dice"]) if f"{part}_dice" in numbers else self.dice
        names = {"train_loss": "loss", "train_dice": "train dice", "val_loss": "val loss", "val_dice": "val dice"}
        parts = "  ".join(f"{label} {numbers[key]:.4f}" for key, label in names.items() if key in numbers)
        if self.shown:
            told = (numbers["epoch"], parts, numbers["lr"], numbers["epoch_seconds"])
            log.info("epoch %3d  %s  lr %.2g  %.1f s", *told)


def announcement(budget: Budget, state: State, speed: float) -> str:
    """How long the run will take at ``speed`` steps a second, and how to choose otherwise."""
    left = budget.remaining_seconds(state, speed)
    minutes, steps = (state.seconds + left) / 60, state.step + round(left * speed)
    validations = "plus the" if budget.minutes is None or budget.steps == steps else "minus the time of"
    other = 30 if 5 < minutes < 20 else 10
    return (
        f"about {minutes:.{0 if minutes > 9 else 1}f} min for {steps} steps of {1 / speed:.2g} s, {validations} "
        f"validations; trainer.max_minutes={other} makes it {other}"
    )


@cache
def terminal() -> Console:
    """The one console of bars, live tables and log lines: a line of another one would be drawn over."""
    return Console(stderr=True)


def clock(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``; ``--:--`` while unknown."""
    if seconds == float("inf"):
        return "--:--"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def log_to(*paths: Path, level: int = logging.INFO) -> None:
    """Sends log lines of at least ``level`` to the terminal, and all of them to the files ``paths``.

    Replaces what an earlier call set up; handlers of others are left alone.
    """
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    for handler in [handler for handler in root.handlers if handler.name == _OURS]:
        root.removeHandler(handler)
        handler.close()
    screen: logging.Handler = logging.StreamHandler(sys.stderr)
    if sys.stderr.isatty():
        screen = RichHandler(console=terminal(), show_time=False, show_path=False, show_level=False)
    screen.setLevel(level)
    screen.addFilter(lambda line: not getattr(line, "file_only", False))
    screen.name = _OURS
    root.addHandler(screen)
    for path in paths:
        also_log_to(path)
    for noisy in ("mlflow", "alembic", "urllib3", "matplotlib", "PIL", "hydra", "hydra_plugins"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def also_log_to(path: Path) -> None:
    """Sends all log lines to the file ``path`` too, until ``log_to`` sets up others."""
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    file.name = _OURS
    logging.getLogger().addHandler(file)


@contextmanager
def printing() -> Iterator[None]:
    """Within it nothing that becomes of stdout is an error: nobody reads it any more (``| head``), its disk is full."""
    try:
        yield
        print(end="", flush=True)
    except OSError as error:
        log.warning("Not all was printed: %s", error)
        with suppress(OSError, ValueError):  # what is left in its buffer may go nowhere, for Python's end, too
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_summary(cases: pd.DataFrame, lines: Mapping[str, object], of: str = "Test") -> None:
    """Prints the scores, ``of`` which part, with their spread over the cases, then ``lines`` as name and value."""
    if not cases.empty:
        scores, shown, lengths = metrics.summary(cases), metrics.shown(), metrics.lengths_of(cases)
        title = f"{of} scores of {cases['case'].nunique()} cases, mean ± SD"
        table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
        table.add_column("class", overflow="fold")
        for name in (*(metric.with_unit(metric.label, lengths) for metric in shown.values()), "missed", "false"):
            table.add_column(name, justify="right", no_wrap=True)
        for name, row in scores.iterrows():
            cells = [_mean_and_sd(metric, row) for metric in shown.values()]
            missed = f"{row['missed']:.0f} of {row['present']:.0f}"
            table.add_row(escape(str(name)), *cells, missed, f"{row['false']:.0f}")
        print_table(table)
    print_lines(lines)


def print_table(table: Table) -> None:
    """Prints ``table`` as wide as the terminal is; elsewhere no cell needs to be cut.

    By ``print``, since a closed pipe (``| head``) is no error of the command, and rich would make it one.
    """
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
    with console.capture() as text:
        console.print(table, crop=False)
    print(text.get(), end="")


def _mean_and_sd(metric: metrics.Metric, row: "pd.Series[float]") -> str:
    mean, sd = (row[f"{metric.name}_{what}"] for what in ("mean", "sd"))
    if not row["cases"]:
        return "–"
    return f"{mean:.{metric.digits}f}" + ("" if math.isnan(sd) else f" ± {sd:.{metric.digits}f}")


def print_lines(lines: Mapping[str, object]) -> None:
    """Prints ``lines`` as name and value; no line is wrapped, because they hold commands and addresses."""
    width = max(map(len, lines))
    for name, value in lines.items():
        print(f"{name:<{width}}  {value}")
