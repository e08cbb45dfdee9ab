"""What a study will be able to find, told before it is run: from the variances of a pilot, or from typical ones."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil, inf, isfinite, sqrt
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from seg.errors import ConfigError, counted
from seg.metrics import METRICS
from seg.study.contrasts import residual, spread, student
from seg.study.options import LEVEL
from seg.study.power import POWER, exceeded, price
from seg.study.scores import Numbers
from seg.study.sentences import percent, size

STUDIES = 2000  # drawn for one number
CONFIDENCE = 0.8  # with which the cautious variances are no smaller than the true ones
USUAL_SEEDS, MOST_SEEDS, MOST_TIMES = 3, 50, 20  # the most that is still advised: seeds an arm, times the patients
ONE_SEED = (
    "One seed an arm can conclude nothing: how far another training of the same arm would differ is not known. "
    f"Set hydra.sweeper.study.seeds=[{','.join(map(str, range(USUAL_SEEDS)))}]."
)


@dataclass(frozen=True)
class Variances:
    """What makes a difference between two arms uncertain, as variances of a score."""

    patient: float  # of what a patient does in one arm and not in another
    rest: float  # of what a patient does in one training and not in the next
    seed: float  # of what a training does to all patients

    def of_differences(self, seeds: int) -> float:
        """Variance over patients of the difference between two arms, each the mean of its seeds."""
        return 2 * (self.patient + self.rest / seeds)


@dataclass(frozen=True)
class Basis:
    """What a plan rests on."""

    expected: Variances
    cautious: Variances  # upper limits
    source: str  # in words

    def told(self, design: "Design") -> str:
        """Where the variances are from, and how large they are, as SDs."""
        differences, seeds = (
            " to ".join(dict.fromkeys(size(sqrt(value), design.metric) for value in values))
            for values in (
                [one.of_differences(max(design.seeds, 2)) for one in (self.expected, self.cautious)],
                [one.seed for one in (self.expected, self.cautious)],
            )
        )
        label = METRICS[design.metric].label
        return f"{self.source}; {label}: SD of the patients' differences {differences}, of seeds {seeds}"


@dataclass(frozen=True)
class Design:
    """A study before it is run."""

    arms: int
    seeds: int  # of each arm
    patients: int  # that are scored
    family: int  # comparisons that are judged together
    to_baseline: int  # the comparisons with the baseline among them
    metric: str
    margin: float
    lengths: str = "mm"  # or the pixels of pictures

    def finds(self, variances: Variances) -> float:
        """The smallest true difference that such a study finds in 80 of 100 repetitions; infinite: it finds none.

        What such studies would see of these variances is drawn at random, and so is what each would find to exceed.
        """
        if self.seeds < 2 or self.patients < 2:
            return inf
        count, seeds, rng = self.patients, self.seeds, np.random.default_rng(0)
        across = variances.of_differences(seeds) / count * rng.chisquare(count - 1, STUDIES) / (count - 1)
        chance = variances.rest / count
        own = (variances.seed + chance) * rng.chisquare(seeds - 1, (STUDIES, self.arms)) / (seeds - 1)
        larger = np.maximum(own[:, :2], own.mean(1, keepdims=True)) / seeds  # as contrasts.spread takes it
        net, freedom = np.maximum(larger - chance / seeds, 0).sum(1), self.arms * (seeds - 1)
        variance = across + net
        if not variance.all():
            return 0.0
        share, error = net / variance, np.sqrt(variance)
        half = error * _half(share, count - 1, freedom)
        table = pd.DataFrame({"standard_error": error, "seed_share": share, "ci_low": -half, "ci_high": half})
        table["freedom"] = variance**2 / (across**2 / (count - 1) + larger.sum(1) ** 2 / freedom)
        level = LEVEL / max(self.family, 1)
        if 2.0 ** (1 - count) > level:  # too few patients for the rank test
            return inf
        true = sqrt(variances.of_differences(seeds) / count + 2 * variances.seed / seeds)
        needed = (exceeded(table, level) + true * rng.normal(size=STUDIES)) * price(table, count, level)
        found = float(np.quantile(needed, POWER))
        return found if found <= METRICS[self.metric].reach else inf

    def holds(self, variances: Variances) -> bool:
        """Whether it finds a difference as small as its margin."""
        return self.finds(variances) <= self.margin

    def spelled(self, variances: Variances) -> str:
        """What it finds, with its unit; – for nothing."""
        found = self.finds(variances)
        return self.sized(found) if isfinite(found) else "–"

    def sized(self, difference: float) -> str:
        """A difference in its metric, with the unit."""
        return METRICS[self.metric].with_unit(size(difference, self.metric), self.lengths)


def _half(share: Numbers, patients: int, seeds: int) -> Numbers:
    """Half a 95 % interval in standard errors, of draws like those of contrasts.resample.

    Args:
        share: of the variance that is the seeds'.
        patients: their degrees of freedom.
        seeds: theirs.
    """
    rng, grid = np.random.default_rng(1), np.linspace(0, 1, 9)[:, None]
    one, other = (rng.normal(size=8000) * student(rng, freedom, 8000)[:, 0] for freedom in (patients, seeds))
    ends = np.quantile(np.abs(np.sqrt(1 - grid) * one + np.sqrt(grid) * other), 1 - LEVEL, axis=1)
    half: Numbers = np.interp(share, grid[:, 0], ends)
    return half


# Patient, rest, seed in experiments/results: of both studies together, and of the one whose seeds are less calm.
_HIPPOCAMPUS = {
    "dice": ((0.0, 8.21e-5, 3.93e-6), (0.0, 8.94e-5, 5.39e-6)),
    "nsd": ((0.0, 2.17e-4, 5.97e-6), (0.0, 2.22e-4, 8.36e-6)),
    "hd95_mm": ((1.38e-3, 0.575, 3.51e-3), (1.94e-3, 0.771, 4.91e-3)),
}


def typical(metric: str) -> Basis | None:
    """What the kept studies had; None for a metric of which nothing is kept."""
    if metric not in _HIPPOCAMPUS:
        return None
    expected, cautious = (Variances(*values) for values in _HIPPOCAMPUS[metric])
    return Basis(expected, cautious, "typical values of short trainings on Hippocampus")


def of_pilot(values: Sequence[Numbers], metric: str, name: str) -> Basis:
    """The variances of a pilot; what it cannot tell is typical.

    Arms of abnormal seed spread are left out. The cautious variances are upper limits of one-sided intervals, for few
    seeds tell little of how far others will be apart.

    Args:
        values: of each arm (seeds, patients).
        metric: of which they are.
        name: of the pilot, in words.

    Raises:
        ConfigError: it has one arm or one seed only, and nothing typical is known of the metric.

    Source: upper confidence limit of a pilot's variance, Browne 1995, doi:10.1002/sim.4780141709.
    """
    calm = [arm for arm, wild in zip(values, spread(values).abnormal, strict=True) if not wild]
    several = [arm for arm in calm if len(arm) > 1]
    count, known = calm[0].shape[1], typical(metric)
    missing = ["differences between arms"] * (len(calm) < 2) + ["seeds"] * (not several)
    if missing and known is None:
        raise ConfigError(
            f"{name} tells nothing of {' and of '.join(missing)} in {METRICS[metric].label}. A pilot has two arms, one "
            "of them with two seeds."
        )
    parts: list[dict[str, float]] = [asdict(known.expected), asdict(known.cautious)] if known else [{}, {}]
    if several:
        freedom = [len(arm) - 1 for arm in several]
        rest = float(np.average([residual(arm) for arm in several], weights=freedom))
        gross = float(np.average([arm.mean(1).var(ddof=1) for arm in several], weights=freedom))
        for part, limit in zip(parts, (1.0, _limit(sum(freedom))), strict=True):
            part |= {"rest": rest, "seed": max(gross * limit - rest / count, 0)}
    if len(calm) > 1:
        between = residual(np.stack([arm.mean(0) for arm in calm]))
        for part, limit in zip(parts, (1.0, _limit((len(calm) - 1) * (count - 1))), strict=True):
            once = part["rest"] * float(np.mean([1 / len(arm) for arm in calm]))
            part["patient"] = max(between * limit - once, 0)
    borrowed = f", {' and '.join(missing)} as in {known.source}" if missing and known else ""
    seeds = "/".join(str(count) for count in sorted({len(arm) for arm in calm}))
    source = f"{name}, {counted(len(calm), 'arm')} × {seeds} seeds × {counted(count, 'patient')}{borrowed}"
    return Basis(Variances(**parts[0]), Variances(**parts[1]), source)


def _limit(freedom: int) -> float:
    """How many times a variance its upper confidence limit is."""
    return float(freedom / stats.chi2.isf(CONFIDENCE, freedom))


def verdict(design: Design, basis: Basis) -> str:
    """What the study finds, whether that is as small as its own margin, and what it would take if not; in sentences."""
    if design.seeds < 2:
        return f"{ONE_SEED} {verdict(replace(design, seeds=USUAL_SEEDS), basis)}"
    margin = f"its margin, {design.sized(design.margin)}"
    if not isfinite(design.finds(basis.expected)):
        few = f"{counted(design.patients, 'patient')} are too few for {counted(design.family, 'comparison')}"
        return f"It can find no difference, however large: {few}. It would take {ways(design, basis.expected)}."
    usual, safe = design.spelled(basis.expected), design.spelled(basis.cautious)
    found = (
        f"With {design.seeds} seeds an arm it finds a true difference in {METRICS[design.metric].label} of {usual} in "
        f"{percent(POWER)} of such studies (to be safe, count on {safe})"
    )
    if not design.holds(basis.expected):
        return (
            f"{found}, and may miss one as small as {margin}. To find that would take {ways(design, basis.expected)}."
        )
    more = "" if design.holds(basis.cautious) else f" To be safe, take {ways(design, basis.cautious)}."
    return f"{found}, and so finds {margin}.{more}"


def ways(design: Design, variances: Variances) -> str:
    """How the study would find a difference as small as its margin: more seeds, fewer comparisons, more patients."""
    fewer, found = replace(design, family=design.to_baseline), []
    seeds = _fewest(design, "seeds", MOST_SEEDS, variances)
    less = _fewest(fewer, "seeds", MOST_SEEDS, variances) if design.to_baseline < design.family else None
    if seeds:
        found.append(f"{seeds} seeds an arm")
    if less and less != seeds:
        found.append(f"{less} with compare: [baseline], which leaves {counted(fewer.family, 'comparison')}")
    for one in (design, replace(design, seeds=10)):
        if not found or one is design:
            patients = _fewest(one, "patients", MOST_TIMES * one.patients, variances)
            found += [f"about {ceil(patients / 10) * 10} patients with {one.seeds} seeds an arm"] if patients else []
    return ", or ".join(found) or f"more than {MOST_SEEDS} seeds an arm or {MOST_TIMES} times as many patients"


def _fewest(design: Design, key: str, most: int, variances: Variances) -> int | None:
    """The fewest ``seeds`` or ``patients``, two at least, that do; None where ``most`` do not."""
    numbers = range(max(getattr(design, key), 2), most + 1)
    place = bisect_left(numbers, True, key=lambda n: replace(design, **dict[str, Any]({key: n})).holds(variances))
    return numbers[place] if place < len(numbers) else None
