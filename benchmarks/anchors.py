"""How often an interval beside an anchor holds, and how often an anchor is called better or worse that is neither.

The anchor is one finished tool: what it does to each patient is fixed, the luck of its own training included, and only
patients and the seeds of the arm are drawn. ``python -m benchmarks.anchors`` prints the table of docs/statistics.md
(two minutes on one core).
"""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from seg.metrics import METRICS
from seg.study.contrasts import contrast_table, resample, spread
from seg.study.scores import Numbers

ARMS = 3
WEIGHTS = np.hstack([np.eye(ARMS), -np.ones((ARMS, 1))])
KINDS = ("normal", "skewed", "failures")


def drawn(rng: np.random.Generator, kind: str, patients: int, seeds: int, seed_sd: float, luck: float) -> list[Numbers]:
    """Of ``ARMS`` arms (seeds, patients) and of a tool (1, patients), in Dice; ``luck`` is of the tool's training."""
    hard = rng.normal(0, 0.04, patients) if kind != "skewed" else -rng.gamma(1.5, 0.03, patients)
    arms = []
    for own in range(ARMS + 1):
        typical = 0.85 + hard + rng.normal(0, 0.012, patients)
        if kind == "failures":
            typical = typical - (rng.random(patients) < 0.03) * rng.uniform(0.3, 0.8, patients)
        trained = 1 if own == ARMS else seeds
        shift = np.full((1, 1), luck) if own == ARMS else rng.normal(0, seed_sd, (trained, 1))
        arms.append(typical + rng.normal(0, 0.010, (trained, patients)) + shift)
    return arms


def coverage(
    kind: str, patients: int, seed_sd: float, studies: int, seeds: int = 3, draws: int = 600
) -> tuple[float, float, float]:
    """Shares: intervals that hold; studies with a false claim; intervals that hold the mean of a tool's trainings, too.

    An arm is as good as the tool as it is, so every claim is false, one study being a family of ``ARMS``.
    """
    rng = np.random.default_rng(5)
    held = again = claimed = 0
    for study in range(studies):
        luck = rng.normal(0, seed_sd)
        values = drawn(rng, kind, patients, seeds, seed_sd, luck)
        values[:ARMS] = [arm + luck for arm in values[:ARMS]]  # each arm is, on average, as good as this very tool
        parts = spread(values, [False] * ARMS + [True])
        (deviations,) = resample([parts], draws, study)
        table = contrast_table(parts, deviations, WEIGHTS, METRICS["dice"], margin=np.nan, alpha=0.05)
        held += ((table["ci_low"] <= 0) & (table["ci_high"] >= 0)).sum()
        again += ((table["ci_low"] <= luck) & (table["ci_high"] >= luck)).sum()
        claimed += table["verdict"].isin(["better", "worse"]).any()
    return held / studies / ARMS, claimed / studies, again / studies / ARMS


def main(studies: int = 600) -> None:
    print(
        f"{ARMS} arms, {studies} studies: holds the tool as it is; a false claim; holds the mean of its trainings, too"
    )
    for patients in (20, 60, 260):
        for seed_sd in (0.0, 0.002, 0.008):
            _line("normal", patients, seed_sd, studies)
    for kind in KINDS[1:]:
        _line(kind, 60, 0.002, studies)
    _line("normal", 60, 0.008, studies, seeds=5)


def _line(kind: str, patients: int, seed_sd: float, studies: int, seeds: int = 3) -> None:
    found = coverage(kind, patients, seed_sd, studies, seeds)
    print(f"  {kind}, {patients} patients, {seeds} seeds of {seed_sd}: " + "  ".join(f"{one:.1%}" for one in found))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
