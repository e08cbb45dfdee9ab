"""What power a planned study really has: at the smallest difference that ``seg.plan`` gives, 80 % are to be found.

``python -m benchmarks.planning`` prints the tables of docs/statistics.md (half an hour on one core);
``python -m benchmarks.planning 100`` does so with 100 studies each.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from seg.metrics import METRICS
from seg.study.contrasts import contrast_table, resample, spread
from seg.study.planning import Design, Variances
from seg.study.scores import Numbers

CALM, WILD = Variances(1e-5, 1e-4, 1e-6), Variances(1e-5, 1e-4, 9e-6)  # of Dice: SDs 0.003, 0.01; seeds 0.001, 0.003


def values(rng: np.random.Generator, true: Variances, arms: int, seeds: int, patients: int) -> list[Numbers]:
    """Of each arm (seeds, patients), all arms alike on average."""
    hard = rng.normal(0.85, 0.04, patients)
    patient, rest, seed = np.sqrt([true.patient, true.rest, true.seed])
    return [
        hard + rng.normal(0, patient, patients)
        + rng.normal(0, rest, (seeds, patients)) + rng.normal(0, seed, (seeds, 1))
        for _ in range(arms)
    ]  # fmt: skip


def better(rng: np.random.Generator, true: Variances, design: Design, gain: float, draws: int = 1000) -> bool:
    """Whether a study finds that its first arm is better than the baseline; the other comparisons are of equals."""
    arms = values(rng, true, design.arms, design.seeds, design.patients)
    arms[1] = arms[1] + gain
    weights = np.hstack([-np.ones((design.arms - 1, 1)), np.eye(design.arms - 1)])
    parts = spread(arms)
    (drawn,) = resample([parts], draws, int(rng.integers(1 << 31)))
    rules = {"margin": np.nan, "alpha": 0.05, "family": design.family}
    return bool(contrast_table(parts, drawn, weights, METRICS["dice"], **rules)["verdict"][0] == "better")


def power(true: Variances, design: Design, gain: float, studies: int) -> float:
    """Share of the studies that find ``gain``."""
    rng = np.random.default_rng(5)
    return float(np.mean([better(rng, true, design, gain) for _ in range(studies)]))


def planned(arms: int, seeds: int, patients: int, family: int) -> Design:
    return Design(arms, seeds, patients, family, min(family, arms - 1), "dice", 0.005)
