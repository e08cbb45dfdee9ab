"""What a study can see: the smallest difference it would find, and what it would take to find a smaller one."""

from functools import lru_cache
from math import ceil, inf, isfinite

import numpy as np
import pandas as pd
from scipy import stats

from seg.study.scores import Numbers, Row

POWER = 0.8
FEW = 20  # patients up to which the rank test needs a clearly larger difference than the test of the mean


def smallest(table: pd.DataFrame, count: int, level: float) -> Numbers:
    """The true difference that a study like this one would find in 80 of 100 repetitions.

    What must be exceeded to be found, plus (t of the power) × standard error; of few patients more, by ``rank_price``.
    Infinite where the patients are too few for Wilcoxon's test ever to reach the level, which is 2 ^ (1 - patients) at
    best.

    Args:
        table: of contrasts: ``standard_error``, ``freedom``, ``seed_share``, ``ci_low`` and ``ci_high``.
        count: of the patients.
        level: two-sided, of one contrast: Bonferroni's in the family, where Holm starts.

    Source: minimum detectable effect, Bloom 1995, doi:10.1177/0193841X9501900504.
    """
    if 2.0 ** (1 - count) > level:
        return np.full(len(table), np.inf)
    error, freedom = table["standard_error"].to_numpy(), table["freedom"].to_numpy()
    found: Numbers = (exceeded(table, level) + stats.t.ppf(POWER, freedom) * error) * price(table, count, level)
    return found


def exceeded(table: pd.DataFrame, level: float) -> Numbers:
    """What the mean difference must exceed to be found: (t of the level) × standard error, and half the interval.

    Args:
        table: as in ``smallest``.
        level: as there.
    """
    error, freedom = table["standard_error"].to_numpy(), table["freedom"].to_numpy()
    half: Numbers = (table["ci_high"] - table["ci_low"]).to_numpy() / 2
    needed: Numbers = np.maximum(stats.t.isf(level / 2, freedom) * error, half)
    return needed


def price(table: pd.DataFrame, count: int, level: float) -> Numbers:
    """How many times larger a difference must be for both tests; seeds move all patients, which ranks see like means.

    Args:
        table: as in ``smallest``.
        count: as there; enough for Wilcoxon's test to reach the level.
        level: as there.
    """
    share = table["seed_share"].to_numpy()
    factor: Numbers = np.sqrt(share + (1 - share) * rank_price(count, level) ** 2)
    return factor


@lru_cache
def rank_price(patients: int, level: float) -> float:
    """How many times larger a difference must be for both tests than for that of the mean; 1 for many patients.

    Simulated with normal differences. A shift is found by the signed-rank test once it lifts the critical one of the
    Walsh averages, the means of all pairs, above 0.

    Source: Hollander, Wolfe and Chicken 2014, Nonparametric Statistical Methods, chapter 3.
    """
    if patients > FEW:
        return 1.0
    counts = np.ones(1)  # of signs by their sum of ranks
    for rank in range(1, patients + 1):
        counts = np.convolve(counts, np.eye(rank + 1)[[0, -1]].sum(0))
    critical = int(np.searchsorted(2 * counts.cumsum() / 2**patients, level, side="right")) - 1
    values = np.random.default_rng(0).normal(size=(4000, patients))
    one, other = np.triu_indices(patients)
    by_ranks = -np.sort(values[:, one] + values[:, other], axis=1)[:, critical] / 2
    error, needed = values.std(1, ddof=1) / np.sqrt(patients), stats.t.isf(level / 2, patients - 1)
    both = np.quantile(np.maximum(by_ranks, needed * error - values.mean(1)), POWER)
    return float(max(1, both * np.sqrt(patients) / (needed + stats.t.ppf(POWER, patients - 1))))


def takes(line: Row, target: float, patients: int, seeds: int, level: float) -> str:
    """What a study would need for its smallest visible difference to fall to ``target``, in words.

    The standard error shrinks with the root of the patients and, in its other part, of the seeds, and the degrees of
    freedom grow with them.

    Args:
        line: of the comparisons.
        target: a size of difference.
        patients: that there are.
        seeds: an arm.
        level: at which a comparison is found, two-sided.
    """
    if not isfinite(line["smallest"]):
        more = "more patients" if 2.0 ** (1 - patients) > level else "more patients, or more seeds"
        return f"{more}: so small a study would find no difference at all"
    freedom, share = float(line["freedom"]), float(line["seed_share"])
    factor = goal = (target / line["smallest"]) ** 2
    for _ in range(20):  # more of both lowers the quantiles, too
        factor = goal * (_quantiles(level, freedom) / _quantiles(level, freedom / factor)) ** 2
    more_seeds = share / (factor - (1 - share)) if factor > 1 - share else inf
    more_patients = (1 - share) / (factor - share) if factor > share else inf
    kept = " with these seeds" if seeds > 1 else ""
    ways = {
        f"{ceil(seeds * more_seeds)} seeds an arm with these patients" if 0 < more_seeds < inf else "": more_seeds,
        f"{ceil(patients * more_patients)} patients{kept}" if more_patients < inf else "": more_patients,
    }
    # One of the two alone is advice only where it does not take many times what both together take.
    alone = [f"about {way}" for way, times in ways.items() if way and times <= 4 / factor]
    return ", or ".join(alone) or f"about {ceil(patients / factor)} patients and {ceil(seeds / factor)} seeds an arm"


def _quantiles(level: float, freedom: float) -> float:
    """Standard errors between no difference and one that is found with the power of ``POWER``."""
    return float(stats.t.isf(level / 2, freedom) + stats.t.ppf(POWER, freedom))
