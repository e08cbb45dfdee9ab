"""Figures of a study: forest plots of the differences, and the patients' differences themselves; PNG and SVG.

To the right is always better: the axis of a metric of which less is better runs backwards. What was found is shown by
colour and by shape (colours of Okabe and Ito 2008), so that it survives colour blindness and a grey printer.
"""

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from seg.metrics import METRICS, unit_in
from seg.study.analysis import Analysis, Meta
from seg.study.drawing import BLUE, GREEN, GREY, INK, ORANGE, SAND, new_figure, plain, write
from seg.study.scores import Numbers, Row
from seg.study.sentences import percent, signed, with_ends

COLORS = {"better": BLUE, "worse": ORANGE, "equivalent": GREEN, "inconclusive": GREY, "": GREY}  # "": of one class
SHAPES = {"better": "o", "worse": "s", "equivalent": "D", "inconclusive": "o", "": "|"}
ANCHORS_WIDEN = 3.0  # times that anchors may widen the frame; farther ones are arrows at its edge
CLASSES_DRAWN = 6  # more are in the table only
NAME_LETTERS = 44  # a longer name goes on in the next line
LINE_INCHES, LETTER_INCHES, PANEL_INCHES = 0.16, 0.07, 3.0
LEGEND_INCHES = 8.8  # as wide as the legend may become


def write_figures(analysis: Analysis, folder: Path) -> list[Path]:
    """Writes ``forest`` and ``differences``, each as ``.png`` (150 dpi) and ``.svg``, into ``folder``.

    Returns:
        The files written; none where there is nothing to compare.
    """
    if analysis.comparisons.empty:
        return []
    figures = {"forest": forest(analysis), "differences": differences(analysis)}
    return write({folder / f"{name}.{kind}": figure for name, figure in figures.items() for kind in ("png", "svg")})


def forest(analysis: Analysis) -> Figure:
    """Mean difference and interval of every comparison, one panel per metric, the primary one first.

    Comparisons with the baseline are above those with the previous arm; the second arm's previous is the baseline.
    Below each comparison the same in every class by itself, smaller and without a verdict, where these are few; below
    all of them, the arms against the anchors.
    Where the seed spread of an arm is abnormal, or an anchor far off, the frame fits the others, and an arrow points to
    what is outside it.
    """
    meta, shown = analysis.meta, (analysis, *analysis.anchors.values())
    table = pd.concat([_with_classes(_ordered(one.comparisons), one.class_comparisons) for one in shown])
    primary = table[table["primary"]]
    names = [
        _wrapped(line["class"]) or f"{_pair(line)}\n{_numbers(line, meta.primary)}" for _, line in primary.iterrows()
    ]
    figure, panels, places = _figure(names, panels=table["metric"].nunique())
    place_of = dict(zip((_row(line) for _, line in primary.iterrows()), places, strict=True))
    for panel, (metric, lines) in zip(panels, table.groupby("metric", sort=False), strict=True):
        _frame(panel, str(metric), meta)
        calm = _calm(analysis, lines)
        frame = _ends([], calm)
        if len(calm) < len(lines):
            panel.set_xlim(*sorted(frame, reverse=METRICS[str(metric)].better < 0))
        for _, line in lines.iterrows():  # fewer than places where an anchor lacks the metric
            place = place_of[_row(line)]
            _interval(panel, place, line)
            if len(calm) < len(lines):
                _beyond(panel, place, np.array([line["ci_low"], line["ci_high"]]), frame, COLORS[line["verdict"]])
        secondary = "" if metric == meta.primary else " (secondary)"
        panel.set_title(f"{METRICS[str(metric)].label}{secondary}", fontsize=10, fontweight="bold")
    note = "; thin: each class by itself, without a verdict" if (table["class"] != "").any() else ""
    if analysis.anchors:
        note += f"\nexploratory, of one training each: {', '.join(analysis.anchors)}"
    _legend(figure, analysis, set(table["verdict"]), note)
    return figure


def differences(analysis: Analysis) -> Figure:
    """Each patient's difference to the baseline by the primary metric: points, box, mean with its interval.

    Without the baseline, to the previous arm. Points beyond the frame are triangles at its edge.
    """
    metric, table = analysis.meta.primary, _ordered(analysis.comparisons)
    lines = table[table["primary"]]
    first = lines["kind"].str.contains("baseline")
    lines = lines[first] if first.any() else lines
    names = [
        f"{_pair(line)}\n{line['wins']} better, {line['losses']} worse"
        + (f", {line['ties']} equal" if line["ties"] else "")
        for _, line in lines.iterrows()
    ]
    figure, (panel,), places = _figure(names, panels=1, least=0.5)
    wide = analysis.patients.query("metric == @metric").pivot(index="arm", columns="patient", values="value")
    paired = [(wide.loc[line["arm"]] - wide.loc[line["against"]]).to_numpy(float) for _, line in lines.iterrows()]
    _frame(panel, metric, analysis.meta)
    calm = _calm(analysis, lines)
    ends = _ends([gains for gains, label in zip(paired, lines.index, strict=True) if label in calm.index], calm)
    panel.set_xlim(*sorted(ends, reverse=METRICS[metric].better < 0))
    for place, gains, (_, line) in zip(places, paired, lines.iterrows(), strict=True):
        _patients(panel, place, gains, ends, COLORS[line["verdict"]])
        panel.plot([line["ci_low"], line["ci_high"]], [place, place], color=INK, lw=2.5, zorder=5)
        panel.plot(line["difference"], place, SHAPES[line["verdict"]], color=INK, ms=6, zorder=5)
    title = f"{METRICS[metric].label}: difference in each of {len(paired[0])} patients"
    panel.set_title(title, fontsize=10, fontweight="bold")
    _legend(figure, analysis, set(lines["verdict"]), "; box: quartiles; whiskers: 5 to 95 %; black: mean and interval")
    return figure


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    """The comparisons with the baseline first, those with the previous arm after them."""
    return table.sort_values("kind", key=lambda kind: ~kind.str.contains("baseline"), kind="stable")


def _with_classes(table: pd.DataFrame, classes: pd.DataFrame) -> pd.DataFrame:
    """Behind each comparison those of its classes, in ``class``; of the mean over them ``class`` is empty."""
    table = table.assign(**{"class": ""})
    if classes["class"].nunique() > CLASSES_DRAWN:
        return table
    keys = ["metric", "arm", "against"]
    order = table[keys].assign(place=range(len(table)))
    below = classes.merge(order, on=keys).assign(verdict="")
    both = pd.concat([table.assign(place=order["place"]), below], ignore_index=True)
    return both.sort_values("place", kind="stable", ignore_index=True)


def _row(line: Row) -> tuple[str, str, str]:
    """What has a row of its own in each panel."""
    return str(line["arm"]), str(line["against"]), str(line["class"])


def _pair(line: Row) -> str:
    return _wrapped(f"{line['arm']} – {line['against']}")


def _numbers(line: Row, metric: str) -> str:
    return f"{with_ends(line['difference'], line['ci_low'], line['ci_high'], metric, signed)}  {line['verdict']}"


def _figure(names: Sequence[str], *, panels: int, least: float = 0.0) -> tuple[Figure, list[Axes], list[float]]:
    """Panels side by side, a row per name, which is at the left.

    Returns:
        The figure, its panels, and the places of the rows in inches from the top, each ``least`` inches high or more.
    """
    heights = np.array([max(least, LINE_INCHES * (name.count("\n") + 1) + 0.1) for name in names])
    letters = max(len(part) for name in names for part in name.split("\n"))
    width = max(0.6 + LETTER_INCHES * letters + panels * PANEL_INCHES, LEGEND_INCHES)
    figure = new_figure(width, heights.sum() + 1.9)
    axes = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
    places = (np.cumsum(heights) - heights / 2).tolist()
    axes[0].set_ylim(heights.sum(), 0)
    axes[0].set_yticks(places, names, fontsize=8, color=INK, parse_math=False)
    return figure, list(axes), places


def _wrapped(name: str) -> str:
    """Broken after spaces, hyphens and underscores, or anywhere if need be."""
    lines = wrap(name.replace("_", "_ "), NAME_LETTERS)
    return "\n".join(line.replace("_ ", "_") for line in lines)


def _frame(panel: Axes, metric: str, meta: Meta) -> None:
    if (margin := meta.margins.get(metric)) is not None:
        panel.axvspan(-margin, margin, color=SAND, lw=0, zorder=0)
    panel.axvline(0, color=INK, lw=0.8, zorder=1)
    unit = f" in {unit_in(METRICS[metric].unit, meta.lengths)}" if METRICS[metric].unit else ""
    panel.set_xlabel(f"difference{unit}, better →", fontsize=9)
    panel.xaxis.set_major_locator(MaxNLocator(5))
    panel.tick_params(axis="x", labelsize=8)
    plain(panel, axis="x")
    panel.tick_params(axis="y", length=0, pad=8)
    if METRICS[metric].better < 0 and not panel.xaxis_inverted():
        panel.invert_xaxis()


def _interval(panel: Axes, place: float, line: Row) -> None:
    verdict, ends = line["verdict"], [line["ci_low"], line["ci_high"]]
    color, width = COLORS[verdict], 1.8 if verdict else 0.9
    panel.plot(ends, [place, place], color=color, lw=width, solid_capstyle="butt", zorder=2)
    panel.plot(line["difference"], place, SHAPES[verdict], color=color, mfc=_face(verdict), ms=6, mew=1.5, zorder=3)


def _calm(analysis: Analysis, lines: pd.DataFrame) -> pd.DataFrame:
    """The comparisons of one metric that the frame must fit.

    Without an arm whose seed spread is abnormal, unless none is left; with anchors only where they are not far off.
    """
    planned = lines[~lines["against"].isin(analysis.anchors)]
    if len(planned) < len(lines):
        near, far = (np.ptp(_ends([], some)) for some in (planned, lines))
        lines = lines if far <= ANCHORS_WIDEN * near else planned
    arms = analysis.arms[(analysis.arms["metric"] == lines["metric"].iloc[0]) & analysis.arms["abnormal"]]["arm"]
    calm = lines[~(lines["arm"].isin(arms) | lines["against"].isin(arms))]
    return calm if len(calm) else lines


def _ends(paired: Sequence[Numbers], lines: pd.DataFrame) -> tuple[float, float]:
    """The frame: 99 % of all points, every interval and 0, and a little more."""
    inner: Numbers = np.quantile(np.concatenate([[0.0], *paired]), [0.005, 0.995])
    every = [*inner, 0.0, lines["ci_low"].min(), lines["ci_high"].max()]
    low, high = min(every), max(every)
    room = 0.06 * (high - low) or 1.0
    return float(low - room), float(high + room)


def _patients(panel: Axes, place: float, gains: Numbers, ends: tuple[float, float], color: str) -> None:
    heights = place + np.random.default_rng(0).uniform(-0.15, 0.15, len(gains))
    low, high = ends
    inside = (gains > low) & (gains < high)
    panel.plot(gains[inside], heights[inside], "o", color=color, alpha=0.45, ms=3, mew=0, zorder=2)
    _beyond(panel, heights, gains, ends, color, alpha=0.45)
    lines = {"color": INK, "lw": 1.0}
    panel.boxplot(
        [gains], positions=[place], orientation="horizontal", widths=0.22, whis=(5, 95), showfliers=False,
        manage_ticks=False, boxprops=lines, whiskerprops=lines, capprops=lines, medianprops=lines, zorder=4,
    )  # fmt: skip


def _beyond(
    panel: Axes, place: float | Numbers, values: Numbers, ends: tuple[float, float], color: str, alpha: float = 1.0
) -> None:
    """Triangles at the edges of the frame for the values outside it."""
    heights = np.broadcast_to(place, values.shape)
    for edge in ends:
        outside = values <= edge if edge == ends[0] else values >= edge
        if not outside.any():
            continue
        marker = "<" if (edge == ends[0]) != panel.xaxis_inverted() else ">"
        panel.plot(
            np.full(outside.sum(), edge), heights[outside], marker=marker, ms=6, mew=0, ls="", color=color,
            alpha=alpha, zorder=6, clip_on=False,
        )  # fmt: skip


def _legend(figure: Figure, analysis: Analysis, found: set[str], note: str = "") -> None:
    """Below: what colours and shapes of the verdicts mean, the band, and how surely."""
    meta = analysis.meta
    handles: list[Artist] = [
        Line2D([], [], color=color, marker=SHAPES[name], lw=1.8, label=name, ms=6, mfc=_face(name), mew=1.5)
        for name, color in COLORS.items()
        if name and name in found
    ]
    handles += [Patch(color=SAND, label="margin of equivalence")] * (meta.primary in meta.margins)
    among = f"among {meta.family} comparisons" if meta.family > 1 else "of one comparison"
    title = f"{percent(1 - meta.alpha)} intervals over {meta.drawn}; verdicts {among} (Holm){note}"
    notice = wrap(meta.notice, int(figure.get_figwidth() / LETTER_INCHES))
    title = "\n".join([*notice, title])
    figure.legend(
        handles=handles, loc="outside lower left", ncols=len(handles), frameon=False, fontsize=8, title=title,
        title_fontsize=8, alignment="left",
    )  # fmt: skip


def _face(verdict: str) -> str:
    return "white" if verdict == "inconclusive" else COLORS[verdict]
