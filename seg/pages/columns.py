"""The columns of the compare page: which runs are in each, what they reached, and the table that lists them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import pandas as pd

from seg.metrics import METRICS, lengths_of, shown
from seg.pages.html import escaped, table_html
from seg.records.scored import ScoredRun, Scores, facts_of, labels
from seg.study.scores import scored
from seg.study.sentences import spelled
from seg.study.typeset import Cell, Table

NOTE = "Scores: mean over cases, full volumes. Means over different cases cannot be compared. Not a medical device."


@dataclass(frozen=True)
class Column:
    """One run on the page; or, pooled, the runs that differ only in their fold."""

    label: str  # a few words that distinguish it from the others
    runs: Sequence[ScoredRun]
    scores: Scores  # of all its cases; a class that counts in no column is left out

    @property
    def lengths(self) -> str:
        """What its lengths are in, mm or pixels."""
        return lengths_of(self.runs[0].table)

    def pred(self, case: str) -> Path | None:
        """The mask of a case, whether or not it exists; None where no run was tested on it."""
        tested = [run.folders.predictions for run in self.runs if case in run.scores]
        if not tested:
            return None
        picture = tested[-1] / f"{case}.png"
        return picture if picture.exists() else tested[-1] / f"{case}.nii.gz"

    def values(self, case: str, metric: str, classes: Sequence[str]) -> list[float | None]:
        """The mean of the classes that count, then each class; None for what does not."""
        values = [self.scores[case].get(name, {}).get(metric) for name in classes]
        known = [value for value in values if value is not None]
        return [value if value is None else round(value, 5) for value in [fmean(known) if known else None, *values]]


def columns_of(groups: Sequence[Sequence[ScoredRun]]) -> list[Column]:
    """One a group; a class counts in a case where the reference or any column has it, as in studies."""
    tables = [run.table.assign(column=place) for place, group in enumerate(groups) for run in group]
    rows = pd.concat(tables, ignore_index=True)
    known = [name for name in METRICS if name in rows]
    found: list[Scores] = [{case: {} for run in group for case in run.scores} for group in groups]
    for row in scored(rows, known).to_dict("records"):
        numbers = {name: float(row[name]) for name in known if row[name] == row[name]}
        found[row["column"]][row["case"]][row["class"]] = numbers
    return [Column(*one) for one in zip(labels(groups), groups, found, strict=True)]


def measures_of(columns: Sequence[Column]) -> dict[str, str]:
    """Dice, and what else all runs have, with the name of each; NSD only where its tolerance is the same in all."""
    numbers = [row for column in columns for by_class in column.scores.values() for row in by_class.values()]
    runs = [run for column in columns for run in column.runs]
    tolerances = {tolerance for run in runs for tolerance in run.table.get("nsd_tolerance_mm", [""])}
    known = {
        key: metric.label for key, metric in shown().items() if key == "dice" or all(key in row for row in numbers)
    }
    if "nsd" in known and len(tolerances) == 1 and (tolerance := tolerances.pop()):
        return known | {"nsd": f"NSD at {float(tolerance):g} {columns[0].lengths}"}
    return {key: name for key, name in known.items() if key != "nsd"}


def runs_html(columns: Sequence[Column], measures: dict[str, str], commands: Sequence[str]) -> str:
    """The table of runs, and how the pages of their records are opened."""
    facts = [facts_of(column.runs) for column in columns]
    heads = ["Run", *(key.capitalize() for key in facts[0]), "Cases"]
    heads += [
        *(METRICS[key].with_unit(name, columns[0].lengths) + ", mean ± SD" for key, name in measures.items()),
        "Record",
    ]
    rows = [
        [
            Cell(f"{place}  {column.label}"),
            *map(Cell, fact.values()),
            Cell(str(len(column.scores))),
            *(Cell(_spread(column, key)) for key in measures),
            Cell("\n".join(run.folders.short for run in column.runs), links=[run.address or "" for run in column.runs]),
        ]
        for place, (column, fact) in enumerate(zip(columns, facts, strict=True), 1)
    ]
    how = [f"<p>Links to 127.0.0.1 open once this runs: <code>{escaped(command)}</code></p>" for command in commands]
    return table_html(Table("Runs", heads, {"": rows}, NOTE)) + "\n".join(how)


def _spread(column: Column, metric: str) -> str:
    """Mean and SD over cases of the mean over classes."""
    by_case = [fmean(row[metric] for row in rows.values()) for rows in column.scores.values() if rows]
    text = spelled(fmean(by_case), metric) if by_case else "–"
    return f"{text} ± {spelled(stdev(by_case), metric)}" if len(by_case) > 1 else text
