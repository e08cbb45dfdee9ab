"""The rows of ``cases.csv``."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from seg.data.cases import Case
from seg.data.grids import Unit
from seg.metrics import COUNTS, MEAN_OF_CLASSES, METRICS, score_case, summary
from seg.regions import Regions

Row = dict[str, float | int | str]
CASE_COLUMNS = ("run_id", "case", "patient", "class", *METRICS, "missed", "false", "nsd_tolerance_mm")


def part_metrics(cases: pd.DataFrame, part: str) -> dict[str, float]:
    """``<part>_<metric>``, the mean over classes and cases, and ``<part>_dice_<class>``, of rows of ``cases.csv``."""
    if cases.empty:
        return {}
    table = summary(cases)
    mean = table.loc[MEAN_OF_CLASSES]
    found = {f"{part}_{metric}": float(mean[f"{metric}_mean"]) for metric in METRICS}
    found |= {f"{part}_{count}": int(mean[count]) for count in COUNTS}
    found |= {f"{part}_dice_{name}": float(row["dice_mean"]) for name, row in table.iloc[:-1].iterrows()}
    return {name: value for name, value in found.items() if not math.isnan(value)}  # NaN: no case has the class


def case_rows(
    case: Case,
    pred: np.ndarray,
    label: np.ndarray,
    names: Sequence[str],
    *,
    run: str,
    spacing_mm: Sequence[float],
    tolerance_mm: float,
    unit: Unit = "mm",
    within: Regions | None = None,
) -> list[Row]:
    """The rows of a case in ``cases.csv``, one per foreground class, or region.

    Args:
        case: its id and patient.
        pred: class indices (X, Y, Z).
        label: class indices of the same shape, IGNORE where nobody annotated.
        names: of the classes, background first.
        run: beginning of the run id.
        spacing_mm: of the grid, per axis.
        tolerance_mm: of nsd.
        unit: of all lengths; pixels stand in the rows, in a column of their own.
        within: of regions, as in ``seg.regions``.
    """
    about: Row = {"run_id": run, "case": case.id, "patient": case.patient}
    scores = score_case(pred, label, names, spacing_mm, tolerance_mm, within)
    lengths: Row = {"nsd_tolerance_mm": tolerance_mm} | ({} if unit == "mm" else {"unit": unit})
    return [about | score | lengths for score in scores]
