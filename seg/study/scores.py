"""The scores of a study as statistics need them: read, checked, complete, one value per patient.

The input is one table: one row per arm, seed, case and class, as the runs' ``data/cases.csv`` put below each other with
the columns ``arm``, ``seed`` and ``fold`` added. What is missing, doubled or not a number is refused, never filled in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from seg.errors import ConfigError, DataError, few, together
from seg.metrics import COUNTS, METRICS

KEYS = ("arm", "seed", "fold", "case", "patient", "class")

Numbers = npt.NDArray[np.float64]
Incomplete = Literal["refuse", "common"]


@dataclass(frozen=True)
class Values:
    """Scores of the patients: for each metric one array (seeds, patients) an arm, patients in the same order in all."""

    arms: tuple[str, ...]
    patients: tuple[str, ...]
    by_metric: dict[str, list[Numbers]]
    seeds: dict[str, int]
    cases: int
    folds: int
    failures: pd.DataFrame  # by arm: missed and false (where counted) over all its rows, and structures, their number
    left_out: tuple[str, ...]  # what was left out as incomplete, in words


def higher_is_better(metric: str) -> bool:
    """Which way a metric points.

    Raises:
        ConfigError: it points nowhere (a signed error) or is unknown.
    """
    if metric not in directed():
        raise ConfigError(
            f"metric {metric!r} has no better direction, so arms cannot be compared by it; take one of "
            f"{', '.join(directed())}"
        )
    return METRICS[metric].better > 0


def directed() -> list[str]:
    """The metrics that say which of two values is better."""
    return [name for name, metric in METRICS.items() if metric.better]


def patient_values(
    scores: pd.DataFrame,
    *,
    arms: Sequence[str] | None,
    metrics: Sequence[str],
    incomplete: Incomplete = "refuse",
) -> Values:
    """Checks a table of scores and averages it to one value per arm, seed and patient.

    Classes are averaged within a case, then cases within a patient: the patient is what was drawn at random, and a
    patient with three scans is no more than one. Out-of-fold cases are pooled.

    Args:
        scores: one row per arm, seed, case and class; columns ``KEYS`` and the metrics.
        arms: which, in order; None: all, in order of appearance.
        metrics: of seg.metrics.METRICS.
        incomplete: what to do where a case is missing in an arm or seed; "refuse", or "common" for a study that is half
            done: the arms that have scores, of each the seeds that scored every case of its fullest seed, and of these
            the cases that all arms share. ``left_out`` says what was left out.

    Raises:
        ConfigError: an unknown arm or metric.
        DataError: columns missing, duplicate rows, values that are not numbers, a case of two patients or in two folds,
            cases missing, fewer than two patients.
    """
    frame = _checked(scores, metrics)
    arms, absent = _known_arms(frame, arms, incomplete)
    frame = frame[frame["arm"].isin(arms)]
    frame, left_out = _complete(frame, arms, incomplete)
    patients = sorted(frame["patient"].unique())
    if len(patients) < 2:
        raise DataError(f"the arms share {len(patients)} patient; statistics over patients need two at least")
    by_case = frame.groupby(["arm", "seed", "patient", "case"])[list(metrics)].mean()
    by_patient = by_case.groupby(level=["arm", "seed", "patient"]).mean()
    tables = [by_patient.loc[arm] for arm in arms]
    return Values(
        arms=tuple(arms),
        patients=tuple(patients),
        by_metric={metric: [_array(table[metric]) for table in tables] for metric in metrics},
        seeds={arm: len(table.index.unique("seed")) for arm, table in zip(arms, tables, strict=True)},
        cases=frame["case"].nunique(),
        folds=frame["fold"].nunique(),
        failures=_failures(frame, arms),
        left_out=(*(f"arm {arm} (without scores)" for arm in absent), *left_out),
    )


def _failures(frame: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    rows = frame.groupby("arm")
    counts = rows[[column for column in COUNTS if column in frame]].sum()
    return counts.assign(structures=rows.size()).loc[list(arms)]


def _array(column: "pd.Series[float]") -> Numbers:
    values: Numbers = column.unstack("patient").sort_index(axis=1).to_numpy(float)
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
    numbers = {metric: pd.to_numeric(scores[metric], errors="coerce") for metric in metrics}
    frame = scores.assign(**{key: scores[key].astype(str) for key in KEYS}, **numbers)
    faults += _value_faults(frame, metrics) + _row_faults(frame)
    together(DataError, faults)
    return frame


def _value_faults(frame: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
    faults = []
    for metric in metrics:
        bad = frame[~np.isfinite(frame[metric].to_numpy(float))]
        if len(bad):
            first = bad.iloc[0]
            faults.append(
                f"{metric} is not a finite number in {len(bad)} rows, first in arm {first['arm']}, case "
                f"{first['case']}, class {first['class']}; a row that is left out would flatter the arm: score it by "
                "the rule for empty masks (docs/metrics.md), or leave this metric out"
            )
    return faults


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
