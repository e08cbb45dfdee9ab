"""Seeds until decided, in simulated studies: level, power, seeds saved and coverage, beside a study of all seeds.

``python -m benchmarks.sequential`` prints the tables of docs/statistics.md (ten minutes on one idle core);
``python -m benchmarks.sequential 200`` does so with 200 studies each. The rule of seg.study.sequential is here once
more, for many studies at a time; intervals are Student's in place of the bootstrap's, and no arm counts as abnormal.
A test holds that it decides as ``Looking`` does.
"""

import os
import sys
from dataclasses import dataclass, replace
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
from scipy import stats

from seg.study.question import Seeds
from seg.study.scores import Numbers
from seg.study.sequential import CHANCE, DOUBT, STEP, levels

UNIT = 0.01  # of Dice: SD of a patient from training to training
PATIENT_SD = 1.2 * UNIT  # of what a patient does in one arm and not in another
SEEDS = Seeds(3, 10)
BATCH = 250  # studies at a time
BETTER, WORSE, OPEN, SAME = 1, -1, 0, 2  # verdicts


class Parts(NamedTuple):
    """Of each study and comparison."""

    differences: Numbers  # (studies, comparisons, patients)
    variance: Numbers  # (studies, comparisons), as are the others
    shrinking: Numbers
    freedom: Numbers


@dataclass(frozen=True)
class Outcome:
    """Of each study and comparison, (studies, comparisons) each."""

    verdict: npt.NDArray[np.int_]
    difference: Numbers
    reach: Numbers  # half of the interval
    seeds: Numbers  # (studies, arms)


@dataclass(frozen=True)
class Rates:
    """Shares of the studies, or of the comparisons."""

    better: float  # studies in which a comparison is called better, truly or not
    claimed: float  # studies with a claim, better or worse
    wrong: float  # studies with a claim about a comparison of equals, or in the wrong direction
    equivalent: float  # comparisons called equivalent
    covered: float  # comparisons whose interval holds the truth
    found: float  # comparisons of unequals that are called better
    seeds: float  # of an arm, on average

    def __str__(self) -> str:
        shares = " ".join(f"{name} {share:.1%}" for name, share in vars(self).items() if name != "seeds")
        return f"{shares} seeds {self.seeds:.1f}"


def scores(
    rng: np.random.Generator, gains: Numbers, patients: int, seed_sd: float | Numbers, seeds: int, studies: int = 1
) -> Numbers:
    """(studies, arms, seeds, patients); ``seed_sd`` of an arm's mean in units of UNIT."""
    size = (studies, len(gains), seeds, patients)
    typical = np.asarray(gains)[None, :, None, None] + rng.normal(0, PATIENT_SD, (*size[:2], 1, patients))
    luck = np.broadcast_to(seed_sd, len(gains))[None, :, None, None] * rng.normal(0, UNIT, (*size[:3], 1))
    found: Numbers = typical + luck + rng.normal(0, UNIT, size)
    return found


def weights_of(arms: int, *, previous: bool = False) -> Numbers:
    """(comparisons, arms): with the first arm, and with the arm before."""
    unit = np.eye(arms)
    first, chain = unit[1:] - unit[0], [unit[arm] - unit[arm - 1] for arm in range(2, arms)]
    return np.vstack([first, *chain]) if previous else first


def parts_of(values: Numbers, weights: Numbers) -> Parts:
    """As seg.study.contrasts has them, of values (studies, arms, seeds, patients)."""
    seeds, patients = values.shape[2:]
    means, of_seeds = values.mean(2), values.mean(3)
    rest = values - means[:, :, None] - of_seeds[..., None] + means.mean(2)[:, :, None, None]
    noise = (rest**2).sum((2, 3)) / ((seeds - 1) * (patients - 1)) / patients
    own = of_seeds.var(2, ddof=1)
    larger = np.maximum(own, own.mean(1, keepdims=True))
    gross, net = larger / seeds, np.maximum(larger - noise, 0) / seeds
    differences = np.einsum("ca,kap->kcp", weights, means)
    of_patients, squares = differences.var(2, ddof=1) / patients, weights.T**2
    variance, shrinking = of_patients + net @ squares, gross @ squares
    freedom = variance**2 / (of_patients**2 / (patients - 1) + shrinking**2 / (values.shape[1] * (seeds - 1)))
    return Parts(differences, variance, shrinking, freedom)


def verdicts(parts: Parts, margin: float, level: Numbers) -> Outcome:
    """At each study's own level (studies,)."""
    mean, error, limit = parts.differences.mean(2), np.sqrt(parts.variance), np.maximum(level, 1e-12)[:, None]
    reach = stats.t.isf(limit / 2, parts.freedom) * error
    by_mean = holm(2 * stats.t.sf(np.abs(mean) / error, parts.freedom))
    claimed = (by_mean <= limit) & (holm(signed_rank(parts.differences)) <= limit) & (np.abs(mean) >= reach)
    same = holm(stats.t.sf((margin - np.abs(mean)) / error, parts.freedom)) <= limit
    verdict = np.where(claimed, np.where(mean > 0, BETTER, WORSE), np.where(same, SAME, OPEN))
    return Outcome(verdict, mean, reach, np.empty(0))


def signed_rank(differences: Numbers) -> Numbers:
    """Wilcoxon's p over the last axis, without ties; exact up to 50 patients."""
    count = differences.shape[-1]
    ranks = np.abs(differences).argsort(-1).argsort(-1) + 1
    gained = np.where(differences > 0, ranks, 0).sum(-1)
    less, total = np.minimum(gained, count * (count + 1) // 2 - gained), count * (count + 1)
    if count > 50:
        normal: Numbers = 2 * stats.norm.sf((total / 4 - less) / np.sqrt(total * (2 * count + 1) / 24))
        return normal
    ways = np.ones(1)
    for rank in range(1, count + 1):
        ways = np.convolve(ways, np.eye(rank + 1)[[0, -1]].sum(0))
    return np.minimum(1, 2 * ways.cumsum()[less] / 2.0**count)


def holm(p: Numbers) -> Numbers:
    """Adjusted within each study."""
    order = np.argsort(p, axis=1)
    steps = np.take_along_axis(p, order, 1) * (p.shape[1] - np.arange(p.shape[1]))
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(np.maximum.accumulate(steps, 1), 1), 1)
    return adjusted


def all_seeds(values: Numbers, weights: Numbers, margin: float, alpha: float = 0.05) -> Outcome:
    """The studies as they are without looks."""
    found = verdicts(parts_of(values, weights), margin, np.full(len(values), alpha))
    return replace(found, seeds=np.full(values.shape[:2], float(values.shape[2])))


def until_decided(values: Numbers, weights: Numbers, seeds: Seeds, margin: float, alpha: float = 0.05) -> Outcome:
    """The studies with a look after each seed."""
    size = (len(values), len(weights))
    verdict, difference, reach = np.zeros(size, int), np.zeros(size), np.zeros(size)
    given_up, trained = np.zeros(size, bool), np.zeros(values.shape[:2])
    shares: list[list[float]] = [[] for _ in values]
    for count in range(seeds.start, seeds.most + 1):
        going_on = (verdict == OPEN) & ~given_up
        (live,) = np.nonzero(going_on.any(1))
        trained[live] = np.where(going_on[live].astype(float) @ np.abs(weights) > 0, count, trained[live])
        parts = parts_of(values[live, :, :count], weights)
        freedom, part = values.shape[1] * (count - 1), np.minimum(parts.shrinking / parts.variance, 1)
        more, later = freedom / stats.chi2.ppf(DOUBT, freedom), 1 - count / seeds.most
        known, cautious = 1 - part * later, 1 - more * part / (1 + (more - 1) * part) * later
        for study, share in zip(live, np.where(going_on[live], cautious, 1).min(1), strict=True):
            before, left = shares[study], seeds.most - count
            share = max(before[-1] + STEP if before else 0, min(share, 1 - STEP * left)) if left else 1.0
            before.append(float(share))
        level = np.array([levels(shares[study], alpha, len(weights))[-1] for study in live])
        now, fresh = verdicts(parts, margin, level), verdict[live] == OPEN
        for all_of, own in ((verdict, now.verdict), (difference, now.difference), (reach, now.reach)):
            all_of[live] = np.where(fresh, own, all_of[live])
        still = verdict[live] == OPEN
        given_up[live] |= still & (chances(parts, known, margin, alpha / np.maximum(still.sum(1), 1)) < CHANCE)
    return Outcome(verdict, difference, reach, trained)


def chances(parts: Parts, known: Numbers, margin: float, level: Numbers) -> Numbers:
    """As seg.study.sequential.chance."""
    size, now, freedom = np.abs(parts.differences.mean(2)), np.sqrt(parts.variance), parts.freedom / known
    then, moves = now * np.sqrt(known), np.maximum(now * np.sqrt(1 - known), 1e-12)
    needed = stats.t.isf(level[:, None] / 2, freedom) * then
    claim = stats.norm.sf((needed - size) / moves) + stats.norm.sf((needed + size) / moves)
    claim *= 2.0 ** (1 - parts.differences.shape[2]) <= level[:, None]
    room = np.nan_to_num(margin - stats.t.isf(level[:, None], freedom) * then, nan=-np.inf)
    same = stats.norm.cdf((room - size) / moves) - stats.norm.cdf((-room - size) / moves)
    total: Numbers = claim + np.maximum(same, 0)
    return total


def rates(outcome: Outcome, truth: Numbers) -> Rates:
    better, worse = outcome.verdict == BETTER, outcome.verdict == WORSE
    wrong = (better & (truth <= 0)) | (worse & (truth >= 0))
    return Rates(
        better=float(better.any(1).mean()),
        claimed=float((better | worse).any(1).mean()),
        wrong=float(wrong.any(1).mean()),
        equivalent=float((outcome.verdict == SAME).mean()),
        covered=float((np.abs(outcome.difference - truth) <= outcome.reach).mean()),
        found=float(better[:, truth > 0].mean()) if (truth > 0).any() else 0.0,
        seeds=float(outcome.seeds.mean()),
    )


def run(
    gains: list[float],
    patients: int,
    seed_sd: float | Numbers,
    studies: int,
    *,
    margin: float = np.nan,
    seeds: Seeds = SEEDS,
    previous: bool = False,
) -> tuple[Rates, Rates]:
    """Studies whose arms have these true gains over 0: until decided, and of all seeds."""
    rng, weights = np.random.default_rng(5), weights_of(len(gains), previous=previous)
    truth, parts = weights @ np.array(gains), []
    for start in range(0, studies, BATCH):
        values = scores(rng, np.array(gains), patients, seed_sd, seeds.most, min(BATCH, studies - start))
        pair = until_decided(values, weights, seeds, margin), all_seeds(values, weights, margin)
        parts.append([[*vars(rates(one, truth)).values()] for one in pair])
    one, other = (Rates(*means) for means in np.mean(parts, axis=0))
    return one, other


def error(patients: int, seed_sd: float, seeds: int = SEEDS.most) -> float:
    """Standard error of a difference with all seeds."""
    return UNIT * float(np.sqrt(2 * ((PATIENT_SD / UNIT) ** 2 / patients + (seed_sd**2 + 1 / patients) / seeds)))


def main(studies: int = 2000) -> None:
    def show(title: str, *about: object, **options: object) -> None:
        one, other = run(*about, studies, **options)  # type: ignore[arg-type]
        print(f"{title}\n    until decided: {one}\n    all seeds:     {other}", flush=True)

    for gain in (0, 3, 4.5):
        for arms in (2, 4):
            for patients in (10, 60, 260):
                for seed_sd in (0.0, 0.1, 0.3):
                    gains = [0.0] + [gain * error(patients, seed_sd)] * (arms - 1)
                    show(f"{arms} arms, {patients} patients, seeds {seed_sd}, gain {gain} SE", gains, patients, seed_sd)
    four = 4 * error(60, 0.3)
    show("4 arms, 5 comparisons", [0.0] * 4, 60, 0.3, previous=True)
    show("one of 4 arms better by 4 SE", [0.0, four, 0.0, 0.0], 60, 0.3)
    for margin_of, gains in (("equal", [0.0, 0.0]), ("the margin apart", [0.0, four])):
        show(f"2 arms, {margin_of}, margin 4 SE", gains, 60, 0.3, margin=four)
    for rule in (Seeds(2, 6), Seeds(3, 5), Seeds(3, 20), Seeds(2, 20)):
        show(f"2 arms, 60 patients, {rule}", [0.0, 0.0], 60, 0.3, seeds=rule)
    show("2 arms, 260 patients, seeds 1", [0.0, 0.0], 260, 1.0)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
