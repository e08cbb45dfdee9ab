"""Patients who fare worse than the mean tells: the worst tenth of each arm, and groups such as sites or scanners.

The worst tenth is the mean over the tenth of the patients that an arm itself does worst on, weighted where a tenth is
no whole number: the conditional value at risk, or expected shortfall (Rockafellar and Uryasev 2000,
doi:10.21314/JOR.2000.038). Each arm has its own: patients chosen because one arm fails on them look better in any other
arm by chance alone. Differences are paired, as patients are resampled together for all arms.

Groups have simultaneous intervals (max-|t| bootstrap: Westfall and Young 1993; Romano and Wolf 2005,
doi:10.1198/016214504000000539): in 95 % of studies all of them hold at once, so that the worst group may be picked out.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from seg.errors import ConfigError, DataError, counted, few, together
from seg.study.contrasts import Spread, interval, student, times_drawn
from seg.study.scores import Numbers

SHARE = 0.1  # of the patients
TENTH_SHOWN_FROM = 20  # patients, from which on there is a worst tenth, of two
TENTH_FROM = 40  # patients, from which on the worst tenth has an interval
GROUP_FROM = 10  # patients, from which on a group is judged
WORST = "worst tenth"
COLUMNS = ("subset", "patients", "line", "value", "ci_low", "ci_high")


def subset_tables(
    parts: Spread,
    weights: Numbers,
    better: int,
    patients: Sequence[str],
    groups: Mapping[str, str] | None,
    **rules: Any,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The worst tenth, then each group: of every arm, and of every comparison.

    Args:
        parts: of ``spread``.
        weights: (comparisons, arms).
        better: 1 where more is better, -1 where less is.
        patients: names, in the order of ``parts``.
        groups: the group of each patient; None: there are no groups.
        rules: draws, seed and alpha of the bootstrap.

    Returns:
        Two tables of ``subset``, ``patients``, ``line`` (the place of the arm or the comparison), ``value``, ``ci_low``
        and ``ci_high``, NaN where there is no interval.

    Raises:
        DataError: a patient has no group.
    """
    places = _places(groups, patients) if groups else {}
    tables = []
    for lines in (np.eye(len(parts.means)), weights):
        found = [tenth_table(parts, lines, better, **rules)] if len(patients) >= TENTH_SHOWN_FROM else []
        found += [group_table(parts, places, lines, **rules)] if places and len(lines) else []
        tables.append(pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=[*COLUMNS]))
    return tables[0], tables[1]


def worst_tenth(means: Numbers, better: int, weights: Numbers | None = None) -> Numbers:
    """Mean over the worst tenth of the patients of each arm.

    Args:
        means: (arms, patients).
        better: 1 where more is better, -1 where less is.
        weights: (draws, patients) how often each patient was drawn; None: once.

    Returns:
        (draws, arms); a single draw without weights.
    """
    count = means.shape[1]
    weights = np.ones((1, count)) if weights is None else weights
    columns = []
    for values in means:
        order = np.argsort(values * better, kind="stable")
        filled = np.minimum(np.cumsum(weights[:, order], axis=1), SHARE * count)
        columns.append(np.diff(filled, axis=1, prepend=0) @ values[order] / (SHARE * count))
    return np.stack(columns, axis=1)


def tenth_deviations(parts: Spread, better: int, draws: int, seed: int) -> Numbers:
    """Bootstrap of ``worst_tenth``: how far it might lie off in each arm (draws, arms).

    As ``resample``, with the tails of Student's t for as few patients as the tenth has; seeds shift all patients alike.
    """
    rng = np.random.default_rng(seed)
    count = parts.means.shape[1]
    tenths = [worst_tenth(parts.means, better, weights) for weights in times_drawn(rng, count, draws)]
    patients = np.concatenate(tenths) - worst_tenth(parts.means, better)
    patients *= np.sqrt(count / (count - 1)) * student(rng, max(round(SHARE * count) - 1, 1), draws)
    return patients + _seeds(parts, rng, draws)


def _seeds(parts: Spread, rng: np.random.Generator, draws: int) -> Numbers:
    """(draws, arms) how far other seeds might shift the mean of an arm."""
    freedom = parts.own_df if parts.abnormal.any() else parts.seed_df
    shifts: Numbers = (
        rng.normal(size=(draws, len(parts.means))) * student(rng, freedom, draws) * np.sqrt(parts.seed_net)
    )
    return shifts


def tenth_table(parts: Spread, weights: Numbers, better: int, *, draws: int, seed: int, alpha: float) -> pd.DataFrame:
    """The worst tenth by contrast of arms (one line each): value and interval, which few patients do not have.

    Args:
        parts: of ``spread``.
        weights: (lines, arms).
        better: 1 where more is better, -1 where less is.
        draws: of the bootstrap.
        seed: of the bootstrap.
        alpha: two-sided level.
    """
    count = parts.means.shape[1]
    value = (worst_tenth(parts.means, better) @ weights.T)[0]
    table = pd.DataFrame({"subset": WORST, "patients": round(SHARE * count), "line": range(len(value)), "value": value})
    low = high = np.full(len(table), np.nan)
    if count >= TENTH_FROM and len(table) and not weights.sum(1).any():  # of an arm alone it is not known: see docs
        low, high = interval(tenth_deviations(parts, better, draws, seed) @ weights.T, 1 - alpha)
    return table.assign(ci_low=table["value"] + low, ci_high=table["value"] + high)


def group_table(
    parts: Spread, places: Mapping[str, Numbers], weights: Numbers, *, draws: int, seed: int, alpha: float
) -> pd.DataFrame:
    """Means of contrasts of arms by group: group by group, a line each.

    Intervals hold at once for all groups of ``GROUP_FROM`` patients or more, and all lines of ``weights``; smaller
    groups have none. Patients are resampled within their group, for all arms together.

    Args:
        parts: of ``spread``.
        places: of each group, which patients are in it.
        weights: (lines, arms).
        draws: of the bootstrap.
        seed: of the bootstrap.
        alpha: two-sided level.
    """
    rng = np.random.default_rng(seed)
    seeds, net = _seeds(parts, rng, draws) @ weights.T, weights**2 @ parts.seed_net
    calm = ~((weights != 0) @ parts.abnormal)  # a failed training does not widen what is said of other arms
    tables, reach, largest = [], [], np.zeros((2, draws))
    for name, members in places.items():
        own, count = weights @ parts.means[:, members], len(members)
        error = np.full(len(own), np.nan)
        if count >= GROUP_FROM:
            error = np.sqrt(own.var(1, ddof=1) / count + net)
            drawn = rng.multinomial(count, np.full(count, 1 / count), size=draws) @ (own - own.mean(1, keepdims=True)).T
            drawn = drawn / count * np.sqrt(count / (count - 1)) * student(rng, count - 1, draws)
            scaled = np.abs(drawn + seeds) / np.where(error > 0, error, np.inf)
            for place, lines in enumerate((calm, np.ones(len(own), bool))):
                largest[place] = np.maximum(largest[place], scaled[:, lines].max(axis=1, initial=0))
        tables.append(pd.DataFrame({"subset": name, "patients": count, "line": range(len(own)), "value": own.mean(1)}))
        reach.append(error)
    among_calm, among_all = np.quantile(largest, 1 - alpha, axis=1)
    table = pd.concat(tables, ignore_index=True)
    half = np.concatenate(reach) * np.where(calm[table["line"]], among_calm, among_all)
    return table.assign(ci_low=table["value"] - half, ci_high=table["value"] + half)


def read_groups(path: Path) -> dict[str, dict[str, str]]:
    """A table of groups: ``{"patient": {name: group}}``, or of ``"case"``.

    Args:
        path: a CSV whose first column is headed ``patient`` or ``case``; the second one has the groups. Or the table of
            a data set, whose columns ``case`` and ``group`` count.

    Raises:
        ConfigError: it is not such a file, or names someone twice.
    """
    from seg.data.patients import table_of
    from seg.data.volumes import stem

    rule = "Groups are a CSV of two columns: `patient,site` or `case,site`, then a line for each."
    faults: list[str] = []
    try:
        columns, rows = table_of(path, faults)
    except OSError as error:
        raise ConfigError(f"{path} is not a readable CSV: {error}. {rule}") from error
    together(ConfigError, faults)
    if columns.count("case") == columns.count("group") == 1:
        columns = ["case", "group"]
    if len(columns) != 2 or columns[0] not in ("patient", "case") or columns[1] in ("", "patient", "case"):
        raise ConfigError(f"{path} has the columns {', '.join(columns)}. {rule}")
    key, group = columns
    known: dict[str, str] = {}
    for line, row in rows:
        name = stem(Path(row[key])) if key == "case" else row[key]
        if not (name and row[group]):
            faults.append(f"{path}: line {line} has an empty cell. {rule}")
        elif name in known:  # no message shows a patient
            faults.append(f"{path}: the {key} of line {line} is there before. {rule}")
        known[name] = row[group]
    spellings = {name.casefold(): name for name in known.values()}
    if alike := sorted(name for name in {*known.values()} if spellings[name.casefold()] != name):
        faults.append(f"{path}: the groups {few(alike)} are there in other capital letters, too. Write each one way.")
    together(ConfigError, faults)
    return {key: known}


def patient_groups(groups: Mapping[str, Mapping[str, str]], whose: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The group of each patient.

    Args:
        groups: of ``read_groups``.
        whose: (case, patient) of every case that is scored.

    Raises:
        DataError: someone has no group, or a patient's cases have several.
    """
    ((key, known),) = groups.items()
    found: dict[str, str] = {}
    lacking, torn = set(), set()  # by their cases: no message shows a patient
    for case, patient in whose:
        name = patient if key == "patient" else case
        group = known.get(name)
        if group is None:
            lacking.add(case)
        elif found.setdefault(patient, group) != group:
            torn.add(case)
    whom = "cases" if key == "case" else "patients of the cases"
    faults = [f"The table of groups lacks the {whom} {few(lacking)}. Add a line for each."] if lacking else []
    faults += [f"Cases in another group than others of their patient: {few(torn)}. Give a patient one."] if torn else []
    together(DataError, faults)
    return found


def _places(groups: Mapping[str, str], patients: Iterable[str]) -> dict[str, Numbers]:
    """Of each group the places of its patients, largest group first; DataError for a patient without one."""
    order = list(patients)
    if lacking := [patient for patient in order if pd.isna(groups.get(patient)) or groups[patient] == ""]:
        raise DataError(f"groups lacks {counted(len(lacking), 'patient')}; give each patient one")
    places: dict[str, list[int]] = {}
    for place, patient in enumerate(order):
        places.setdefault(groups[patient], []).append(place)
    return {name: np.array(own) for name, own in sorted(places.items(), key=lambda one: (-len(one[1]), one[0]))}
