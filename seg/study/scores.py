"""The scores of a study as statistics need them: read, checked, complete, one value per patient.

The input is one table: one row per arm, seed, case and class, as the runs' ``data/cases.csv`` put below each other with
the columns ``arm``, ``seed`` and ``fold`` added. What is missing, doubled or not a number is refused, never filled in.
One thing is no fault: a class that a case has in neither reference nor prediction is not scored there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from seg.errors import ConfigError, DataError, few, together
from seg.metrics import COUNTS, METRICS

if TYPE_CHECKING:
    from pandas.core.groupby import DataFrameGroupBy

KEYS = ("arm", "seed", "fold", "case", "patient", "class")

Numbers = npt.NDArray[np.float64]
Row: TypeAlias = "pd.Series[Any]"  # of a table
Incomplete = Literal["refuse", "common"]


@dataclass(frozen=True)
class Values:
    """Scores of the patients: for each metric one array (seeds, patients) an arm, patients in the same order in all."""

    arms: tuple[str, ...]
    patients: tuple[str, ...]
    by_metric: dict[str, list[Numbers]]
    by_class: dict[str, dict[str, list[Numbers]]]  # the same of each class, over the patients in which it counts
    judged: tuple[str, ...]  # the classes that ``by_metric`` is the mean of
    seeds: dict[str, int]
    cases: int
    folds: int
    failures: pd.DataFrame  # by arm, sums over its rows: missed, false (where counted), structures of the reference
    classes: pd.DataFrame  # by class and arm: mean of each metric, cases, present, and missed and false over all seeds
    left_out: tuple[str, ...]  # what was left out as incomplete, in words
    unscored: int  # cases without any structure, in the reference and in every prediction


def patient_values(
    scores: pd.DataFrame,
    *,
    arms: Sequence[str] | None,
    metrics: Sequence[str],
    classes: Sequence[str] | None = None,
    incomplete: Incomplete = "refuse",
    least: int = 2,
) -> Values:
    """Checks a table of scores and averages it to one value per arm, seed and patient.

    Classes are averaged within a case, where they count (``scored``), then cases within a patient: the patient is what
    was drawn at random, and a patient with three scans is no more than one. Out-of-fold cases are pooled.

    Args:
        scores: one row per arm, seed, case and class; columns ``KEYS`` and the metrics.
        arms: which, in order; None: all, in order of appearance.
        metrics: of seg.metrics.METRICS.
        classes: of which a case's mean is taken; None: all.
        incomplete: what to do where a case is missing in an arm or seed; "refuse", or "common" for a study that is half
            done: the arms that have scores, of each the seeds that scored every case of its fullest seed, and of these
            the cases that all arms share. ``left_out`` says what was left out.
        least: patients that there must be.

    Raises:
        ConfigError: an unknown arm, metric or class.
        DataError: columns missing, duplicate rows, values that are not numbers, a case of two patients or in two folds,
            cases missing, too few patients.
    """
    frame = _checked(scores, metrics)
    arms, absent = _known_arms(frame, arms, incomplete)
    frame, left_out = _complete(frame[frame["arm"].isin(arms)], arms, incomplete)
    counted = scored(frame, metrics)
    chosen = _known_classes(frame, classes)
    judged = counted[counted["class"].isin(chosen)]
    patients = sorted(judged["patient"].unique())
    if len(patients) < least:
        raise DataError(f"the arms share {len(patients)} patient; this needs {least} at least")
    by_class = counted.groupby("class", sort=False)
    cases = judged["case"].nunique()
    return Values(
        arms=tuple(arms),
        patients=tuple(patients),
        by_metric=arrays_of(judged, arms, metrics),
        by_class={str(name): arrays_of(part, arms, metrics) for name, part in by_class},
        judged=chosen,
        seeds={arm: judged[judged["arm"] == arm]["seed"].nunique() for arm in arms},
        cases=cases,
        folds=frame["fold"].nunique(),
        failures=_failures(judged.groupby("arm")).loc[arms],
        classes=_by_class(counted, arms, metrics),
        left_out=(*(f"arm {arm} (without scores)" for arm in absent), *left_out),
        unscored=frame["case"].nunique() - cases,
    )


def scored(rows: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """The rows that count, and in them ``present``: whether the case has the class in its reference.

    A class that a case has in neither the reference nor any prediction is not scored there, so that it cannot lift a
    mean. Where one prediction has it by mistake, it counts for all, and those that rightly left it empty get the best
    value there is. In neither is a row without any score, its ``missed`` and ``false`` both 0.

    Args:
        rows: one per case and class, and per arm and seed if there are several.
        metrics: whose columns are filled.
    """
    blank = _blank(rows)

    def in_any(marked: "pd.Series[bool]") -> "pd.Series[bool]":
        return marked.groupby([rows["case"], rows["class"]]).transform("any")

    false = rows["false"].eq(1) if "false" in rows else blank
    filled = rows.assign(present=~in_any(blank | false))
    filled.loc[blank, list(metrics)] = [METRICS[name].best for name in metrics]
    return filled[in_any(~blank)]


def _blank(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Rows whose class is in neither reference nor prediction: neither missed nor false, and without a score."""
    if not set(COUNTS) <= set(rows):
        return pd.Series(False, index=rows.index)
    unscored = rows[[name for name in METRICS if name in rows]].isna().all(axis=1)
    return rows[list(COUNTS)].eq(0).all(axis=1) & unscored


def _failures(rows: "DataFrameGroupBy[tuple[str, ...]]") -> pd.DataFrame:
    counts = rows[[column for column in COUNTS if column in rows.obj]].sum()
    return counts.assign(structures=rows["present"].sum())


def _by_class(counted: pd.DataFrame, arms: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """In order of classes, then arms."""
    rows = counted.groupby(["class", "arm"], sort=False)
    present = counted[counted["present"]].groupby(["class", "arm"])["case"].nunique()
    table = rows[list(metrics)].mean().assign(cases=rows["case"].nunique(), present=present).fillna({"present": 0})
    order = pd.MultiIndex.from_product([counted["class"].unique(), arms], names=["class", "arm"])
    return table.join(_failures(rows)).reindex(order).astype({"present": int}).reset_index()


def arrays_of(rows: pd.DataFrame, arms: Sequence[str], metrics: Sequence[str]) -> dict[str, list[Numbers]]:
    """For each metric one array (seeds, patients) an arm: means over classes, then over cases."""
    by_case = rows.groupby(["arm", "seed", "patient", "case"])[list(metrics)].mean()
    by_patient = by_case.groupby(level=["arm", "seed", "patient"]).mean()
    return {metric: [_array(by_patient.loc[arm][metric]) for arm in arms] for metric in metrics}


def _array(column: "pd.Series[float]") -> Numbers:
    """(seeds, patients), both in their order; seed 10 comes after seed 2."""
    table = column.unstack("patient").sort_index(axis=1)
    values: Numbers = table.loc[sorted(table.index, key=lambda seed: (len(seed), seed))].to_numpy(float)
    return values


def _checked(scores: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """A copy with every key as text; raises one error with every fault of the rows."""
    if unknown := set(metrics) - set(METRICS):
        raise ConfigError(f"unknown metrics: {few(unknown)}; there are {', '.join(METRICS)}")
    if missing := [column for column in (*KEYS, *metrics) if column not in scores]:
        raise DataError(
            f"scores have no column {', '.join(missing)}; every row needs {', '.join(KEYS)} and the metrics; where "
            f"there was one seed or one fold only, add the column with 0 throughout"
        )
    if scores.empty:
        raise DataError("scores have no rows; give one row per arm, seed, case and class")
    faults = [
        f"column {column} is empty in {count} rows; fill in what belongs there"
        for column in KEYS
        if (count := int((scores[column].isna() | (scores[column].astype(str) == "")).sum()))
    ]
    known = [column for column in (*METRICS, *COUNTS) if column in scores]
    numbers = {column: pd.to_numeric(scores[column], errors="coerce") for column in known}
    frame = scores.assign(**{key: scores[key].astype(str) for key in KEYS}, **numbers)
    text = {name: numbers[name].isna() & ~scores[name].isin(["", None, np.nan]) for name in known}
    if (lost := pd.DataFrame(text).any(axis=1) & _blank(frame)).any():
        faults.append(f"{lost.sum()} rows have text for scores, as if their class were nowhere; write numbers there")
    faults += _value_faults(frame, metrics) + _row_faults(frame)
    together(DataError, faults)
    return frame


def allowed(metric: str) -> str:
    """What values of a metric may be, in words."""
    low, high = METRICS[metric].limits
    if np.isfinite(high):
        return f"a number from {low:g} to {high:g}"
    return "a finite number" + (f", {low:g} or more" if np.isfinite(low) else "")


def _value_faults(frame: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
    faults = []
    if "nsd" in metrics and len(tolerances := tolerances_mm(frame)) > 1:
        faults.append(
            f"nsd was scored at several tolerances ({', '.join(f'{mm:g}' for mm in tolerances)}; nsd_tolerance_mm), "
            "which makes it as many metrics; score all runs at one (inference.nsd_tolerance_mm), or leave it out"
        )
    for metric in metrics:
        low, high = METRICS[metric].limits
        room = METRICS[metric].reach / 2 if np.isfinite(high) else 0  # simulated scores go a little beyond
        if len(far := frame[(frame[metric] < low - room) | (frame[metric] > high + room)][metric]):
            faults.append(
                f"{metric} is {far.iloc[0]:g} in the first of {len(far)} rows; it must be {allowed(metric)}. Is it in "
                "percent?"
            )
        bad = frame[~np.isfinite(frame[metric]) & ~_blank(frame)]
        if len(bad):
            first = bad.iloc[0]
            faults.append(
                f"{metric} is not a finite number in {len(bad)} rows, first in arm {first['arm']}, case "
                f"{first['case']}, class {first['class']}; a row that is left out would flatter the arm: score it by "
                "the rule for empty masks (docs/metrics.md), or leave this metric out"
            )
    return faults


def tolerances_mm(scores: pd.DataFrame) -> list[float]:
    """The tolerances that NSD was scored at, each once, in order; none where the scores do not say it."""
    known = pd.to_numeric(scores.get("nsd_tolerance_mm", pd.Series(dtype=float)), errors="coerce")
    return sorted({float(mm) for mm in known if np.isfinite(mm)})


def _row_faults(frame: pd.DataFrame) -> list[str]:
    faults = []
    repeated = frame[frame.duplicated(["arm", "seed", "case", "class"], keep=False)]
    if len(repeated):
        arm, seed, _, case = repeated.iloc[0][list(KEYS[:4])]
        first = repeated[(repeated["arm"] == arm) & (repeated["seed"] == seed) & (repeated["case"] == case)]
        faults.append(
            f"{len(repeated)} rows are not the only one of their arm, seed, case and class, first arm {arm}, seed "
            f"{seed}, case {case} (fold {few(set(first['fold']))}); within a seed each case is tested once: drop the "
            "copies, or give repeated tests a seed of their own"
        )
    patients = frame.groupby("case")["patient"].nunique()
    if split := list(patients[patients > 1].index):
        faults.append(f"cases of more than one patient: {few(split)}; give each case one patient")
    folds_of = frame.groupby(["seed", "case"])["fold"].nunique()
    if moved := sorted({case for _, case in folds_of[folds_of > 1].index}):
        faults.append(
            f"cases in different folds in different arms: {few(moved)}; arms can be compared on the same splits only"
        )
    return faults


def _known_arms(frame: pd.DataFrame, arms: Sequence[str] | None, rule: Incomplete) -> tuple[list[str], list[str]]:
    """The chosen arms that have scores, and those that have none."""
    present = list(frame["arm"].unique())
    chosen = present if arms is None else [str(arm) for arm in arms]
    absent = [arm for arm in chosen if arm not in present]
    if absent and (rule == "refuse" or len(absent) == len(chosen)):
        raise ConfigError(f"no scores of arms {few(absent)}; there are {few(present)}")
    if len(set(chosen)) < len(chosen):
        raise ConfigError(f"arms {', '.join(chosen)}: name each arm once")
    return [arm for arm in chosen if arm in present], absent


def _known_classes(frame: pd.DataFrame, classes: Sequence[str] | None) -> tuple[str, ...]:
    """The chosen classes, in the order of the table."""
    present = tuple(frame["class"].unique())
    if classes is None:
        return present
    if unknown := set(map(str, classes)) - set(present):
        raise ConfigError(f"no scores of classes {few(unknown)}; there are {few(present)}")
    if not classes:
        raise ConfigError("classes is empty; name one of the data set's at least, or take all of them")
    return tuple(name for name in present if name in set(map(str, classes)))


def _complete(frame: pd.DataFrame, arms: Sequence[str], rule: Incomplete) -> tuple[pd.DataFrame, list[str]]:
    """The rows of the cases that count, and what was left out."""
    if rule not in ("refuse", "common"):
        raise ConfigError(f"incomplete is {rule!r}; give refuse or common")
    classes = frame.groupby("case")["class"].nunique()
    found = frame.groupby(["arm", "seed", "case"]).size().unstack(fill_value=0)
    scored = found.eq(classes, axis="columns")  # (arm, seed) × case: with all of the case's classes
    if scored.to_numpy().all():
        return frame, []
    if rule == "refuse":
        raise DataError(_lacking(scored))
    return _common(frame, arms, scored)


def _lacking(scored: pd.DataFrame) -> str:
    short = scored[~scored.all(axis=1)]
    lines = [
        f"arm {arm}, seed {seed}: {int((~line).sum())} cases missing ({few(line.index[~line])})"
        for (arm, seed), line in short.iterrows()
    ]
    more = [f"and {len(lines) - 5} more arms and seeds"] if len(lines) > 5 else []
    return (
        f"arms were not scored on the same cases and classes: {'; '.join(lines[:5] + more)}; finish these runs, or "
        'for a study that is half done give incomplete="common", which compares on what all arms share and says so'
    )


def _common(frame: pd.DataFrame, arms: Sequence[str], scored: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    kept: list[tuple[str, str]] = []
    left_out: list[str] = []
    for arm in arms:
        seeds = scored.loc[arm]
        fullest = seeds.loc[seeds.sum(axis=1).idxmax()]
        whole = (seeds | ~fullest).all(axis=1)  # has every case that the fullest has
        kept += [(arm, seed) for seed in seeds.index[whole]]
        left_out += [f"arm {arm}, seed {seed} (unfinished)" for seed in seeds.index[~whole]]
    shared = scored.loc[kept].all(axis=0)
    if not shared.any():
        raise DataError("no case was scored in every arm yet: there is nothing to compare; finish a fold in every arm")
    if not shared.all():
        left_out.append(f"{int((~shared).sum())} of {len(shared)} cases, which not every arm has scored yet")
    chosen = pd.MultiIndex.from_frame(frame[["arm", "seed"]]).isin(kept) & frame["case"].map(shared)
    return frame[chosen], left_out
