"""The sweep's own run: what was asked, how it goes, what came out."""

import logging
import shlex
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from seg.engine.console import print_lines
from seg.errors import ConfigError, InterruptedRunError, without_passwords
from seg.files import atomic_write
from seg.pages.study import report
from seg.records.folder import RunFolders, find, read_state
from seg.records.mlflow import NOTE
from seg.records.provenance import common_tags
from seg.records.record import Tracker, open_tracker
from seg.study.question import Asked
from seg.sweep.ledger import Ledger
from seg.sweep.plan import Plan

log = logging.getLogger(__name__)
_DROPPED = ("paths", "tracking", "check", "resume", "arm")  # of a winner's configuration: not what made it win


@dataclass
class Parent:
    """The record of a sweep."""

    plan: Plan
    tracker: Tracker
    lock: threading.Lock = field(default_factory=threading.Lock)

    def progress(self, ledger: Ledger) -> None:
        """Tells how many trials ended how, and the best so far."""
        with self.lock:
            frame = ledger.frame()
            counts = frame["state"].value_counts()
            metrics = {state: float(counts.get(state, 0)) for state in ("finished", "pruned", "failed")}
            ended = int(sum(metrics.values()))
            tags: dict[str, Any] = {}
            ranked = self.plan.study is None and len(self.plan.objectives) == 1
            if ranked and len(best := ledger.best()) == 1:
                (winner,) = best.to_dict("records")
                metrics[f"best_{self.plan.objectives[0]}"] = winner[self.plan.objectives[0]]
                tags = {"best.run_id": winner["run_id"], "best.trial": winner["number"]}
                tags |= {f"best.{key}": _known(winner[key]) for key in parameters(frame)}
            self.tracker.log_metrics(metrics, step=ended)
            self.tracker.set_tags(tags)

    def conclude(self, ledger: Ledger) -> None:
        """Writes what came out into the sweep's folder and the record: a study's report, else plots and the winner."""
        folder, frame, written = self.plan.folder, ledger.frame(), []
        again = None if self.plan.study else winners_options(self.plan, ledger)
        if again is not None:
            atomic_write(folder / "experiments/best.yaml", again)
            written.append(folder / "experiments/best.yaml")
        said = study_summary(self.plan, frame) if self.plan.study else summary(self.plan, ledger, frame, bool(again))
        atomic_write(folder / "trials.csv", frame.to_csv(index=False))
        atomic_write(folder / "summary.md", said)
        written += [folder / "trials.csv", folder / "summary.md"]
        if self.plan.study:
            said, files = report(folder, Path(self.plan.cfg.paths.outputs), self.plan.cfg.tracking.uri)
            written += files
        else:
            written += ledger.plots(folder / "plots")
        for path in written:
            self.tracker.log_artifact(path, "plots" if path.parent.name == "plots" else "")
        self.tracker.set_tags({NOTE: said})
        print(f"\n{said}")
        print_lines(self.tracker.look)

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Gives the record its last state."""
        state, reason = "FAILED", ""
        try:
            yield
            state = "FINISHED"
        except (InterruptedRunError, KeyboardInterrupt, SystemExit):
            state = "KILLED"
            raise
        except BaseException as error:
            reason = without_passwords(str(error))
            raise
        finally:
            with suppress(OSError):  # a full disk must not keep the state from being told
                self.tracker.log_artifact(self.plan.folder / "log.txt", "")
            self.tracker.finish(state, reason)


def open_parent(plan: Plan, ledger: Ledger, experiment: str, arguments: Sequence[str]) -> Parent | None:
    """Opens the sweep's run, the same one whenever it goes on; None where another machine keeps it."""
    cfg, outputs = plan.cfg, Path(plan.cfg.paths.outputs)
    if plan.study:
        _keep_question(plan)
    known = ledger.parent
    if known and _found(outputs, known) is None:
        return None
    tracker = open_tracker(
        cfg.tracking.kind,
        outputs=outputs,
        uri=cfg.tracking.uri,
        experiment=experiment,
        run_name=plan.name,
        run_id=known,
        predictions=False,
    )
    folders = tracker.folders
    log.info("The sweep is recorded in %s", tracker.place)
    parent = Parent(plan, tracker)
    if ledger.set_parent_once(tracker.run_id) != tracker.run_id:
        tracker.finish("KILLED")  # another machine was first
        return None
    tags = common_tags() | {"experiment_type": "sweep", "sweep": plan.name, "study": cfg.study}
    tags |= {"run_id": folders.run_id, "run_id_short": folders.short, NOTE: _intention(plan)}
    tracker.set_tags(tags | dict(cfg.tracking.tags))
    tracker.log_params({"command": command(arguments)} | {f"sweep.{key}": value for key, value in _asked(plan).items()})
    tracker.log_artifact(plan.folder / "sweep.json", "")
    return parent


def unfinished(plan: Plan, ledger: Ledger) -> bool:
    """Whether the sweep's run lies here and has not finished, by whomever it is kept."""
    known = ledger.parent
    folders = _found(Path(plan.cfg.paths.outputs), known) if known else None
    state = read_state(folders.run) if folders else None
    return state is not None and state.status != "FINISHED"


def _keep_question(plan: Plan) -> None:
    """Keeps what a study asks where its report will be made."""
    assert plan.study is not None
    study = plan.study
    Asked(
        name=study.name,
        sweep=plan.name,
        question=study.question,
        arms=tuple(arm.name for arm in study.arms),
        different=plan.different,
        factors={factor: {arm.name: arm.levels[n] for arm in study.arms} for n, factor in enumerate(study.factors)},
        against=study.against,
        margin=study.margin,
        runs=len(plan.jobs),
    ).write(plan.folder)


def _found(outputs: Path, run_id: str) -> RunFolders | None:
    """The folders of a run; None where another machine has them."""
    try:
        return find(outputs, run_id)
    except ConfigError:
        return None


def command(arguments: Sequence[str]) -> str:
    """The command line of a sweep, without passwords."""
    words = sys.argv[1:] if sys.argv[1:] else ["-m", *arguments]
    return without_passwords(shlex.join(["python", "-m", "seg.train", *words]))


def _intention(plan: Plan) -> str:
    """What the sweep is for, in Markdown: its description in MLflow until its summary takes the place."""
    if plan.study:
        return f"Study **{plan.name}**: {plan.study.question}"
    return "\n".join([f"Sweep **{plan.name}** over", *(f"- `{key}`: {values}" for key, values in _asked(plan).items())])


def _asked(plan: Plan) -> dict[str, Any]:
    """What the sweep varies, for its parameters in MLflow."""
    if plan.space is None:
        jobs = pd.DataFrame([job.params for job in plan.jobs])
        return {key: ",".join(dict.fromkeys(jobs[key])) for key in jobs}
    return {parameter.key: str(parameter) for parameter in plan.space.parameters}


def parameters(frame: pd.DataFrame) -> list[str]:
    """The columns of a ledger's table that hold what was varied."""
    return [str(column) for column in frame.attrs["parameters"]]


def summary(plan: Plan, ledger: Ledger, frame: pd.DataFrame, again: bool) -> str:
    """The sweep in Markdown: what ran, the best trials, what mattered, what failed.

    Args:
        plan: of the sweep.
        ledger: of its trials.
        frame: the ledger's.
        again: whether the winner's options are kept as ``experiments/best.yaml``.
    """
    lines = _counted(f"Sweep {plan.name}", frame)
    names, done = list(plan.objectives), frame[frame["state"] == "finished"]
    if len(names) > 1:
        lines += ["## Pareto front", "", _table(ledger.best(), [*names, *parameters(frame)]), ""]
    elif len(done):
        ranked = done.sort_values(names[0], ascending=plan.directions[0] == "minimize").head(10)
        lines += [f"## Best by {names[0]}", "", _table(ranked, [*names, *parameters(frame)]), ""]
    if importances := ledger.importances():
        lines += ["## Importance of the parameters", ""]
        lines += [f"- {key}: {share:.2f}" for key, share in importances.items()] + [""]
    lines += _failed(frame)
    if again:
        where = shlex.quote(str(plan.folder))
        lines += [f"The winner again: `python -m seg.train --config-dir {where} experiments=best`", ""]
    return "\n".join(lines)


def study_summary(plan: Plan, frame: pd.DataFrame) -> str:
    """A study's runs in Markdown; no best one, for what they say together stands in the report."""
    assert plan.study is not None
    command = f"python -m seg.report study={plan.name}"
    if (outputs := str(plan.cfg.paths.outputs)) != "outputs":
        command += f" {shlex.quote(f'paths.outputs={outputs}')}"
    done = set(frame.loc[frame["state"] == "finished", "arm"])
    if plan.study.arms[0].name in done and len(done) > 1:
        said = f"What it found: report.html and table.md, beside this file. To make them again: `{command}`"
    else:
        said = "There is nothing to compare so far: the baseline and another arm must have finished. "
        said += f"Then `{command}` makes report.html and table.md beside this file."
    return "\n".join([*_counted(f"Study {plan.name}", frame), *_failed(frame), said, ""])


def _counted(title: str, frame: pd.DataFrame) -> list[str]:
    counts = frame["state"].value_counts()
    said = ", ".join(f"{counts[state]} {state}" for state in counts.index)
    return [f"# {title}", "", f"{len(frame)} trials: {said}.", ""]


def _failed(frame: pd.DataFrame) -> list[str]:
    failed = frame[frame["state"] == "failed"]
    lines = [f"- trial {row.number}: {row.error}" for row in failed.itertuples()]
    return ["## Failed", "", *lines, ""] if lines else []


def _table(frame: pd.DataFrame, columns: Sequence[str]) -> str:
    """A Markdown table of trials; numbers with four digits."""
    head = ["trial", *columns, "run"]
    rows = [
        [
            str(row["number"]),
            *(_text(row[column]) for column in columns),
            ", ".join(i[:8] for i in str(row["run_id"]).split(",")),
        ]
        for row in frame.to_dict("records")
    ]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


def _known(value: Any) -> Any:
    """A parameter's value; – where the trial was not asked for it."""
    return value if pd.notna(value) else "–"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "–" if pd.isna(value) else f"{value:.4g}"
    return str(value).replace("|", "\\|")


def winners_options(plan: Plan, ledger: Ledger) -> str | None:
    """A file for ``experiments/`` that runs the best trial again: the options it chose, and every value."""
    best = ledger.best()
    if best.empty:
        return None
    winner = best.iloc[0]
    outputs, run_id = Path(plan.cfg.paths.outputs), str(winner["run_id"]).split(",")[0]
    if (folders := _found(outputs, run_id)) is None:  # a child of another machine
        return None
    run = folders.run
    chosen = plan.choices(winner["overrides"])
    values = OmegaConf.to_container(OmegaConf.load(run / "config" / "config.yaml"))
    assert isinstance(values, dict)
    content = {key: value for key, value in values.items() if key not in _DROPPED}
    scores = ", ".join(f"{name} {winner[name]:.4g}" for name in plan.objectives)
    head = f"# @package _global_\n# Trial {winner['number']} of the sweep {plan.name}: {scores}, run {run.name}.\n"
    overrides = [{f"override /{group}": option} for group, option in chosen.items() if group not in _DROPPED]
    return head + OmegaConf.to_yaml(OmegaConf.create({"defaults": overrides} | content))
