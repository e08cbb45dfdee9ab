"""What came out of a sweep: its summary in Markdown, its best trial as a recipe, its plots as a page."""

import html
import logging
import shlex
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import optuna
import pandas as pd
from omegaconf import OmegaConf
from optuna.trial import TrialState

from seg.config.content import keyed
from seg.errors import counted
from seg.records.folder import by_id, place_given
from seg.study.typeset import Cell, Table, markdown
from seg.sweep.definition import Sweep
from seg.sweep.search import Search

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

log = logging.getLogger(__name__)
_DROPPED = ("paths", "tracking", "check", "resume", "arm", "allow_targets")  # of a configuration: not what made it win
_FEWEST = 4  # trials that allow a statement


def summary(sweep: Sweep, search: Search, frame: pd.DataFrame, again: bool) -> str:
    """The sweep in Markdown: what ran, the best trials, what mattered, what failed.

    Args:
        sweep: as it was asked for.
        search: with its trials.
        frame: these as a table.
        again: whether the best trial is kept as ``experiments/best.yaml``.
    """
    lines = _counted(f"Sweep {sweep.name}", frame)
    names, done = list(sweep.goal.objectives), frame[frame["state"] == "finished"]
    columns = [*names, *frame.attrs["parameters"]]
    if len(names) > 1:
        lines += [_table("Pareto front", search.best(), columns)]
    elif len(done):
        ranked = done.sort_values(names[0], ascending=sweep.goal.directions[0] == "minimize").head(10)
        lines += [_table(f"Best by {names[0]}", ranked, columns)]
    if shares := importances(search.study):
        lines += ["### Importance of the parameters", ""]
        lines += [f"- {key}: {share:.2f}" for key, share in shares.items()] + [""]
    lines += _failed(frame)
    if again:
        where = shlex.quote(str(sweep.folder))
        if sweep.goal.n_trials:
            command = f"python -m seg.score run={search.best().iloc[0]['run_id'][:8]}"
            lines += [f"To test the best trial, once: `{command}{place_given(sweep.outputs)}`", ""]
        lines += [f"To train it again: `python -m seg.train --config-dir {where} experiments=best`", ""]
    return "\n".join(lines)


def study_summary(sweep: Sweep, frame: pd.DataFrame) -> str:
    """A study's runs in Markdown; no best one, for what they say together is in the report."""
    assert sweep.study is not None
    command = f"python -m seg.report study={sweep.name}{place_given(sweep.outputs)}"
    done = set(frame.loc[frame["state"] == "finished", "arm"])
    if sweep.study.arms[0].name in done and len(done) > 1:
        message = f"What it found: report.html and table.md, beside this file. To make them again: `{command}`"
    else:
        message = "There is nothing to compare so far: the baseline and another arm must have finished. "
        message += f"Then `{command}` makes report.html and table.md beside this file."
    return "\n".join([*_counted(f"Study {sweep.name}", frame), *_failed(frame), message, ""])


def _counted(title: str, frame: pd.DataFrame) -> list[str]:
    counts = frame["state"].value_counts()
    listed = ", ".join(f"{count} {state}" for state, count in counts.items())
    return [f"# {title}", "", f"{counted(len(frame), 'trial')}: {listed}.", ""]


def _failed(frame: pd.DataFrame) -> list[str]:
    failed = frame[frame["state"] == "failed"]
    lines = [f"- trial {row.number}: {row.error}" for row in failed.itertuples()]
    return ["### Failed", "", *lines, ""] if lines else []


def _table(title: str, frame: pd.DataFrame, columns: Sequence[str]) -> str:
    """Trials in Markdown; numbers with four digits."""
    rows = [
        [Cell(str(row["number"])), *(Cell(_text(row[column])) for column in columns), Cell(str(row["run_id"])[:8])]
        for row in frame.to_dict("records")
    ]
    return markdown(Table(title, ["trial", *columns, "run"], {"": rows}, ""))


def _text(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return "–" if pd.isna(value) else f"{value:.4g}"


def best_recipe(sweep: Sweep, search: Search) -> str | None:
    """A file for ``experiments/`` that runs the best trial again: the options it chose, and every value."""
    best = search.best()
    if best.empty:
        return None
    winner = best.iloc[0]
    if (run := by_id(sweep.outputs).get(str(winner["run_id"]))) is None:  # of another machine
        return None
    params = {key: winner[key] for key in best.attrs["parameters"] if pd.notna(winner[key])}
    chosen = sweep.choices(sweep.overrides(params))
    values: dict[str, Any] = keyed(OmegaConf.to_container(run.read_config()))
    content = {key: value for key, value in values.items() if key not in _DROPPED}
    if content["inference"]["part"] == "none":  # of a search, whose trials are not tested
        content["inference"]["part"] = "test"
    scores = ", ".join(f"{name} {winner[name]:.4g}" for name in sweep.goal.objectives)
    head = f"# @package _global_\n# Trial {winner['number']} of the sweep {sweep.name}: {scores}, run {run.run.name}.\n"
    overrides = [{f"override /{group}": option} for group, option in chosen.items() if group not in _DROPPED]
    return head + OmegaConf.to_yaml(OmegaConf.create({"defaults": overrides} | content))


def importances(study: optuna.Study) -> dict[str, float]:
    """How much each parameter matters for being among the best trials; empty where there are too few.

    By PED-ANOVA (Watanabe et al. 2023), which compares the best tenth of the trials with all; where that is fewer than
    five, the best five, or half.
    """
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    values = {tuple(trial.values) for trial in finished}
    if len(finished) < _FEWEST or len(values) == 1 or len(study.directions) > 1:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=max(0.1, min(0.5, 5 / len(finished))))
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # that of some there are few trials
            return optuna.importance.get_param_importances(study, evaluator=evaluator)
    except Exception as error:  # the sweep's tables must not wait for it
        log.warning("the importance of the parameters could not be found: %s", error)
        return {}


def draw(search: Search, title: str) -> str:
    """Optuna's plots of a sweep as one page that needs no network; empty where there is nothing to draw."""
    from plotly.io import to_html

    sections = list[str]()
    for plot in _plots(search.study):
        try:
            with warnings.catch_warnings(action="ignore"):
                figure = plot(search.study)
            sections.append(to_html(figure, include_plotlyjs=not sections, full_html=False, default_height="500px"))
        except Exception as error:  # one plot less is no reason to lose the others, let alone the sweep
            log.warning("%s could not be drawn: %s", plot.__name__, error)
    if not sections:
        return ""
    title = html.escape(f"Sweep {title}")
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title>\n'
        f"<style>body {{ font-family: sans-serif; margin: 2em }} "
        f"section {{ overflow-x: auto }}</style></head>\n<body>\n<h1>{title}</h1>\n"
        + "".join(f"<section>{section}</section>\n" for section in sections)
        + "</body>\n</html>\n"
    )


def _plots(study: optuna.Study) -> Iterator[Callable[[optuna.Study], "Figure"]]:
    from optuna import visualization

    trials = study.get_trials(deepcopy=False)
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if len(study.directions) > 1:
        if finished and len(study.directions) < 4:
            yield visualization.plot_pareto_front
        return
    if finished:
        yield visualization.plot_optimization_history
    if len(finished) > 1 and any(trial.params for trial in finished):
        yield visualization.plot_slice
        yield visualization.plot_parallel_coordinate
    if any(trial.intermediate_values for trial in trials):
        yield visualization.plot_intermediate_values
