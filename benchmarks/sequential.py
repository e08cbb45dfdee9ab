"""Seeds until decided, in simulated studies: level, power, seeds saved and coverage, beside a study of all seeds.

``python -m benchmarks.sequential`` prints the table of docs/statistics.md (two hours on one core); a number of studies
may follow.
"""

import os
import sys
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from seg.metrics import METRICS
from seg.study.contrasts import contrast_table, resample, spread
from seg.study.scores import Numbers
from seg.study.sequential import Looking, Seeds

UNIT = 0.01  # of Dice: SD of a patient from training to training
PATIENT_SD = 1.2 * UNIT  # of what a patient does in one arm and not in another
SEEDS = Seeds(3, 10)


@dataclass(frozen=True)
class Found:
    """Shares of the studies, or of the comparisons."""

    better: float  # studies in which a comparison is called better, truly or not
    claimed: float  # studies with a claim, better or worse
    wrong: float  # studies with a claim about a comparison of equals, or in the wrong direction
    equivalent: float  # comparisons called equivalent
    covered: float  # comparisons whose interval holds the truth
    found: float  # comparisons of unequals that are called better
    trained: float  # share of all the seeds


def values(rng: np.random.Generator, gains: Numbers, patients: int, seed_sd: float, seeds: int) -> list[Numbers]:
    """For each arm (seeds, patients)."""
    return [
        gain
        + rng.normal(0, PATIENT_SD, patients)
        + rng.normal(0, seed_sd * UNIT, (seeds, 1))
        + rng.normal(0, UNIT, (seeds, patients))
        for gain in gains
    ]


def run(
    gains: list[float], patients: int, seed_sd: float, studies: int, margin: float = np.nan, *, seeds: Seeds = SEEDS
) -> tuple[Found, Found]:
    """Studies whose arms have these true gains over the baseline, the first: until decided, and of all seeds."""
    rng = np.random.default_rng(5)
    weights = np.hstack([-np.ones((len(gains) - 1, 1)), np.eye(len(gains) - 1)])
    rows: tuple[list[Numbers], list[Numbers]] = ([], [])
    for study in range(studies):
        scores = values(rng, np.array(gains), patients, seed_sd, seeds.most)
        looking = Looking(weights, METRICS["dice"], seeds, margin, draws=400, seed=study)
        last = looking.looks(scores)[-1]
        parts = spread(scores)
        (drawn,) = resample([parts], 800, study)
        fixed = contrast_table(parts, drawn, weights, METRICS["dice"], margin=margin, alpha=0.05)
        truth = np.array(gains[1:])
        for out, table, trained in zip(
            rows, (last.table, fixed), (sum(last.seeds) / seeds.most / len(gains), 1.0), strict=True
        ):
            better, worse = ((table["verdict"] == word).to_numpy() for word in ("better", "worse"))
            wrong = (better & (truth <= 0)) | (worse & (truth >= 0))
            held = ((table["ci_low"] <= truth) & (truth <= table["ci_high"])).mean()
            right = (better & (truth > 0)).sum() / max((truth > 0).sum(), 1)
            same = (table["verdict"] == "equivalent").mean()
            out.append(np.array([better.any(), (better | worse).any(), wrong.any(), same, held, right, trained]))
    one, other = (Found(*np.mean(out, axis=0)) for out in rows)
    return one, other


def told(found: Found) -> str:
    return (
        f"better {found.better:.1%} any claim {found.claimed:.1%} wrong {found.wrong:.1%} equivalent "
        f"{found.equivalent:.1%} covers {found.covered:.1%} found {found.found:.1%} trained {found.trained:.1%}"
    )


def main(studies: int = 1000) -> None:
    for arms in (2, 4):
        for patients in (10, 60, 260):
            for seed_sd in (0.0, 0.1, 0.3):
                luck = UNIT**2 * (seed_sd**2 + 1 / patients) / SEEDS.most
                error = np.sqrt(2 * (PATIENT_SD**2 / patients + luck))
                for name, size in (("equal", 0.0), ("3 SE", 3 * error), ("5 SE", 5 * error)):
                    one, other = run([0.0, *[size] * (arms - 1)], patients, seed_sd, studies)
                    print(f"{arms} arms, {patients} patients, seeds {seed_sd}, {name}: {told(one)}", flush=True)
                    print(f"    all seeds: {told(other)}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
