"""How well the arms of a study are calibrated: a secondary, exploratory table."""

import numpy as np
import pandas as pd

from seg.study.analysis import Analysis
from seg.study.contrasts import interval, resample, spread
from seg.study.scores import arrays_of, scored
from seg.study.sentences import percent
from seg.study.typeset import Cell, Table

ERRORS = {"ece": "ECE ↓", "ace": "mL1-ACE ↓"}  # columns of a run's calibration.csv


def calibration_table(scores: pd.DataFrame, analysis: Analysis) -> Table | None:
    """Expected and average calibration error of each arm with intervals, and the difference to the baseline.

    The mean over the judged classes of a case, where they count, then over cases, seeds and patients, as of any metric.

    Args:
        scores: as in ``analyse``, with the columns of ``ERRORS`` where all runs have them.
        analysis: of them.

    Returns:
        None where a run has none, or while arms are not all scored on the same patients in each seed.
    """
    meta = analysis.meta
    if not {*ERRORS} <= {*scores}:
        return None
    rows = scored(scores, [meta.primary]).astype({"arm": str, "seed": str, "patient": str, "case": str})
    rows = rows[rows["class"].isin(meta.classes) & rows["arm"].isin(meta.arms)]
    rows = rows.assign(**{name: pd.to_numeric(rows[name], errors="coerce") for name in ERRORS})
    if rows.groupby("arm")["patient"].agg(frozenset).nunique() > 1:
        return None
    by_error = arrays_of(rows, meta.arms, [*ERRORS])
    unknown = [arm for arrays in by_error.values() for arm in arrays if np.isnan(arm).any()]
    if unknown or rows[[*ERRORS]].isna().any(axis=None):
        return None
    parts = [spread(arrays) for arrays in by_error.values()]
    columns = [[*map(Cell, meta.arms)]]
    for part, drawn in zip(parts, resample(parts, meta.draws, meta.seed), strict=True):
        means = part.means.mean(1)
        for value, deviations, sign in ((means, drawn, ""), (means - means[0], drawn - drawn[:, :1], "+")):
            low, high = interval(deviations, 1 - meta.nominal)
            least = -1 if sign else 0
            ends = zip(value, np.clip(value + low, least, 1), np.clip(value + high, least, 1), strict=True)
            texts = [f"{a:{sign}.4f} [{b:{sign}.4f}, {c:{sign}.4f}]".replace("-", "−") for a, b, c in ends]
            columns.append([Cell(text) for text in (["–", *texts[1:]] if sign else texts)])
    heads = ["Arm"]
    for name in ERRORS.values():
        heads += [name, f"Δ to {analysis.baseline}"]
    note = (
        "How far probabilities are from the truth, by class against the rest, in 20 bins over the whole volume; mean "
        f"and {percent(1 - meta.alpha)} interval over {meta.drawn}. ECE weighs each bin by its voxels, most of them "
        "plainly background; mL1-ACE weighs all bins alike, and so tells of the doubtful voxels. 0 is best. "
        "Exploratory, without a verdict; read a difference beside that of Dice."
    )
    return Table("Calibration", heads, {"": [list(row) for row in zip(*columns, strict=True)]}, note)
