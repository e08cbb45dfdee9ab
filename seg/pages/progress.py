"""The progress on a data set: a page of its results over time, with the best so far on a line that never falls."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from seg.config.content import WITHOUT_EFFECT
from seg.config.options import OPTIONS
from seg.errors import ConfigError, nearest
from seg.files import atomic_write, file_name
from seg.pages.html import escaped, fold, list_html, page, table_html
from seg.records.scored import choices, pooled
from seg.records.table import runs, scores_of
from seg.study import typeset
from seg.study.drawing import BLUE, GREY, new_figure, plain, write, written
from seg.study.lines import Line, Point, lines
from seg.study.sentences import spelled
from seg.study.typeset import Cell, Table

NOTE = (
    "A line holds only results on the same cases of the same data; results of the test part and out of fold never "
    "share one. Dice: mean over patients. Intervals (95 %) are over patients; they do not include variation between "
    "seeds. The best of many results on the same cases is slightly too good: it was chosen on them."
)
CAPTION = (
    "Points: results; the line: the best so far, with 95 % intervals over patients. Hover over a point to read what it "
    "is; those on the line are links to their row of the table."
)
_SHOWN_APART = ("data.fold", "seed", "parameters")
_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


def progress(name: str, outputs: Path, uri: str | None) -> str:
    """Writes the page and the picture of a data set under ``outputs/progress``.

    Args:
        name: of the data set.
        outputs: holds the runs.
        uri: of MLflow; None: as the runs were recorded.

    Returns:
        The best results in words and tables, for the terminal.

    Raises:
        ConfigError: no run is of that data set, or MLflow does not answer.
        DataError: scores that are doubled or no numbers.
    """
    table, left_out = scored_runs(_of_data_set(runs(outputs, uri), name, outputs))
    drawn = lines(points_of(table, scores_of(table, outputs, uri), left_out)) if len(table) else []
    counts = ", ".join(f"{why} ({count})" for why, count in left_out.items())
    notes = [f"Runs left out: {counts}."] if counts else []
    if not drawn:
        return "\n".join([f"No result on {name} so far.", *notes])
    path = outputs / "progress" / f"{file_name(name, 'data')}.html"
    atomic_write(path, progress_page(name, drawn, notes))
    write({path.with_suffix(".png"): figure(drawn)})
    found = [f"{line.sentence}\n\n{typeset.markdown(_bests(line))}\n" for line in drawn]
    where = f"{path.absolute()}: open it in a browser. Its picture: {path.with_suffix('.png').name}."
    return "\n".join([*found, *notes, where])


def _of_data_set(table: pd.DataFrame, name: str, outputs: Path) -> pd.DataFrame:
    there = sorted(set(table["dataset"].dropna()))
    if name not in there:
        known = f" There are: {', '.join(there)}." if there else f" There is no run in {outputs} at all."
        raise ConfigError(f"No run used a data set {name}.{nearest(name, there)}{known}")
    return table[table["dataset"] == name]


def scored_runs(table: pd.DataFrame) -> tuple[pd.DataFrame, Counter[str]]:
    """The finished runs that have a mean Dice of their part, as column ``part``; of the others how many and why."""
    missing = {name: None for name in ("experiment_type", "oof_dice", "test_dice") if name not in table}
    table = table.assign(**missing)
    part = table["test_dice"].notna().map({True: "test", False: None})
    table = table.assign(part=part.where(table["oof_dice"].isna() | part.notna(), "oof"))
    parent = (table["experiment_type"] == "sweep") | table["run_id"].isin(set(table["parent"].dropna()))
    reason = pd.Series("", index=table.index)
    for words, rows in (  # the first that holds is the reason
        ("time not known", table["started"].isna()),
        ("validated only", table["part"].isna()),
        *((str(state).lower(), table["status"] == state) for state in table["status"].unique() if state != "FINISHED"),
        ("records of whole sweeps", parent),
    ):
        reason[rows] = words
    return table[reason == ""], Counter(reason[reason != ""].tolist())


def points_of(table: pd.DataFrame, scores: pd.DataFrame, left_out: Counter[str]) -> list[Point]:
    """One point per tested run, and one for the out-of-fold runs that differ only in their fold."""
    by_run = {str(run_id): part for run_id, part in scores.groupby("run_id")}
    rows = [row for row in table.to_dict("records") if row["run_id"] in by_run]
    if lost := len(table) - len(rows):
        left_out["table of cases not found"] += lost
    groups = pooled(
        rows,
        alike=lambda row: row["run_id"] if row["part"] == "test" else _but_for_the_fold(row),
        cases=lambda row: set(by_run[row["run_id"]]["case"]),
    )
    points = [_point(group, by_run) for group in groups]
    if empty := sum(len(point.runs) for point in points if isnan(point.dice)):
        left_out["without any structure to score"] += empty
    return [point for point in points if not isnan(point.dice)]


def _point(rows: Sequence[dict[str, Any]], by_run: Mapping[str, pd.DataFrame]) -> Point:
    rows = sorted(rows, key=lambda row: (_text(row.get("fold")), row["run_id"]))
    first, arm = rows[0], _text(rows[0].get("arm"))
    ends = [row["started"] + pd.Timedelta(seconds=row["seconds"] if row["seconds"] > 0 else 0) for row in rows]
    return Point(
        runs=tuple(str(row["run_id_short"]) for row in rows),
        finished=max(ends).to_pydatetime(warn=False),
        name=choices(str(first["name"])),
        study=_text(first.get("study")),
        arm="" if arm == first["name"] else arm,
        seed=_text(first.get("seed")),
        folds=tuple(_text(row.get("fold")) for row in rows),
        part=first["part"],
        data=_text(first.get("dataset_version")),
        settings=_settings(first),
        scores=pd.concat([by_run[row["run_id"]] for row in rows], ignore_index=True),
    )


def _but_for_the_fold(row: dict[str, Any]) -> str:
    """The same for the runs of all folds of one arm and seed."""
    return json.dumps([_text(row.get(key)) for key in ("sweep", "study", "params.arm", "seed")] + [_settings(row)])


def _settings(row: dict[str, Any]) -> dict[str, str]:
    """The parameters that can change a score, as text; what is not set is left out."""
    named = {key.removeprefix("params."): _text(value) for key, value in row.items() if key.startswith("params.")}
    return {
        key: text.rpartition(".")[2] if key.endswith("_target_") else text
        for key, text in sorted(named.items())
        if key not in (*_SHOWN_APART, *OPTIONS) and not key.startswith((*WITHOUT_EFFECT, "resolved."))
        if not key.endswith("_partial_")
        if text not in ("", "{}")
    }


def _text(value: object) -> str:
    """A cell as text; a whole number without its point, and nothing for what is missing."""
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


# ---------------------------------------------------------------- the page


def progress_page(name: str, drawn: Sequence[Line], notes: Sequence[str]) -> str:
    """The page of a data set.

    Args:
        name: of the data set; any text.
        drawn: one line at least.
        notes: which runs are on none of them, and why.
    """
    parts = [list_html([line.sentence for line in drawn]), *map(_section, drawn), "<h2>How to read it</h2>"]
    parts.append(list_html([NOTE, *notes]))
    return page(f"Progress on {name}", "Results over time, and the best so far.", "\n".join(parts))


def _section(line: Line) -> str:
    anchors = [_anchor(best.point) for best in line.bests]
    return (
        f"<h2>{escaped(line.title)}</h2><figure>{_picture(line)}<figcaption>{CAPTION}</figcaption></figure>"
        f"{table_html(_bests(line), anchors, heading=False, long=True)}"
        f"{fold(f'All {len(line.points)} results, the latest first', table_html(_all(line), heading=False, long=True))}"
    )


def _bests(line: Line) -> Table:
    heads = ["Finished (UTC)", "Run", "What", "Dice [95 % interval]", "Gain over previous best", "Settings that vary"]
    rows = [_row(line, best.point, Cell(best.dice), Cell(best.gained)) for best in line.bests]
    return Table("Best so far", heads, {"": rows}, line.about)


def _all(line: Line) -> Table:
    heads = ["Finished (UTC)", "Run", "What", "Dice", "Settings that vary"]
    bests = [best.point for best in line.bests]
    rows = [
        _row(line, point, Cell(spelled(point.dice, "dice"), bold=point in bests)) for point in reversed(line.points)
    ]
    return Table("All results", heads, {"": rows}, "Bold: the best so far.")


def _row(line: Line, point: Point, *numbers: Cell) -> list[Cell]:
    return [Cell(point.when), Cell(point.run), Cell(point.what), *numbers, Cell(line.settings(point))]


def _anchor(point: Point) -> str:
    return f"run-{point.runs[0]}"


def _picture(line: Line) -> str:
    """The figure as SVG whose points say what they are; those of the best lead to their rows."""
    dice = {point.runs: spelled(point.dice, "dice") for point in line.points}
    dice |= {best.point.runs: best.dice for best in line.bests}
    links = {best.point.runs: f"#{_anchor(best.point)}" for best in line.bests}
    texts: dict[str, tuple[str, str | None]] = {}
    for point in line.points:
        settings = f". {line.settings(point)}" if line.settings(point) else ""
        text = f"Dice {dice[point.runs]}: {point.what}; run {point.run}, {point.when} UTC{settings}"
        texts[f"point-{point.runs[0]}"] = (text, links.get(point.runs))
    drawn = figure([line])
    drawn.axes[0].set_title("")  # it is the heading above
    return _annotated(written(drawn, "svg"), f"Dice over time. {line.sentence}", texts)


def figure(drawn: Sequence[Line]) -> Figure:
    """One panel per line, below each other; to the right is later, up is better."""
    made = new_figure(11, 3.4 * len(drawn))
    for panel, line in zip(made.subplots(len(drawn), 1, squeeze=False)[:, 0], drawn, strict=True):
        _draw(panel, line)
    return made


def _draw(panel: Axes, line: Line) -> None:
    times, dice = np.array([_day(point) for point in line.points]), np.array([point.dice for point in line.points])
    bests = [best.point for best in line.bests]
    low, room = _floor(dice), max(0.04 * float(np.ptp(times)), 5 / 1440)
    ends, last = (times.min() - room, times.max() + room), line.bests[-1].point
    panel.step(
        [*map(_day, bests), ends[1]], [*(point.dice for point in bests), last.dice], where="post", color=BLUE, lw=1.8,
        zorder=3,
    )  # fmt: skip
    for point in line.points:
        bold, below = point in bests, point.dice < low
        panel.plot(
            _day(point), max(point.dice, low), marker="v" if below else "o", ls="", ms=7 if bold else 5,
            color=BLUE if bold else GREY, mec="white" if bold else GREY, zorder=5 if bold else 2, clip_on=False,
            gid=f"point-{point.runs[0]}",
        )  # fmt: skip
    shown = [best for best in line.bests if best.point.dice >= low and np.isfinite(best.low)]
    for best in shown:
        panel.vlines(_day(best.point), best.low, best.high, color=BLUE, lw=1, alpha=0.6, zorder=1)
    panel.set_xlim(*ends)
    panel.set_ylim(bottom=min([low - 0.03 * (dice.max() - low), *(best.low for best in shown)]))
    panel.set_title(line.title, fontsize=10, fontweight="bold", parse_math=False)
    panel.set_ylabel("mean Dice" + (" (▾: below the frame)" if (dice < low).any() else ""), fontsize=9)
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    panel.xaxis.set_major_locator(locator)
    panel.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    panel.set_xlabel("finished (UTC)", fontsize=9)
    panel.tick_params(labelsize=8)
    plain(panel)


def _day(point: Point) -> float:
    """As matplotlib counts time."""
    return point.finished.timestamp() / 86400


def _floor(dice: np.ndarray) -> float:
    """Where the frame begins: at the lowest result, but so that a first try does not press all others together."""
    middle, best, lowest = float(np.median(dice)), float(dice.max()), float(dice.min())
    return max(lowest, middle - 3 * (best - middle)) if best > middle else lowest


def _annotated(picture: bytes, name: str, texts: Mapping[str, tuple[str, str | None]]) -> str:
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
