"""The sweep's own run in MLflow: what was asked, how it goes, what came out."""

import logging
import shlex
import sys
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from seg.engine.console import print_lines, printing
from seg.errors import DataError, without_passwords
from seg.files import atomic_write
from seg.pages.study import report
from seg.records.folder import by_id
from seg.records.mlflow import NOTE
from seg.records.opening import open_record
from seg.records.provenance import common_tags
from seg.records.readings import note_reading
from seg.records.record import Record
from seg.records.state import read_state
from seg.study.question import FILE, Asked
from seg.sweep.definition import Sweep
from seg.sweep.looks import asked_by, ended_by
from seg.sweep.search import Search
from seg.sweep.summary import best_recipe, draw, study_summary, summary

log = logging.getLogger(__name__)


@dataclass
class Parent:
    """The record of a sweep."""

    sweep: Sweep
    tracker: Record
    lock: threading.Lock = field(default_factory=threading.Lock)

    def progress(self, search: Search) -> None:
        """Reports how many trials ended in which way, and the best so far; the first scores of a study are read."""
        with self.lock:
            frame = search.frame()
            counts = frame["state"].value_counts()
            if self.sweep.study and counts.get("finished"):
                outputs, asked, folder = self.sweep.outputs, asked_by(self.sweep), self.sweep.folder
                own = self.tracker.run_id
                note_reading(outputs, asked.part, kind="study", reader=own, name=asked.name, folder=folder)
            metrics = {state: float(counts.get(state, 0)) for state in ("finished", "pruned", "failed")}
            ended = int(sum(metrics.values()))
            tags: dict[str, Any] = {}
            if self.sweep.ranked and len(best := search.best()):
                winner, objective = best.iloc[0], self.sweep.goal.objectives[0]
                metrics[f"best_{objective}"] = winner[objective]
                tags = {"best.run_id": winner["run_id"], "best.trial": winner["number"]}
                known = {key: winner[key] for key in frame.attrs["parameters"]}
                tags |= {f"best.{key}": value if pd.notna(value) else "–" for key, value in known.items()}
            self.tracker.log_metrics(metrics, step=ended)
            self.tracker.set_tags(tags)

    def conclude(self, search: Search) -> None:
        """Writes what came out into the sweep's folder and the record: a study's report, or plots and the winner."""
        folder, frame = self.sweep.folder, search.frame()
        atomic_write(folder / "trials.csv", frame.to_csv(index=False))
        message, written = self._study(frame) if self.sweep.study else self._search(search, frame)
        for path in [folder / "trials.csv", folder / "summary.md", *written]:
            self.tracker.log_artifact(path, "")
        self.tracker.set_tags({NOTE: message} | ended_by(self.sweep, search))
        with printing():
            print(f"\n{message}")
            print_lines(self.tracker.look)

    def _study(self, frame: pd.DataFrame) -> tuple[str, list[Path]]:
        folder = self.sweep.folder
        atomic_write(folder / "summary.md", study_summary(self.sweep, frame))
        return report(folder, self.sweep.outputs, self.sweep.cfg.tracking.uri)

    def _search(self, search: Search, frame: pd.DataFrame) -> tuple[str, list[Path]]:
        folder, written = self.sweep.folder, []
        if (recipe := best_recipe(self.sweep, search)) is not None:
            atomic_write(folder / "experiments/best.yaml", recipe)
            written.append(folder / "experiments/best.yaml")
        message = summary(self.sweep, search, frame, again=recipe is not None)
        atomic_write(folder / "summary.md", message)
        if page := draw(search, self.sweep.name):
            atomic_write(folder / "plots.html", page)
            written.append(folder / "plots.html")
        return message, written

    def recorded(self) -> AbstractContextManager[None]:
        """Gives the record its last state when the block ends."""
        return self.tracker.closing(self.sweep.folder / "log.txt")


def open_parent(sweep: Sweep, search: Search, experiment: str) -> Parent | None:
    """Opens the sweep's run, the same one whenever it continues; None where another machine keeps it."""
    cfg = sweep.cfg
    known = search.parent
    if sweep.study:
        asked = asked_by(sweep)
        if known and (sweep.folder / FILE).exists():  # what was planned before the first run stays
            with suppress(DataError):  # it is damaged, or of another version: it is written anew
                asked = replace(asked, planned=Asked.read(sweep.folder).planned)
        asked.write(sweep.folder)  # where its report will be made
    if known and known not in by_id(sweep.outputs):
        log.warning(
            "The sweep's own run %s is not in %s: it is kept on another machine, or it was removed. This process makes "
            "no report.",
            known[:8],
            sweep.outputs,
        )
        return None
    tracker = open_own(sweep, experiment, sweep.name, run_id=known)
    folders = tracker.folders
    log.info("The sweep is recorded in %s", tracker.place)
    parent = Parent(sweep, tracker)
    if search.set_parent_once(tracker.run_id) != tracker.run_id:
        tracker.finish("KILLED")  # another machine was first
        return None
    tags = common_tags() | {"experiment_type": "sweep", "sweep": sweep.name, "study": cfg.study}
    tags |= {"run_id": folders.run_id, "run_id_short": folders.short, NOTE: _intention(sweep)}
    tracker.set_tags(tags | dict(cfg.tracking.tags))
    varied = {f"sweep.{parameter.key}": parameter.text for parameter in sweep.space.parameters}
    own = {"lock": f"sha256:{sweep.locked}"} if sweep.locked else {}
    tracker.log_params({"command": command()} | varied | own)
    tracker.log_artifact(sweep.folder / "sweep.json", "")
    return parent


def open_own(
    sweep: Sweep, experiment: str, name: str, *, run_id: str | None = None, parent: str | None = None
) -> Record:
    """Opens a record that the sweep itself keeps, where its trials keep theirs."""
    cfg = sweep.cfg
    return open_record(
        cfg.tracking.kind,
        outputs=sweep.outputs,
        uri=cfg.tracking.uri,
        experiment=experiment,
        run_name=name,
        run_id=run_id,
        parent_run_id=parent,
        predictions=False,
    )


def status_of(sweep: Sweep, search: Search) -> str | None:
    """The status of the sweep's run as its folder has it, by whomever it is kept; None where it is not here."""
    known = search.parent
    folders = by_id(sweep.outputs).get(known) if known else None
    state = read_state(folders.run) if folders else None
    return state.status if state else None


def command() -> str:
    """The command line of a sweep, without passwords."""
    return _typed("seg.train", sys.argv[1:])


def plan_command() -> str:
    """The command that plans the study of this command line, without passwords."""
    return _typed("seg.plan", [word for word in sys.argv[1:] if word not in ("-m", "--multirun", "check=true")])


def _typed(verb: str, words: Sequence[str]) -> str:
    return without_passwords(shlex.join(["python", "-m", verb, *words]))


def _intention(sweep: Sweep) -> str:
    """What the sweep is for, in Markdown: its description in MLflow until its summary replaces it."""
    if sweep.study:
        return f"Study **{sweep.name}**: {sweep.study.question}"
    varied = [f"- `{parameter.key}`: {parameter.text}" for parameter in sweep.space.parameters]
    return "\n".join([f"Sweep **{sweep.name}** over", *varied])
