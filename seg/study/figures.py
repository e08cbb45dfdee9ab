"""Figures of a study: forest plots of the differences, and the patients' differences themselves; PNG and SVG.

To the right is always better: the axis of a metric of which less is better runs backwards. What was found is shown by
colour and by shape (colours of Okabe and Ito 2008), so that it survives colour blindness and a grey printer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from seg.files import atomic_write
from seg.metrics import METRICS
from seg.study.analysis import Analysis
from seg.study.drawing import BLUE, GREEN, GREY, INK, ORANGE, SAND, new_figure, plain, written
from seg.study.scores import Numbers, higher_is_better
from seg.study.sentences import percent, signed

COLORS = {"better": BLUE, "worse": ORANGE, "equivalent": GREEN, "inconclusive": GREY}
SHAPES = {"better": "o", "worse": "s", "equivalent": "D", "inconclusive": "o"}
NAME_LETTERS = 36  # a longer name goes on in the next line
LINE_INCHES, RESULT_INCHES, LEGEND_INCHES = 0.16, 2.6, 8.4


def write_figures(analysis: Analysis, folder: Path) -> list[Path]:
    """Writes ``forest`` and ``differences``, each as ``.png`` (150 dpi) and ``.svg``, into ``folder``.

    Returns:
        The files written; none where there is nothing to compare.
    """
    if analysis.comparisons.empty:
        return []
    figures = {"forest": forest(analysis), "differences": differences(analysis)}
    contents = {
        folder / f"{name}.{kind}": written(figure, kind) for name, figure in figures.items() for kind in ("png", "svg")
    }
    for path, content in contents.items():
        atomic_write(path, content)
    return list(contents)


def forest(analysis: Analysis) -> Figure:
    """Mean difference and interval of every comparison, one panel a metric, the primary one first.

    Comparisons with the baseline are above those with the previous arm; the second arm's previous is the baseline.
    Where the seed spread of an arm is abnormal, the frame fits the others, and an arrow points to what lies beyond it.
    """
    meta, table = analysis.meta, analysis.comparisons
    rows = _rows(_groups(table[table["primary"]]), least=0.3)
    figure, panels = _figure(rows, panels=table["metric"].nunique(), beside=RESULT_INCHES)
    for panel, (metric, lines) in zip(panels, table.groupby("metric", sort=False), strict=True):
        _frame(panel, str(metric), meta.margins.get(str(metric)))
        calm = _calm(analysis, lines)
        frame = _ends([], calm)
        if len(calm) < len(lines):
            panel.set_xlim(*(frame if higher_is_better(str(metric)) else frame[::-1]))
        for place, (_, line) in zip(rows.places, pd.concat(_groups(lines).values()).iterrows(), strict=True):
            _interval(panel, place, line)
            if len(calm) < len(lines):
                _beyond(panel, place, np.array([line["ci_low"], line["ci_high"]]), frame, COLORS[line["verdict"]])
        secondary = "" if metric == meta.primary else " (secondary)"
        panel.set_title(f"{METRICS[str(metric)].label}{secondary}", fontsize=10, fontweight="bold")
    for place, (_, line) in zip(rows.places, rows.lines.iterrows(), strict=True):
        ends = f"[{signed(line['ci_low'], meta.primary)}, {signed(line['ci_high'], meta.primary)}]"
        _beside(panels[0], place, f"{signed(line['difference'], meta.primary)} {ends}  {line['verdict']}")
    _legend(figure, analysis, set(table["verdict"]))
    return figure


def differences(analysis: Analysis) -> Figure:
    """Each patient's difference to the baseline by the primary metric: points, box, mean with its interval.

    Points beyond the frame are triangles at its edge.
    """
    metric, table = analysis.meta.primary, analysis.comparisons
    group, lines = next(iter(_groups(table[table["primary"]]).items()))
    rows = _rows({group: lines}, least=0.5)
    figure, (panel,) = _figure(rows, panels=1, beside=2.0, width=5.0)
    wide = analysis.patients[analysis.patients["metric"] == metric].pivot(
        index="arm", columns="patient", values="value"
    )
    paired = [(wide.loc[line["arm"]] - wide.loc[line["against"]]).to_numpy(float) for _, line in lines.iterrows()]
    _frame(panel, metric, analysis.meta.margins.get(metric))
    calm = _calm(analysis, lines)
    ends = _ends([gains for gains, label in zip(paired, lines.index, strict=True) if label in calm.index], calm)
    panel.set_xlim(*(ends if higher_is_better(metric) else ends[::-1]))
    for place, gains, (_, line) in zip(rows.places, paired, lines.iterrows(), strict=True):
        _patients(panel, place, gains, ends, COLORS[line["verdict"]])
        panel.plot([line["ci_low"], line["ci_high"]], [place, place], color=INK, lw=2.5, zorder=5)
        panel.plot(line["difference"], place, SHAPES[line["verdict"]], color=INK, ms=6, zorder=5)
        equal = f", {line['ties']} equal" if line["ties"] else ""
        _beside(panel, place, f"{line['wins']} better, {line['losses']} worse{equal}")
    panel.set_title(
        f"{METRICS[metric].label}: difference in each of {len(paired[0])} patients", fontsize=10, fontweight="bold"
    )
    _legend(figure, analysis, set(lines["verdict"]), "; box: quartiles; whiskers: 5 to 95 %; black: mean and interval")
    return figure


@dataclass(frozen=True)
class _Rows:
    """Where things are, in inches from the top of the panels."""

    lines: pd.DataFrame  # the comparisons, in order of the rows
    names: list[str]
    places: list[float]
    titles: dict[str, float]
    height: float


def _groups(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The comparisons with the baseline, then those with the previous arm that are not among them."""
    first = table["kind"].str.contains("baseline")
    groups = {"the baseline": table[first], "the previous arm": table[~first]}
    if first.any():
        groups = {str(table[first]["against"].iloc[0]): table[first], "the previous arm": table[~first]}
    return {name: lines for name, lines in groups.items() if len(lines)}


def _name(line: "pd.Series[Any]", group: str) -> str:
    name = _wrapped(line["arm"])
    return f"{name}\n– {_wrapped(line['against'])}" if group == "the previous arm" else name


def _wrapped(name: str) -> str:
    """Broken after spaces, hyphens and underscores, or anywhere if need be."""
    lines = wrap(name.replace("_", "_ "), NAME_LETTERS)
    return "\n".join(line.replace("_ ", "_") for line in lines)


def _rows(groups: Mapping[str, pd.DataFrame], least: float) -> _Rows:
    """Rows at least so many inches high, or as high as their names need, under the title of each group."""
    names: list[str] = []
    places: list[float] = []
    titles: dict[str, float] = {}
    top = 0.0
    for group, lines in groups.items():
        title = _wrapped(f"against {group}")
        top += 0.12 if titles else 0.0
        titles[title] = top + LINE_INCHES * (title.count("\n") + 2) / 2
        top += LINE_INCHES * (title.count("\n") + 2)
        for _, line in lines.iterrows():
            names.append(_name(line, group))
            height = max(least, LINE_INCHES * (names[-1].count("\n") + 1) + 0.1)
            places.append(top + height / 2)
            top += height
    return _Rows(pd.concat(groups.values()), names, places, titles, top + 0.1)


def _figure(rows: _Rows, *, panels: int, beside: float, width: float = 2.9) -> tuple[Figure, list[Axes]]:
    """Names, first panel, text beside it, other panels, from left to right; sizes in inches."""
    letters = max(len(part) for name in [*rows.names, *rows.titles] for part in name.split("\n"))
    left, bottom, top = 0.3 + 0.078 * letters, 1.15, 0.4
    whole = max(left + panels * width + beside + (panels - 1) * 0.3 + 0.2, LEGEND_INCHES), rows.height + bottom + top
    figure = new_figure(*whole, layout=None)
    starts = [left + n * (width + 0.3) + (beside if n else 0) for n in range(panels)]
    axes = [
        figure.add_axes((start / whole[0], bottom / whole[1], width / whole[0], rows.height / whole[1]))
        for start in starts
    ]
    for panel in axes:
        panel.set_ylim(rows.height, 0)
        panel.set_yticks(rows.places, rows.names if panel is axes[0] else [], fontsize=8.5)
    for label in axes[0].get_yticklabels():
        label.set_parse_math(False)
    for title, place in rows.titles.items():
        _beside(axes[0], place, title, left=True)
    return figure, axes


def _beside(panel: Axes, place: float, text: str, *, left: bool = False) -> None:
    """A text right of a row, or left of it as a heading."""
    panel.annotate(
        text, (0 if left else 1, place), (-8 if left else 8, 0), textcoords="offset points",
        xycoords=("axes fraction", "data"), va="center", ha="right" if left else "left", fontsize=8.5 if left else 8,
        style="italic" if left else "normal", color=INK, parse_math=False,
    )  # fmt: skip


def _frame(panel: Axes, metric: str, margin: float | None) -> None:
    if margin is not None:
        panel.axvspan(-margin, margin, color=SAND, lw=0, zorder=0)
    panel.axvline(0, color=INK, lw=0.8, zorder=1)
    unit = f" in {METRICS[metric].unit}" if METRICS[metric].unit else ""
    panel.set_xlabel(f"difference{unit}, better →", fontsize=9)
    panel.xaxis.set_major_locator(MaxNLocator(5))
    panel.tick_params(axis="x", labelsize=8)
    plain(panel, axis="x")
    panel.tick_params(axis="y", length=0, pad=8)
    if not higher_is_better(metric) and not panel.xaxis_inverted():
        panel.invert_xaxis()


def _interval(panel: Axes, place: float, line: "pd.Series[Any]") -> None:
    color = COLORS[line["verdict"]]
    panel.plot([line["ci_low"], line["ci_high"]], [place, place], color=color, lw=1.8, solid_capstyle="butt", zorder=2)
    panel.plot(
        line["difference"],
        place,
        SHAPES[line["verdict"]],
        color=color,
        mfc=_face(line["verdict"]),
        ms=6,
        mew=1.5,
        zorder=3,
    )


def _calm(analysis: Analysis, lines: pd.DataFrame) -> pd.DataFrame:
    """The comparisons of one metric without an arm whose seed spread is abnormal; all of them where none is left."""
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
    style: dict[str, Any] = {"color": color, "alpha": 0.45, "mew": 0, "ls": "", "zorder": 2}
    panel.plot(gains[inside], heights[inside], marker="o", ms=3, **style)
    _beyond(panel, heights, gains, ends, color, alpha=0.45)
    lines = {"color": INK, "lw": 1.0}
    panel.boxplot(
        [gains], positions=[place], orientation="horizontal", widths=0.22, whis=(5, 95), showfliers=False,
        manage_ticks=False, boxprops=lines, whiskerprops=lines, capprops=lines, medianprops=lines, zorder=4,
    )  # fmt: skip


def _beyond(
    panel: Axes, place: float | Numbers, values: Numbers, ends: tuple[float, float], color: str, alpha: float = 1.0
) -> None:
    """Triangles at the edges of the frame for the values that lie beyond them."""
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
    handles: list[Any] = [
        Line2D([], [], color=color, marker=SHAPES[name], lw=1.8, label=name, ms=6, mfc=_face(name), mew=1.5)
        for name, color in COLORS.items()
        if name in found
    ]
    handles += [Patch(color=SAND, label="margin of equivalence")] * (meta.primary in meta.margins)
    among = f"among {meta.family} comparisons" if meta.family > 1 else "of one comparison"
    title = f"{percent(1 - meta.alpha)} intervals over {meta.drawn}; verdicts {among} (Holm){note}"
    title = f"{meta.notice}\n{title}".lstrip()
    figure.legend(
        handles=handles, loc="lower left", ncols=len(handles), frameon=False, fontsize=8, title=title,
        title_fontsize=8, alignment="left",
    )  # fmt: skip


def _face(verdict: str) -> str:
    return "white" if verdict == "inconclusive" else COLORS[verdict]
