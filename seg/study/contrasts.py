"""Differences between arms, and how certain they are: plain arrays in, plain arrays out.

A score y[arm, seed, patient] is taken as the arm's mean, plus what this patient does in this arm, plus what this
training (seed) does to every patient, plus a rest. Patients are the same in all arms, seeds are not: seed 0 of one
network starts nothing alike in another. So a mean difference is uncertain for two reasons that must be added:

    V = V_patients + V_seeds,   V_patients = var(differences of the seed-averaged patients) / patients
                                V_seeds    = sum over both arms of (s² - e²) / seeds, not below 0

s² is the variance over seeds of the arm's mean, e² the part of it that comes from the rest and that V_patients counts
already. It is the analysis of variance by which radiology compares devices over readers and cases (Dorfman, Berbaum and
Metz 1992, doi:10.1097/00004424-199209000-00015; Hillis 2007, doi:10.1002/sim.2532), with seeds for readers. With three
seeds s² of one arm is hardly known, so each arm gets the larger of its own and of the pooled s² of all arms. Arms whose
seed spread is abnormal, larger than chance allows in the typical patient, are left out of the pool, so that one failed
training does not widen the intervals of all others; then every s² counts with its own few degrees of freedom, for the
pool is no longer to be trusted. An arm of one seed borrows the s² of the others, and nothing is claimed of it.
A finished tool of one seed is meant as it is: no seed of its own makes its differences uncertain.
docs/statistics.md has the simulations behind each choice.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from seg.metrics import Metric
from seg.study.power import smallest
from seg.study.scores import Numbers

ABNORMAL = 0.03  # nominal level, for all arms together, at which the spread of an arm's seeds is taken for another one
TRIMMED = 0.25  # share of the patients left out at either end where only the typical patient is asked
CHUNK = 2_000_000  # resampling weights held at a time


@dataclass(frozen=True)
class Spread:
    """One metric: what the patients reach in each arm, and what the seeds add to the variance of an arm's mean."""

    means: Numbers  # (arms, patients), averaged over seeds
    seed_sd: Numbers  # (arms,) SD over seeds of the arm's mean, NaN for one seed
    seed_gross: Numbers  # (arms,) s² / seeds
    seed_net: Numbers  # (arms,) (s² - e²) / seeds, not below 0
    seed_df: int  # degrees of freedom of the pooled s²; 0: one seed everywhere, nothing is known of seeds
    abnormal: npt.NDArray[np.bool_]  # (arms,) whether an arm's seed spread is abnormal, and it keeps its own s²
    by_seed: tuple[Numbers, ...]  # for each arm its mean in each seed
    own_df: Numbers  # (arms,) degrees of freedom of each s² by itself, for where some are abnormal
    one_seed: npt.NDArray[np.bool_]  # (arms,) whether nothing is known of another training of the arm


def spread(values: Sequence[Numbers], fixed: bool | Sequence[bool] = False) -> Spread:
    """Splits the variance of each arm's mean over seeds into the seeds' own and the rest.

    Args:
        values: for each arm (seeds, patients); the number of seeds may differ.
        fixed: which arms are finished tools. Of one seed such a tool is meant as it is, and seeds add nothing.

    Source: two-way analysis of variance, one value a cell; e² = mean square of the rest / patients, as in Hillis 2007.
    """
    seeds = np.array([len(arm) for arm in values])
    own = np.array([arm.mean(1).var(ddof=1) if len(arm) > 1 else np.nan for arm in values])
    rest = np.array([residual(arm) / arm.shape[1] if len(arm) > 1 else np.nan for arm in values])
    own[own <= (1e-9 * max(np.abs(arm).max() for arm in values)) ** 2] = 0  # rounding of means is no spread
    abnormal = _abnormal(values)
    still = (own == 0) & (np.nanmax(own, initial=0) > 0)  # failed alike in every seed: no word on how seeds spread
    freedom = np.where(abnormal | still, 0, seeds - 1)
    total = int(freedom.sum())
    pooled, pooled_rest = (float(np.nansum(part * freedom)) / max(total, 1) for part in (own, rest))
    tools = np.broadcast_to(np.asarray(fixed, bool), len(values))
    larger = np.where(tools & (seeds == 1), 0.0, np.fmax(own, pooled))
    return Spread(
        means=np.stack([arm.mean(0) for arm in values]),
        seed_sd=np.sqrt(own),
        seed_gross=larger / seeds,
        seed_net=np.maximum(larger - np.where(np.isnan(rest), pooled_rest, rest), 0) / seeds,
        seed_df=total,
        abnormal=abnormal,
        by_seed=tuple(arm.mean(1) for arm in values),
        own_df=np.where((seeds > 1) & ~still, seeds - 1, max(total, 1)).astype(float),
        one_seed=(seeds == 1) & ~tools,
    )


def _abnormal(values: Sequence[Numbers]) -> npt.NDArray[np.bool_]:
    """(arms,) whether the spread of an arm's seeds is larger than that of calmer arms, beyond chance.

    It must be so of the means over patients and of what a seed does to the typical patient, the mean of what lies
    between the quartiles (Tukey and McLaughlin 1963): single failed cases, which any sound training has, move only the
    first, and the coarse steps of a distance only the second.
    """
    typical = [stats.trim_mean(arm - arm.mean(0), TRIMMED, axis=1) for arm in values]
    return _outlying([arm.mean(1) for arm in values]) & _outlying(typical)


def _outlying(by_seed: Sequence[Numbers]) -> npt.NDArray[np.bool_]:
    """(arms,) whose variance over seeds is beyond that of all calmer arms.

    From the least variable arm on, each is compared with those before it by an F test; once one fails, so do the rest.
    Arms with one seed, or whose seeds are all equal, give no information.
    """
    freedom = np.array([len(seeds) - 1 for seeds in by_seed])
    own = np.array([seeds.var(ddof=1) if len(seeds) > 1 else np.nan for seeds in by_seed])
    rounding = (1e-9 * max(np.abs(seeds).max() for seeds in by_seed)) ** 2
    order = [arm for arm in np.argsort(own) if own[arm] > rounding]
    outlying = np.zeros(len(own), bool)
    for place, arm in enumerate(order[1:], 1):
        calmer = order[:place]
        pooled = np.average(own[calmer], weights=freedom[calmer])
        if own[arm] > pooled * stats.f.isf(ABNORMAL / (len(order) - 1), freedom[arm], freedom[calmer].sum()):
            outlying[order[place:]] = True
            break
    return outlying


def residual(arm: Numbers) -> float:
    """Mean square of what neither seed nor patient explains."""
    left = arm - arm.mean(0) - arm.mean(1, keepdims=True) + arm.mean()
    return float((left**2).sum() / ((len(left) - 1) * (len(left[0]) - 1)))


def resample(spreads: Sequence[Spread], draws: int, seed: int) -> list[Numbers]:
    """Bootstrap over patients and seeds: how far the arms' means might lie off, for each metric (draws, arms).

    Patients are resampled with replacement, the same ones for all arms and metrics. Seeds are drawn from a normal
    distribution of variance ``seed_net``, for each arm by itself, as three seeds cannot be resampled: no quantile of
    such draws lies beyond the luckiest seed, which covers 75 % at most. Each draw is widened by chi-square variates
    of the patients' and the seeds' degrees of freedom, which gives it the tails of Student's t.

    Source: Efron 1979, doi:10.1214/aos/1176344552 (patients); Efron and Tibshirani 1993, chapter 6 (the parametric
    bootstrap, for seeds); Hesterberg 2015, doi:10.1080/00031305.2015.1089789 (why a percentile interval is widened so).
    """
    rng = np.random.default_rng(seed)
    count, arms = spreads[0].means.shape[1], len(spreads[0].means)
    centred = np.concatenate([one.means - one.means.mean(1, keepdims=True) for one in spreads]).T
    patients = np.concatenate([weights @ centred / count for weights in times_drawn(rng, count, draws)])
    patients *= np.sqrt(count / (count - 1)) * student(rng, count - 1, draws)
    normal = rng.normal(size=(draws, arms))
    pooled = student(rng, spreads[0].seed_df, draws)
    parts = np.split(patients, len(spreads), axis=1)
    tails = [_tail(rng, one, pooled if one.seed_df == spreads[0].seed_df else None, draws) for one in spreads]
    return [part + normal * tail * np.sqrt(one.seed_net) for part, tail, one in zip(parts, tails, spreads, strict=True)]


def _tail(rng: np.random.Generator, parts: Spread, pooled: Numbers | None, draws: int) -> Numbers:
    """The factors that give seeds the tails of Student's t: ``pooled`` where metrics share them, otherwise its own."""
    if parts.abnormal.any():
        return student(rng, parts.own_df, draws)
    return student(rng, parts.seed_df, draws) if pooled is None else pooled


def times_drawn(rng: np.random.Generator, count: int, draws: int) -> Iterator[Numbers]:
    """(some of the draws, count) how often each of ``count`` patients is drawn with replacement."""
    step = max(1, CHUNK // count)
    for start in range(0, draws, step):
        yield rng.multinomial(count, np.full(count, 1 / count), size=min(step, draws - start)).astype(float)


def student(rng: np.random.Generator, freedom: int | Numbers, draws: int) -> Numbers:
    """(draws, degrees of freedom) factors that turn a normal into Student's t."""
    known = np.atleast_1d(freedom)
    factors: Numbers = np.sqrt(known / rng.chisquare(np.maximum(known, 1), size=(draws, len(known))))
    return factors


def interval(deviations: Numbers, level: float) -> tuple[Numbers, Numbers]:
    """Ends of the central ``level`` of the draws, as distances from the estimate (percentile method)."""
    low, high = np.quantile(deviations, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def holm(p: Numbers, family: int | None = None) -> Numbers:
    """p-values adjusted so that the chance of one false claim or more in the family stays below the level.

    Args:
        p: of the comparisons that were made.
        family: of how many that were asked, where some cannot be made yet; None: of these.

    Source: Holm 1979, Scandinavian Journal of Statistics 6:65–70.
    """
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate(p[order] * ((family or len(p)) - np.arange(len(p))))
    back = np.empty_like(adjusted)
    back[order] = np.minimum(adjusted, 1)
    return back


def pair_weights(pairs: Iterable[tuple[int, int]], arms: int) -> Numbers:
    """(pairs, arms): 1 for the first arm of a pair, -1 for the one that it is compared with."""
    unit = np.eye(arms)
    return np.array([unit[one] - unit[other] for one, other in pairs]).reshape(-1, arms)


def contrast_table(
    parts: Spread,
    deviations: Numbers,
    weights: Numbers,
    metric: Metric,
    *,
    margin: float,
    alpha: float,
    family: int | None = None,
) -> pd.DataFrame:
    """Everything said about differences of arms (or any contrast), one line each, as one family.

    Args:
        parts: of ``spread``.
        deviations: of ``resample`` for the same metric.
        weights: (lines, arms), each line summing to 0, such as 1 for an arm and -1 for the one it is compared with.
        metric: which way is better, and how far apart two values can be: no interval goes beyond.
        margin: differences within ± margin count as none; NaN: no such margin was stated.
        alpha: two-sided level.
        family: as in ``holm``.

    Returns:
        The columns listed in docs/statistics.md, from ``difference`` to ``verdict``.
    """
    paired = weights @ parts.means
    paired[np.abs(paired) <= 1e-9 * np.abs(parts.means).max()] = 0  # rounding of means is no difference
    table = pd.DataFrame({"difference": paired.mean(1)})
    draws = deviations @ weights.T
    for name, level in (("ci", 1 - alpha), ("tost", 1 - 2 * alpha)):
        low, high = interval(draws, level)
        table[f"{name}_low"], table[f"{name}_high"] = table["difference"] + low, table["difference"] + high
    table = table.assign(**_tests(paired, parts, weights, margin))
    family = family or len(table)
    unknown = (weights != 0) @ parts.one_seed
    limit = metric.reach * np.abs(weights).sum(1) / 2
    visible = smallest(table, paired.shape[1], alpha / max(family, 1))
    table["level"] = alpha
    table["smallest"] = np.where(unknown | (visible > limit), np.inf, visible)
    table["ci_low"], table["ci_high"] = table["ci_low"].clip(lower=-limit), table["ci_high"].clip(upper=limit)
    return _judged(table, paired * metric.better, unknown, alpha, family)


def _tests(paired: Numbers, parts: Spread, weights: Numbers, margin: float) -> dict[str, Numbers]:
    """Student's tests of the mean difference: that it is not 0, and that it is within the margin.

    The degrees of freedom are Satterthwaite's (1946, doi:10.2307/3002019) for the sum of the two variances; with one
    seed, or seeds that add nothing, the test is the paired t test. Equivalence: the larger p of two one-sided tests
    (Schuirmann 1987, doi:10.1007/BF01068419).
    """
    lines, count = paired.shape
    patients, net, gross = paired.var(1, ddof=1) / count, weights**2 @ parts.seed_net, weights**2 * parts.seed_gross
    alike = gross.sum(1) ** 2 / max(parts.seed_df, 1)
    seeds = gross**2 @ (1 / parts.own_df) if parts.abnormal.any() else alike
    variance, mean = patients + net, paired.mean(1)
    error = np.sqrt(variance)
    with np.errstate(divide="ignore", invalid="ignore"):  # arms without any spread: t is ± infinite, or 0 / 0
        freedom = variance**2 / (patients**2 / (count - 1) + seeds)
        freedom = np.where(variance > 0, np.maximum(freedom, 1), count - 1)  # below 1 quantiles have no meaning
        t, above, below = (
            np.nan_to_num(shift / error, nan=0.0, posinf=np.inf, neginf=-np.inf)
            for shift in (mean, mean + margin, margin - mean)
        )
        share = np.nan_to_num(net / variance)
    tost = stats.t.sf(np.minimum(above, below), freedom)
    tost = np.where(variance > 0, tost, np.maximum(tost, 2.0 ** (1 - count)))  # as surely as so many patients can be
    return {
        "standard_error": error,
        "freedom": freedom,
        "seed_share": share,
        "p_mean": 2 * stats.t.sf(np.abs(t), freedom),
        "p_tost": tost if np.isfinite(margin) else np.full(lines, np.nan),
    }


def _judged(
    table: pd.DataFrame, gains: Numbers, unknown: npt.NDArray[np.bool_], alpha: float, family: int
) -> pd.DataFrame:
    """Adds the rank test, sizes, counts, adjusted p-values and the verdict."""
    p, effect = np.array([signed_rank(line) for line in gains]).reshape(-1, 2).T
    deviation = gains.std(1, ddof=1)
    table = table.assign(
        p_wilcoxon=p,
        rank_biserial=effect,
        dz=np.divide(gains.mean(1), deviation, out=np.full(len(gains), np.nan), where=deviation > 0),
        wins=(gains > 0).sum(1),
        ties=(gains == 0).sum(1),
        losses=(gains < 0).sum(1),
    )
    for name in ("p_wilcoxon", "p_mean", "p_tost"):
        table[f"{name}_holm"] = holm(table[name].to_numpy(), family)
    table["verdict"] = np.where(unknown, "inconclusive", _verdicts(table, gains, alpha))
    larger = table[["p_mean", "p_wilcoxon"]].max(axis=1).to_numpy()  # a claim asks for both tests
    table["false_claim"] = np.where(table["verdict"].isin(["better", "worse"]), false_claim(larger), np.nan)
    return table


def false_claim(p: Numbers) -> Numbers:
    """How probable it is at least that a claim with this p-value is false, where every second comparison is of equals.

    The least Bayes factor for "no difference" is -e p ln p below p = 1/e (Sellke, Bayarri and Berger 2001,
    doi:10.1198/000313001300339950), which even chances turn into a probability. Holm's adjustment has no place here.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(p < 1 / np.e, np.nan_to_num(-np.e * p * np.log(p)), 1.0)
    bound: Numbers = factor / (1 + factor)
    return bound


def signed_rank(gains: Numbers) -> tuple[float, float]:
    """Wilcoxon's signed-rank test, two-sided, and its matched-pairs rank-biserial correlation.

    Zeros are ranked and then set aside (Pratt 1959, doi:10.1080/01621459.1959.10501526), so that ties weaken a claim;
    sizes that are equal but for rounding share their mean rank. scipy takes the exact distribution up to 50 patients
    without ties or zeros, or up to 13 with them, else the normal one with its correction for ties.

    Returns:
        p, and (sum of ranks for - sum of ranks against) / (their sum), in [-1, 1]; 1 and 0 where all gains are 0.

    Source: Wilcoxon 1945, doi:10.2307/3001968; Kerby 2014, doi:10.2466/11.IT.3.1, for the correlation.
    """
    if not gains.any():
        return 1.0, 0.0
    gains = np.round(gains / np.abs(gains).max(), 9)
    ranks = stats.rankdata(np.abs(gains))
    gained, lost = float(ranks[gains > 0].sum()), float(ranks[gains < 0].sum())
    p = stats.wilcoxon(gains, zero_method="pratt").pvalue
    return float(p), (gained - lost) / (gained + lost)


def _verdicts(table: pd.DataFrame, gains: Numbers, alpha: float) -> npt.NDArray[np.str_]:
    """better, worse, equivalent or inconclusive.

    A difference is claimed only where both tests hold after Holm's adjustment (the mean's, which counts seeds, and
    Wilcoxon's, which no outlier carries), the interval leaves 0 out and both tests point the same way.
    """
    gain = np.sign(gains.mean(1))
    found = (
        (table["p_mean_holm"] <= alpha)
        & (table["p_wilcoxon_holm"] <= alpha)
        & (table["ci_low"] * table["ci_high"] >= 0)
        & (gain == np.sign(table["rank_biserial"]))
    ).to_numpy()
    same = (table["p_tost_holm"] <= alpha).to_numpy()
    return np.select([found & (gain > 0), found & (gain < 0), same], ["better", "worse", "equivalent"], "inconclusive")
