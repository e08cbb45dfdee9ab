"""How often what was locked is falsely confirmed or refuted, in simulated studies one after the other on a test part.

``python -m benchmarks.locks`` prints the tables of docs/statistics.md (some minutes on one core); ``python -m
benchmarks.locks 50`` does so with 50 test parts each.
"""

import os
import sys
from collections.abc import Sequence

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from seg.metrics import METRICS
from seg.study.contrasts import contrast_table, resample, spread
from seg.study.lock import CONFIRMED, REFUTED, outcomes
from seg.study.scores import Numbers

MARGIN = 0.005
ALPHA = 0.05


def told(
    rng: np.random.Generator, hard: Numbers, gain: float, claim: str, places: Sequence[int], *, seed_sd: float
) -> list[list[str]]:
    """What becomes of the claims of a study of three arms and a baseline, as the first, second, … study on its part.

    Args:
        rng: of the study.
        hard: (patients,) how hard each is, in Dice.
        gain: true, of each arm.
        claim: better, equivalent or not_worse.
        places: that are tried.
        seed_sd: what a training does to all patients.
    """
    arms = [
        0.85 + gain * (arm > 0) + hard + rng.normal(0, 0.012, len(hard)) + rng.normal(0, 0.010, (3, len(hard)))
        + rng.normal(0, seed_sd, (3, 1))
        for arm in range(4)
    ]  # fmt: skip
    weights = np.hstack([-np.ones((3, 1)), np.eye(3)])
    parts = spread(arms)
    (drawn,) = resample([parts], 400, int(rng.integers(2**31)))
    table = contrast_table(parts, drawn, weights, METRICS["dice"], margin=MARGIN, alpha=ALPHA)
    rules = {"better": 1, "margin": MARGIN, "family": 3, "alpha": ALPHA}
    return [outcomes(table, claim, **rules, place=place) for place in places]


def one_after_the_other(studies: int, parts: int, patients: int, seed_sd: float) -> tuple[Numbers, Numbers]:
    """Share of the parts on which any of the first 1, 2, … null studies was confirmed: without and with the charge."""
    rng = np.random.default_rng(1)
    plain, charged = np.zeros((parts, studies), bool), np.zeros((parts, studies), bool)
    for part in range(parts):
        hard = rng.normal(0, 0.04, patients)
        for study in range(studies):
            found = told(rng, hard, 0.0, "better", (1, study + 1), seed_sd=seed_sd)
            plain[part, study], charged[part, study] = (CONFIRMED in one for one in found)
    return np.maximum.accumulate(plain, 1).mean(0), np.maximum.accumulate(charged, 1).mean(0)


def falsely(outcome: str, claim: str, gain: float, studies: int, patients: int, seed_sd: float) -> float:
    """Share of the studies in which at least one claim has an outcome that it should not have."""
    rng = np.random.default_rng(2)
    found = [
        outcome in told(rng, rng.normal(0, 0.04, patients), gain, claim, (1,), seed_sd=seed_sd)[0]
        for _ in range(studies)
    ]
    return float(np.mean(found))


def main(parts: int = 200) -> None:
    shown = [1, 2, 5, 10]
    print(f"Any false CONFIRMED after {shown} null studies on one test part ({parts} parts): plain, then charged")
    for patients, seed_sd in ((60, 0.0), (60, 0.003), (260, 0.003)):
        for rates in one_after_the_other(max(shown), parts, patients, seed_sd):
            print(f"  {patients} patients, seeds {seed_sd}: " + "  ".join(f"{rates[n - 1]:.1%}" for n in shown))
    print(f"At the edge of what was claimed, any false outcome in {2 * parts} studies:")
    for outcome, claim, gain in (
        (REFUTED, "better", MARGIN),
        (CONFIRMED, "equivalent", MARGIN),
        (REFUTED, "equivalent", MARGIN),
        (CONFIRMED, "not_worse", -MARGIN),
        (REFUTED, "not_worse", -MARGIN),
    ):
        rates = [falsely(outcome, claim, gain, 2 * parts, *case) for case in ((60, 0.0), (60, 0.003), (260, 0.003))]
        print(f"  {claim} {outcome}, true gain {gain}: " + "  ".join(f"{rate:.1%}" for rate in rates))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
