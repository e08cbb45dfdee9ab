"""The figure and the page of progress: results as points, the best so far as a line, records as a table."""

import html
from collections.abc import Mapping, Sequence
from io import BytesIO
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from seg.pages.html import list_html, page, table_html
from seg.study.progress import Line, Result, gained, moment, sentence, with_interval
from seg.study.sentences import spelled
from seg.study.typeset import Cell, Table

BEST, OTHER, INK = "#0072B2", "#8A8A8A", "#222222"
_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
NOTE = (
    "On one line stand only results on the same cases of the same data; results of the test part and out of fold never "
    "share one. Dice: mean over patients. Intervals (95 %) are over patients; that another seed would give another "
    "result is not in them. The best of many results on the same cases is a little too good: it was chosen on them."
)


def progress_page(name: str, lines: Sequence[Line], left_out: Sequence[str]) -> str:
    """The page of a data set.

    Args:
        name: of the data set; any text.
        lines: one at least.
        left_out: which runs are on none of them, and why.
    """
    parts = [list_html([sentence(line) for line in lines]), *map(_section, lines), "<h2>How to read it</h2>"]
    parts.append(list_html([NOTE, *left_out]))
    return page(f"Progress on {name}", "Results over time, and the best so far.", "\n".join(parts))


def _section(line: Line) -> str:
    records = {record.place: record for record in line.records}
    heads = ["Finished (UTC)", "Run", "What", "Dice", "Settings that vary"]
    best = [_cells(line, place) for place in records]
    for row, record in zip(best, line.records, strict=True):
        dice = with_interval(line.results[record.place].dice, record.low, record.high)
        row[3:4] = [Cell(dice), Cell(gained(record))]
    gain = [*heads[:3], "Dice [95 % interval]", "Gain on the record before", heads[4]]
    every = [_cells(line, place) for place in reversed(range(len(line.results)))]
    tables = Table("Records", gain, {"": best}, line.about), Table("All results", heads, {"": every}, "Bold: a record.")
    anchors = [_anchor(line.results[place]) for place in records]
    return (
        f"<h2>{html.escape(line.title)}</h2>"
        f"<figure>{_picture(line)}<figcaption>Points: results; the line: the best so far, with 95 % intervals over "
        "patients. Hover over a point to read what it is; those on the line lead to their row of the table."
        f"</figcaption></figure>{table_html(tables[0], anchors, heading=False, long=True)}"
        f"<details><summary>All {len(line.results)} results, the latest first</summary>"
        f"{table_html(tables[1], heading=False, long=True)}</details>"
    )


def _cells(line: Line, place: int) -> list[Cell]:
    """When, run, what, Dice, settings."""
    result = line.results[place]
    bold = place in {record.place for record in line.records}
    dice = Cell(spelled(result.dice, "dice"), bold=bold)
    return [Cell(moment(result.finished)), Cell(result.run), Cell(result.what), dice, Cell(line.settings(result))]


def _anchor(result: Result) -> str:
    return f"run-{result.runs[0]}"


def _picture(line: Line) -> str:
    """The figure as SVG whose points tell what they are; those of records are links to their rows."""
    records = {record.place: record for record in line.records}
    texts: dict[str, tuple[str, str | None]] = {}
    for place, result in enumerate(line.results):
        record = records.get(place)
        dice = with_interval(result.dice, record.low, record.high) if record else spelled(result.dice, "dice")
        settings = f". {line.settings(result)}" if line.settings(result) else ""
        text = f"Dice {dice}: {result.what}; run {result.run}, {moment(result.finished)} UTC{settings}"
        texts[f"point-{result.runs[0]}"] = (text, f"#{_anchor(result)}" if record else None)
    drawn = figure([line])
    drawn.axes[0].set_title("")  # it is the heading above
    return _told(_written(drawn, "svg"), f"Dice over time. {sentence(line)}", texts)


def figure(lines: Sequence[Line]) -> Figure:
    """One panel a line, below each other; to the right is later, up is better."""
    drawn = Figure(figsize=(11, 3.4 * len(lines)), dpi=150, layout="constrained")
    FigureCanvasAgg(drawn)
    panels = drawn.subplots(len(lines), 1, squeeze=False)[:, 0]
    for panel, line in zip(panels, lines, strict=True):
        _draw(panel, line)
    return drawn


def png(lines: Sequence[Line]) -> bytes:
    """The figure of all lines as a picture, 150 dpi."""
    return _written(figure(lines), "png")


def _draw(panel: Axes, line: Line) -> None:
    times = np.array([result.finished.timestamp() / 86400 for result in line.results])  # matplotlib's days
    dice = np.array([result.dice for result in line.results])
    places = [record.place for record in line.records]
    low = _floor(dice)
    room = max(0.04 * float(np.ptp(times)), 5 / 1440)  # days
    ends = times.min() - room, times.max() + room
    panel.step([*times[places], ends[1]], [*dice[places], dice[places[-1]]], where="post", color=BEST, lw=1.8, zorder=3)
    for place, result in enumerate(line.results):
        bold, below = place in places, dice[place] < low
        panel.plot(
            times[place], max(dice[place], low), marker="v" if below else "o", ls="", ms=7 if bold else 5,
            color=BEST if bold else OTHER, mec="white" if bold else OTHER, zorder=5 if bold else 2, clip_on=False,
            gid=f"point-{result.runs[0]}",
        )  # fmt: skip
    shown = [record for record in line.records if dice[record.place] >= low and np.isfinite(record.low)]
    for record in shown:
        panel.vlines(times[record.place], record.low, record.high, color=BEST, lw=1, alpha=0.6, zorder=1)
    panel.set_xlim(*ends)
    panel.set_ylim(bottom=min([low - 0.03 * (dice.max() - low), *(record.low for record in shown)]))
    panel.set_title(line.title, fontsize=10, fontweight="bold", parse_math=False)
    panel.set_ylabel("mean Dice" + (" (▾: below the frame)" if (dice < low).any() else ""), fontsize=9)
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    panel.xaxis.set_major_locator(locator)
    panel.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    panel.set_xlabel("finished (UTC)", fontsize=9)
    panel.tick_params(labelsize=8)
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def _floor(dice: np.ndarray) -> float:
    """Where the frame begins: at the lowest result, but so that a first try does not press all others together."""
    middle, best, lowest = float(np.median(dice)), float(dice.max()), float(dice.min())
    return max(lowest, middle - 3 * (best - middle)) if best > middle else lowest


def _written(drawn: Figure, kind: str) -> bytes:
    content = BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({"svg.hashsalt": "seg", "svg.fonttype": "path"}):
        drawn.savefig(content, format=kind, metadata=nothing if kind == "svg" else None)
    return content.getvalue()


def _told(picture: bytes, name: str, texts: Mapping[str, tuple[str, str | None]]) -> str:
    """The SVG with a name, and at each element of ``texts``, by its id, a text and perhaps a link around it."""
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _LINK)
    root = ElementTree.fromstring(picture)
    root.attrib |= {"role": "group", "aria-label": name}
    for parent in list(root.iter()):
        for place, child in enumerate(list(parent)):
            text, link = texts.get(child.get("id", ""), ("", None))
            if not text:
                continue
            title = ElementTree.Element(f"{{{_SVG}}}title")
            title.text = text
            child.insert(0, title)
            if link:
                around = ElementTree.Element(f"{{{_SVG}}}a", {"href": link, "aria-label": text})
                parent[place] = around
                around.append(child)
    return ElementTree.tostring(root, encoding="unicode")
