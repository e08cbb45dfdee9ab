"""Pictures of a sweep, drawn by Optuna: a PNG each, and one page with all of them that needs no network."""

import html
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from seg.files import atomic, atomic_write
from seg.sweep import rows
from seg.sweep.samplers import quiet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

log = logging.getLogger(__name__)

_FEWEST = 4  # trials of which something can be said
_WIDE = 50  # times the smallest value is the greatest: such an axis is logarithmic
_COLORS = {"finished": "#0072B2", "pruned": "#D55E00"}  # told apart by colour-blind readers (Okabe and Ito 2008)


def drawable(trials: Sequence[FrozenTrial], objectives: Sequence[str], directions: Sequence[str]) -> Any:
    """A study in memory with the same trials, which has as parameters what a grid varied, too.

    Texts become numbers where all of a key are, so that they stand in order on an axis.
    """
    study = optuna.create_study(directions=directions)
    with quiet():
        study.set_metric_names(list(objectives))
    ended = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    among = _distributions(ended)
    for trial in trials:
        if trial not in ended:
            study.add_trial(create_trial(state=TrialState.FAIL))  # is not drawn, but later ones keep their numbers
            continue
        params = {key: _plain(value, among[key]) for key, value in rows.params(trial).items()}
        copy = create_trial(
            state=trial.state,
            values=trial.values,
            params=params,
            distributions={key: among[key] for key in params},
            intermediate_values=trial.intermediate_values,
        )
        study.add_trial(copy)
    return study


def _distributions(trials: Sequence[FrozenTrial]) -> dict[str, Any]:
    seen: dict[str, dict[Any, None]] = {}
    known: dict[str, Any] = {}
    for trial in trials:
        known |= trial.distributions
        for key, value in rows.params(trial).items():
            seen.setdefault(key, {})[value] = None
    return {key: _distribution(list(values), known.get(key)) for key, values in seen.items()}


def _distribution(values: Sequence[Any], known: Any) -> Any:
    if known is not None and not isinstance(known, CategoricalDistribution):
        return known
    try:
        low, *_, high = sorted(float(value) for value in values)
    except ValueError:  # texts, or only one of them
        return known or CategoricalDistribution(values)
    return FloatDistribution(low, high, log=low > 0 and low * _WIDE <= high)


def _plain(value: Any, among: Any) -> Any:
    return value if isinstance(among, CategoricalDistribution) else float(value)


def importances(study: Any) -> dict[str, float]:
    """The share of each parameter in what made the best trials the best; empty where that cannot be said."""
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    alike = len({tuple(trial.values) for trial in finished}) == 1
    if len(finished) < _FEWEST or alike or not any(trial.params for trial in finished):
        return {}
    try:
        shares: dict[str, float] = optuna.importance.get_param_importances(study, evaluator=_evaluator())
    except Exception as error:  # as below: the sweep's tables must not wait for it
        log.warning("the importance of the parameters could not be found: %s", error)
        return {}
    return shares


def _evaluator() -> Any:
    from optuna.importance import BaseImportanceEvaluator, PedAnovaImportanceEvaluator  # takes scikit-learn's seconds

    class Reaching(BaseImportanceEvaluator):  # type: ignore[misc]
        """How much each parameter matters for being among the best, or near the Pareto front (PED-ANOVA, 2023).

        Optuna compares the best tenth with all; where that is fewer than five trials, it is the best five here, or
        half. And it would weigh each of several objectives by itself, as if all were to be minimised.
        """

        def evaluate(self, study: Any, params: Any = None, *, target: Any = None) -> Any:
            count = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
            best = max(0.1, min(0.5, 5 / count))
            with quiet(UserWarning):  # that of some parameters there are few trials
                return PedAnovaImportanceEvaluator(target_quantile=best).evaluate(study, params)

    return Reaching()


def draw(study: Any, folder: Path, title: str) -> list[Path]:
    """Draws every plot that there are enough trials for.

    Args:
        study: made by ``drawable``.
        folder: for the files.
        title: of the page.

    Returns:
        The files written.
    """
    import matplotlib.pyplot as plt
    from optuna import visualization
    from plotly.io import to_html
    from plotly.offline import get_plotlyjs

    plt.switch_backend("agg")  # no window
    written, sections = [], []
    for name, kind, options in _plots(study):
        path = folder / f"{name}.png"
        try:
            with quiet(UserWarning), plt.style.context("default"):
                axes = getattr(visualization.matplotlib, kind)(study, **options)
                _write(_mended(name, study, axes), path)
            figure = getattr(visualization, kind)(study, **options)
            if name == "intermediate_values":
                _color_curves(study, figure)
            sections.append(to_html(figure, include_plotlyjs=False, full_html=False, default_height="500px"))
            written.append(path)
        except Exception as error:  # one plot less is no reason to lose the others, let alone the sweep
            log.warning("%s could not be drawn: %s", path.name, error)
        finally:
            plt.close("all")
    if sections:
        atomic_write(folder / "plots.html", _page(title, get_plotlyjs(), sections))
        written.append(folder / "plots.html")
    return written


def _plots(study: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, Optuna's function and its options of each plot that can be drawn."""
    trials = study.get_trials(deepcopy=False)
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    names = study.metric_names
    if not finished:
        log.info("no plots: no trial has finished")
        return
    varied = len(finished) > 1 and any(trial.params for trial in finished)
    for place, objective in enumerate(names):
        own = {"target": lambda trial, place=place: trial.values[place], "target_name": objective}
        options = own if len(names) > 1 else {"target_name": objective}
        suffix = f"_{re.sub('[^0-9A-Za-z_]', '_', objective)}" if len(names) > 1 else ""
        yield f"history{suffix}", "plot_optimization_history", options
        if varied:
            yield f"slice{suffix}", "plot_slice", options
    if importances(study):
        best = {"target": lambda trial: trial.values[0], "target_name": "share in the best trials"}
        yield "importances", "plot_param_importances", {"evaluator": _evaluator(), **best}
    if varied:
        yield "parallel_coordinate", "plot_parallel_coordinate", {} if len(names) > 1 else {"target_name": names[0]}
    else:
        log.info("no plots of the parameters: fewer than two trials finished, or nothing varied")
    if len(names) == 1 and any(trial.intermediate_values for trial in trials):
        yield "intermediate_values", "plot_intermediate_values", {}
    if len(names) in (2, 3):
        yield "pareto_front", "plot_pareto_front", {}


def _mended(name: str, study: Any, axes: Any) -> Any:
    """The figure of ``axes``, as readable with many trials and long names as with few."""
    import numpy as np

    panels: list[Axes] = list(np.atleast_1d(axes).flat)
    figure: Any = panels[0].figure
    figure.set_size_inches(8, 5)
    if name.startswith("slice"):
        _mend_slices(study, figure, panels)
    elif name == "parallel_coordinate":
        _mend_parallel(figure, panels[0])
    elif name == "intermediate_values":
        _mend_curves(study, panels[0])
    elif name == "importances":
        panels[0].set_title("", loc="left")
        panels[0].set(xlabel="share in what made the best trials the best", ylabel="")
        panels[0].legend_ = None
    elif name == "pareto_front" and len(study.directions) == 2:
        for trial in study.best_trials:
            panels[0].annotate(f" {trial.number}", trial.values, va="bottom", fontsize=8)
    return figure


def _mend_slices(study: Any, figure: Any, panels: "Sequence[Axes]") -> None:
    figure.set_size_inches(2 + 2.6 * len(panels), 5)
    figure.suptitle("")
    last = max(trial.number for trial in study.get_trials(deepcopy=False))
    for panel in panels:
        for points in panel.collections:
            points.set_clim(0, last)  # one colour a trial in all panels; the colour bar is the last one's
        texts = [label.get_text() for label in panel.get_xticklabels()]
        if any(text.startswith("'") for text in texts):  # choices, which Optuna writes with quotes
            panel.set_xticks(panel.get_xticks(), [text.strip("'") for text in texts], rotation=40, ha="right")


def _mend_parallel(figure: Any, panel: "Axes") -> None:
    from matplotlib.ticker import ScalarFormatter

    figure.set_size_inches(3 + 1.6 * len(panel.get_xticks()), 6)
    for axes in figure.axes:
        if isinstance(axes.yaxis.get_major_formatter(), ScalarFormatter):
            axes.yaxis.set_major_formatter("{x:.3g}")  # not a power of ten apart from its axis
        for label in axes.get_yticklabels():  # over the lines
            label.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1})


def _mend_curves(study: Any, panel: "Axes") -> None:
    """Finished and pruned trials in a colour each; with one a trial, no two of many can be told apart."""
    from matplotlib.lines import Line2D

    states = _states(study)
    for line in panel.get_lines():
        state = states[str(line.get_label())]
        line.set(color=_COLORS[state], zorder=2 if state == "finished" else 3, alpha=0.5)
    keys = [Line2D([], [], color=color, label=state) for state, color in _COLORS.items()]
    panel.legend(handles=keys)
    panel.set_ylabel(study.metric_names[0])


def _states(study: Any) -> dict[str, str]:
    """By the names that Optuna gives to curves."""
    return {f"Trial{trial.number}": rows.STATES[trial.state.name] for trial in study.get_trials(deepcopy=False)}


def _color_curves(study: Any, figure: Any) -> None:
    """The same for the page, where the pointer tells which trial a curve is."""
    states = _states(study)
    for trace in figure.data:
        state = states[trace.name]
        trace.update(line_color=_COLORS[state], marker_color=_COLORS[state], opacity=0.6, name=f"{trace.name} {state}")
    figure.update_yaxes(title=study.metric_names[0])


def _write(figure: Any, path: Path) -> None:
    with atomic(path) as draft:
        figure.savefig(draft, dpi=120, bbox_inches="tight")


def _page(title: str, script: str, sections: Sequence[str]) -> str:
    title = html.escape(f"Sweep {title}")
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title>\n'
        f"<script>{script}</script>\n<style>body {{ font-family: sans-serif; margin: 2em }} "
        f"section {{ overflow-x: auto }}</style></head>\n<body>\n<h1>{title}</h1>\n"
        + "".join(f"<section>{section}</section>\n" for section in sections)
        + "</body>\n</html>\n"
    )
