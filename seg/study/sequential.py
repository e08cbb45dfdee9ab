"""Seeds until a study is decided: after which of them it is looked at, at which level, and when it ends.

All arms are trained with ``start`` seeds. At each look every comparison of the primary metric that is still open gets
a verdict, at that look's own level. Where some stay open, the arms in these comparisons are trained with one more
seed, up to ``most``. A verdict, once reached, stands.

With more seeds only a part of a difference's variance shrinks, for the patients stay the same: V(n) = V_patients +
V_seeds / n. Two looks have the covariance V of the later one, as if information 1 / V came in independent parts, which
is all that group-sequential tests ask for (Jennison and Turnbull 2000, Group Sequential Methods, chapter 3). Of the
level α t³ is spent once the share t = V(most) / V(n) of the information is there (Lan and DeMets 1983,
doi:10.1093/biomet/70.3.659, with the function of Kim and DeMets 1987, doi:10.1093/biomet/74.1.149). The tests are those
of any study, at the look's level, so the intervals are repeated confidence intervals (Jennison and Turnbull 1989, JRSS
B 51:305). docs/statistics.md has the simulations.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import optimize, stats

from seg.metrics import Metric
from seg.study.contrasts import Spread, contrast_table, resample, spread
from seg.study.options import LEVEL
from seg.study.question import Seeds
from seg.study.scores import Numbers

LEAST = 0.01  # share of the level below which a look spends nothing: the draws would have to be very many
STEP = 0.001  # of information between two looks, at least
DOUBT = 0.05  # that the variance over seeds is above its upper limit
CHANCE = 0.1  # of a verdict at the last look, below which a comparison gets no more seeds
NODES, WIDTHS = np.polynomial.legendre.leggauss(120)  # where in (-1, 1) a density is known, and with which weights


@dataclass(frozen=True)
class Look:
    """What is known after so many seeds."""

    seeds: tuple[int, ...]  # of each arm
    information: float  # share of what the most seeds would give, in (0, 1], at least, in each open comparison
    level: float  # two-sided, of the whole family
    table: pd.DataFrame  # of ``contrast_table``, at this level; a comparison decided before has the line of its look
    decided: tuple[int, ...]  # for each comparison: after how many seeds; 0: it is open
    given_up: tuple[int, ...]  # the same, for those that would most likely stay open
    wanted: tuple[int, ...]  # arms that get another seed; none: the study ends here
    last: bool  # whether the most seeds are reached

    @property
    def why(self) -> str:
        """Why the study ends here: "decided", "futile" or "most"; "" where it goes on."""
        if self.wanted:
            return ""
        return "decided" if all(self.decided) else "most" if self.last else "futile"


@dataclass(frozen=True)
class Looking:
    """What is asked at every look."""

    weights: Numbers  # (comparisons, arms), as in ``contrast_table``: 1 for an arm, -1 for the one it is compared with
    metric: Metric  # that decides
    seeds: Seeds
    margin: float  # NaN: none
    alpha: float = LEVEL  # two-sided level of all looks together
    draws: int = 10_000  # of the bootstrap, at least
    seed: int = 0  # of the bootstrap

    def looks(
        self, values: Sequence[Numbers], at: Callable[[Sequence[int]], Sequence[Numbers]] | None = None
    ) -> list[Look]:
        """Every look that these scores allow, the first one first; always the same for the same scores.

        Args:
            values: for each arm (seeds, patients), the seeds in the order in which they are trained; those that no
                look asked for are left out.
            at: the same of the first seeds of each arm, so many, where later ones change which cases count; None: the
                first rows of ``values``.
        """
        found: list[Look] = []
        wanted: Sequence[int] = range(len(values))
        for count in range(self.seeds.start, self.seeds.most + 1):
            if not wanted or min(len(values[arm]) for arm in wanted) < count:
                break
            before = found[-1].seeds if found else (count,) * len(values)
            taken = tuple(count if arm in wanted else own for arm, own in enumerate(before))
            parts = spread(at(taken) if at else [arm[:own] for arm, own in zip(values, taken, strict=True)])
            found.append(self._look(found, parts, taken, count))
            wanted = found[-1].wanted
        return found

    def _look(self, before: Sequence[Look], parts: Spread, taken: tuple[int, ...], count: int) -> Look:
        none = (0,) * len(self.weights)
        decided, given_up = (
            np.array(one) for one in ((before[-1].decided, before[-1].given_up) if before else (none, none))
        )
        shares = information(parts, self.weights, count, self.seeds.most)
        cautious = information(parts, self.weights, count, self.seeds.most, cautious=True)
        least = float(cautious[(decided == 0) & (given_up == 0)].min(initial=1.0))
        known = _growing([look.information for look in before], least, self.seeds.most - count)
        level = levels(known, self.alpha, len(self.weights))[-1]
        (drawn,) = resample([parts], enough(level, self.draws), self.seed)
        table = contrast_table(parts, drawn, self.weights, self.metric, margin=self.margin, alpha=level)
        if before:
            table.loc[decided > 0] = before[-1].table
        decided[(decided == 0) & (table["verdict"] != "inconclusive")] = count
        among = self.alpha / max(int((decided == 0).sum()), 1)
        futile = chance(table, shares, parts.means.shape[1], self.margin, among) < CHANCE
        given_up[(decided == 0) & (given_up == 0) & futile] = count
        last = count == self.seeds.most
        going_on = (decided == 0) & (given_up == 0) & (not last)
        wanted = tuple(np.flatnonzero((self.weights[going_on] != 0).any(0)).tolist())
        return Look(taken, known[-1], level, table, tuple(decided.tolist()), tuple(given_up.tolist()), wanted, last)


def enough(level: float, draws: int) -> int:
    """Draws of the bootstrap for an interval of this level."""
    return max(draws, ceil(20 / level)) if level else draws


def information(parts: Spread, weights: Numbers, count: int, most: int, *, cautious: bool = False) -> Numbers:
    """(comparisons,) V(most) / V(count): what part of the information of ``most`` seeds there is after ``count``.

    What shrinks with seeds is s² / seeds of both arms: the seeds' own part, and what V_patients has of the rest. Few
    seeds tell little of s². Where it is too small by chance, p-values are, too, and a study that took it at its word
    would spend too much of its level just then (simulated: 6 % of false claims). So levels rest on ``cautious``: its
    upper limit (95 %, one-sided) instead.
    """
    freedom = parts.own_df if parts.abnormal.any() else np.full(len(parts.means), parts.seed_df)
    more = freedom / stats.chi2.ppf(DOUBT, freedom) if cautious else np.ones(len(parts.means))
    patients = (weights @ parts.means).var(1, ddof=1) / parts.means.shape[1]
    variance = patients + weights**2 @ (parts.seed_net + (more - 1) * parts.seed_gross)
    shrinking = np.minimum(weights**2 @ (more * parts.seed_gross), variance)
    share = np.divide(shrinking, variance, out=np.zeros(len(variance)), where=variance > 0)
    left: Numbers = 1 - share * (1 - count / most)
    return left


def _growing(before: Sequence[float], share: float, looks_left: int) -> list[float]:
    """With ``share`` added, kept above all before it and below what later looks will have: variances are estimates."""
    least = before[-1] + STEP if before else 0.0
    return [*before, max(least, min(share, 1 - STEP * looks_left)) if looks_left else 1.0]


def levels(shares: Sequence[float], alpha: float, family: int = 1) -> list[float]:
    """Two-sided level of each look, for a whole family under Holm's adjustment.

    Of each comparison α / m × t³ is spent in all at information t; of a family of m, its first step gets m times the
    level of one (Ye, Li, Liu and Yao 2013, Stat Med 32:1112). Levels of a smaller part of the family might be
    larger, so this holds for it, too.

    Args:
        shares: of the information, rising, the last one at most 1.
        alpha: of all looks together.
        family: comparisons.

    Source: recursive integration, Armitage, McPherson and Rowe 1969, doi:10.2307/2343787.
    """
    return [family * _after(tuple(shares[: n + 1]), alpha / family).level for n in range(len(shares))]


class _Passed(NamedTuple):
    """What is known after some looks of one comparison, had none of them claimed anything."""

    level: float  # of the last look
    spent: float  # in all
    points: Numbers  # of the score
    weights: Numbers  # probability of each


@lru_cache(256)
def _after(shares: tuple[float, ...], alpha: float) -> _Passed:
    """The looks at these shares of the information, one after the other."""
    if not shares:
        return _Passed(0.0, 0.0, np.zeros(1), np.ones(1))
    *earlier, share = shares
    before = _after(tuple(earlier), alpha)
    step, end = np.sqrt(share - (earlier[-1] if earlier else 0.0)), 8 * np.sqrt(share)
    due = alpha * share**3 - before.spent
    level = 0.0
    if share**3 >= LEAST and due > 0:
        end = optimize.brentq(lambda end: _beyond(end, before, step) - due, 0, end)
        level = 2 * float(stats.norm.sf(end / np.sqrt(share)))
    density = stats.norm.pdf((NODES[:, None] * end - before.points) / step) @ before.weights / step
    return _Passed(level, before.spent + due * bool(level), NODES * end, density * WIDTHS * end)


def _beyond(end: float, before: _Passed, step: float) -> float:
    """Probability that the score is beyond ± end after a normal step."""
    tails = stats.norm.sf((end - before.points) / step) + stats.norm.cdf((-end - before.points) / step)
    return float(before.weights @ tails)


def chance(table: pd.DataFrame, shares: Numbers, patients: int, margin: float, level: float) -> npt.NDArray[np.float64]:
    """(comparisons,) How probable a verdict is at the last look, as far as this one can tell.

    The difference then lies around the present one with the variance by which V will have shrunk (predictive power,
    Spiegelhalter, Freedman and Blackburn 1986, Controlled Clinical Trials 7:8). Only the test of the mean is asked,
    and that of equivalence.

    Args:
        table: of ``contrast_table``.
        shares: of the information, now.
        patients: that there are.
        margin: NaN: none.
        level: two-sided, at the last look.
    """
    size, now = table["difference"].abs().to_numpy(), table["standard_error"].to_numpy()
    then, moves = now * np.sqrt(shares), np.maximum(now * np.sqrt(1 - shares), 1e-12)
    freedom = table["freedom"].to_numpy() / shares
    needed = stats.t.isf(level / 2, freedom) * then
    claim = stats.norm.sf((needed - size) / moves) + stats.norm.sf((needed + size) / moves)
    claim *= 2.0 ** (1 - patients) <= level  # what Wilcoxon's test can reach
    room = np.nan_to_num(margin - stats.t.isf(level, freedom) * then, nan=-np.inf)
    same = stats.norm.cdf((room - size) / moves) - stats.norm.cdf((-room - size) / moves)
    return np.asarray(claim + np.maximum(same, 0))
