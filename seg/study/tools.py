"""Finished tools on the same cases: the scores of each with intervals, and their differences, as of a study."""

from collections.abc import Sequence

import pandas as pd

from seg.metrics import MEAN_OF_CLASSES, lengths_of, shown
from seg.study.analysis import Analysis, analyse
from seg.study.scores import scored
from seg.study.sentences import percent, spelled, with_ends
from seg.study.typeset import Cell, Table

LEAST = 2  # patients of an interval


def compare_tools(scores: pd.DataFrame, tools: Sequence[str]) -> Analysis:
    """The analysis of ``scores`` as of finished tools, each against the first; of one tool, its means.

    Args:
        scores: as ``analyse`` takes them, an arm a tool.
        tools: the arms, in order.

    Raises:
        DataError: as ``analyse``; there are fewer than two patients, for one.
    """
    return analyse(scores, baseline=tools[0], arms=tools, against=("baseline",), metrics=[*shown()], fixed=True)


def scores_table(scores: pd.DataFrame, tools: Sequence[str]) -> Table:
    """The mean of each tool by class and over the classes, with its 95 % interval over patients."""
    names = [*dict.fromkeys(scores["class"])]
    parts = {name: scores[scores["class"] == name] for name in names}
    if len(names) > 1:
        parts[MEAN_OF_CLASSES] = scores
    rows: dict[str, list[list[Cell]]] = {tool if len(tools) > 1 else "": [] for tool in tools}
    for name, part in parts.items():
        for own, cells in zip(rows.values(), _lines(part, tools), strict=True):
            own.append([Cell(name), *map(Cell, cells)])
    heads = ["Class", *(metric.title(lengths_of(scores)) for metric in shown().values()), "Missed", "False", "Cases"]
    patients = scores["patient"].nunique()
    note = (
        f"Mean [{percent(0.95)} interval over patients] of the cases where a class is scored: where it is in the "
        f"reference or in a mask. {patients} patients. Missed: of the structures in the reference."
    )
    return Table("Scores", heads, rows, note)


def _lines(part: pd.DataFrame, tools: Sequence[str]) -> list[list[str]]:
    """Of each tool: its means with intervals, what it missed, what it made up, and the cases that count."""
    counted = scored(part, [*shown()])
    if counted["patient"].nunique() < LEAST:
        return [_alone(counted[counted["arm"] == tool]) for tool in tools]
    arms = compare_tools(part, tools).arms
    found = []
    for tool in tools:
        lines = arms[arms["arm"] == tool].set_index("metric")
        means = [
            with_ends(line["mean"], line["ci_low"], line["ci_high"], str(metric))
            for metric, line in lines.loc[[*shown()]].iterrows()
        ]
        found.append(means + _counts(counted[counted["arm"] == tool]))
    return found


def _alone(rows: pd.DataFrame) -> list[str]:
    """Of too few patients for an interval."""
    cases = rows.groupby("case")  # classes within a case first, as everywhere
    return [spelled(cases[metric].mean().mean(), metric) if len(rows) else "–" for metric in shown()] + _counts(rows)


def _counts(rows: pd.DataFrame) -> list[str]:
    missed, false, present = (f"{rows[name].sum():.0f}" for name in ("missed", "false", "present"))
    return [f"{missed} of {present}", false, str(rows["case"].nunique())]
