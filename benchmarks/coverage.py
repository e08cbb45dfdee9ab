"""How often the intervals of the worst tenth and of groups hold, and how often claims are false, in simulated studies.

``python -m benchmarks.coverage`` prints the tables of docs/statistics.md (a quarter of an hour on one core);
``python -m benchmarks.coverage 100`` does so with 100 studies each.
"""

import os
import sys
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from seg.metrics import METRICS
from seg.study.contrasts import Spread, contrast_table, resample, spread
from seg.study.scores import Numbers
from seg.study.subsets import group_table, tenth_table, worst_tenth

Hard = Callable[[np.random.Generator, int], Numbers]
HARD: dict[str, Hard] = {  # how hard patients are, in Dice
    "normal": lambda rng, count: rng.normal(0, 0.04, count),
    "skewed": lambda rng, count: -rng.gamma(1.5, 0.03, count),
}
FAILURES = 0.03  # share of the patients on whom an arm fails, in the kinds "… with failures"
PAIR = np.array([[-1.0, 1.0]])


def values(
    rng: np.random.Generator, kind: str, patients: int, *, seeds: int = 3, seed_sd: float = 0.002, stretch: float = 1.0
) -> list[Numbers]:
    """Of two arms (seeds, patients); in the second, patients are ``stretch`` times as far from the easiest."""
    hard = HARD[kind.removesuffix(" with failures")](rng, patients)
    arms = []
    for factor in (1.0, stretch):
        typical = 0.85 + factor * hard + rng.normal(0, 0.012, patients)
        if kind.endswith("failures"):
            typical = typical - (rng.random(patients) < FAILURES) * rng.uniform(0.3, 0.8, patients)
        rest = rng.normal(0, 0.010, (seeds, patients))
        arms.append(typical + rest + rng.normal(0, seed_sd, (seeds, 1)))
    return arms


def tenth_truth(kind: str, stretch: float, seeds: int = 3) -> float:
    """The difference of the worst tenths in very many patients."""
    rng = np.random.default_rng(1)
    arms = values(rng, kind, 400_000, seeds=seeds, seed_sd=0.0, stretch=stretch)
    return float((worst_tenth(np.stack([arm.mean(0) for arm in arms]), 1) @ PAIR.T)[0, 0])


def tenth_coverage(kind: str, patients: int, stretch: float, seed_sd: float, studies: int, draws: int = 1000) -> float:
    """Share of the studies whose interval for the worst tenth holds the truth."""
    truth, rng, held = tenth_truth(kind, stretch), np.random.default_rng(2), 0
    for study in range(studies):
        parts = spread(values(rng, kind, patients, seed_sd=seed_sd, stretch=stretch))
        line = tenth_table(parts, PAIR, 1, draws=draws, seed=study, alpha=0.05).iloc[0]
        held += line["ci_low"] <= truth <= line["ci_high"]
    return held / studies


def group_studies(
    sizes: list[int], seed_sd: float, studies: int, draws: int = 1000, arms: int = 3
) -> tuple[float, float]:
    """Shares of the studies in which all intervals of groups hold, and of those in which intervals by themselves do."""
    rng = np.random.default_rng(3)
    weights = np.hstack([-np.ones((arms - 1, 1)), np.eye(arms - 1)])
    ends = np.cumsum([0, *sizes])
    places = {f"g{n}": np.arange(ends[n], ends[n + 1]) for n in range(len(sizes))}
    together = alone = 0
    for study in range(studies):
        hard = rng.normal(0, 0.04, ends[-1])
        parts: Spread = spread(
            [
                0.85 + hard + rng.normal(0, 0.012, ends[-1]) + rng.normal(0, 0.01, (3, ends[-1]))
                + rng.normal(0, seed_sd, (3, 1))
                for _ in range(arms)
            ]
        )  # fmt: skip
        table = group_table(parts, places, weights, draws=draws, seed=study, alpha=0.05)
        known = table[table["ci_low"].notna()]
        together += ((known["ci_low"] <= 0) & (known["ci_high"] >= 0)).all()
        alone += all(
            ((one["ci_low"] <= 0) & (one["ci_high"] >= 0)).all()
            for name in places
            if len(one := group_table(parts, {name: places[name]}, weights[:1], draws=draws, seed=study, alpha=0.05)
            .dropna())
        )  # fmt: skip
    return together / studies, alone / studies


def false_claims(size: float, studies: int) -> tuple[int, float, float]:
    """Claims in studies of which half compare equals, the share that is false, and what was said of it on average.

    ``size`` is the SD of the true differences of the others, in Dice. A claim in the wrong direction is false, too.
    """
    rng = np.random.default_rng(4)
    wrong, said = [], []
    for study in range(studies):
        equal = rng.random() < 0.5
        gain = 0.0 if equal else rng.normal(0, size)
        base, arm = values(rng, "normal", 60)
        parts = spread([base, arm + gain])
        (drawn,) = resample([parts], 400, study)
        line = contrast_table(parts, drawn, PAIR, METRICS["dice"], margin=np.nan, alpha=0.05).iloc[0]
        if line["verdict"] in ("better", "worse"):
            wrong.append(equal or (gain > 0) != (line["verdict"] == "better"))
            said.append(line["false_claim"])
    return len(wrong), float(np.mean(wrong)), float(np.mean(said))


def main(studies: int = 600) -> None:
    print(f"Worst tenth: the 95 % interval of a difference holds ({studies} studies)")
    for kind in ("normal", "skewed", "normal with failures"):
        for stretch in (1.0, 0.8):
            found = [tenth_coverage(kind, patients, stretch, 0.002, studies) for patients in (40, 60, 120, 260)]
            print(f"  {kind}, spread × {stretch}: " + "  ".join(f"{one:.1%}" for one in found))
    print(f"  normal, seeds 0.008: {tenth_coverage('normal', 60, 1.0, 0.008, studies):.1%} (60 patients)")
    print(f"Groups: all intervals of a study hold; the same without being simultaneous ({studies} studies)")
    for sizes in ([10, 10, 10, 10], [40, 25, 15, 12, 6], [60, 60, 60, 60], [12] * 10):
        for seed_sd in (0.0, 0.002, 0.008):
            both = group_studies(sizes, seed_sd, studies)
            print(f"  {sizes}, seeds {seed_sd}: {both[0]:.1%}; {both[1]:.1%}")

    print(f"False claims, where half of {2 * studies} comparisons are of equals: claims, false, said")
    for size in (0.004, 0.008, 0.016):
        count, wrong, said = false_claims(size, 2 * studies)
        print(f"  differences of SD {size}: {count} claims, {wrong:.1%}, {said:.1%}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
