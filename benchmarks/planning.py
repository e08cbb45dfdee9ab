"""What power a planned study really has, where 80 % are meant: of known variances, and of those of a small pilot.

``python -m benchmarks.planning`` prints the tables of docs/statistics.md (half an hour on one core);
``python -m benchmarks.planning 100`` does so with 100 studies each.
"""

import os
import sys
from functools import cache

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from seg.metrics import METRICS
from seg.study.contrasts import contrast_table, resample, spread
from seg.study.planning import Design, Variances, of_pilot
from seg.study.scores import Numbers

# Of Dice: SD of a patient in an arm 0.003, in a training 0.01; of seeds 0.001, or 0.003.
CALM, APART = Variances(1e-5, 1e-4, 1e-6), Variances(1e-5, 1e-4, 9e-6)
SIZES = ((2, 1), (4, 5))  # arms, comparisons
DESIGNS = [(arms, seeds, n, family) for arms, family in SIZES for n in (12, 60, 260) for seeds in (2, 3, 5)]


def planned(arms: int, seeds: int, patients: int, family: int) -> Design:
    return Design(arms, seeds, patients, family, min(family, arms - 1), "dice", 0.005)


def values(rng: np.random.Generator, true: Variances, arms: int, seeds: int, patients: int) -> list[Numbers]:
    """Of each arm (seeds, patients), all arms alike on average."""
    hard = rng.normal(0.85, 0.04, patients)
    patient, rest, seed = np.sqrt([true.patient, true.rest, true.seed])
    made = []
    for _ in range(arms):
        typical = hard + rng.normal(0, patient, patients) + rng.normal(0, seed, (seeds, 1))
        made.append(typical + rng.normal(0, rest, (seeds, patients)))
    return made


def better(rng: np.random.Generator, true: Variances, design: Design, gain: float, draws: int = 1000) -> bool:
    """Whether a study says that its second arm is better than the first; all its other comparisons are of equals."""
    arms = values(rng, true, design.arms, design.seeds, design.patients)
    arms[1] = arms[1] + gain
    unit = np.eye(design.arms)
    parts = spread(arms)
    (drawn,) = resample([parts], draws, int(rng.integers(1 << 31)))
    rules = {"margin": np.nan, "alpha": 0.05, "family": design.family}
    table = contrast_table(parts, drawn, unit[1:] - unit[0], METRICS["dice"], **rules)
    return bool(table["verdict"][0] == "better")


def power(true: Variances, design: Design, gain: float, studies: int) -> float:
    """Share of the studies that find ``gain``."""
    rng = np.random.default_rng(5)
    return float(np.mean([better(rng, true, design, gain) for _ in range(studies)]))


@cache
def curve(true: Variances, design: Design, studies: int = 200) -> tuple[Numbers, list[float]]:
    """Sizes of difference, and the simulated power at each."""
    sizes = np.linspace(0.2, 2.4, 12) * design.finds(true)
    return sizes, [power(true, design, size, studies) for size in sizes]


def of_pilots(true: Variances, pilot: tuple[int, int, int], design: Design, pilots: int) -> list[tuple[float, float]]:
    """The power that studies have where a pilot promises 80 %, by its variances as expected and to be safe.

    For each the mean over pilots, and the share of pilots whose study has 75 % or more.

    Args:
        true: the variances.
        pilot: its arms, seeds and patients.
        design: of the study.
        pilots: how many are made up.
    """
    rng, found = np.random.default_rng(6), []
    bases = [of_pilot(values(rng, true, *pilot), "dice", "pilot") for _ in range(pilots)]
    for kind in ("expected", "cautious"):
        promised = [design.finds(getattr(one, kind)) for one in bases]
        reached = np.interp(promised, *curve(true, design))
        found.append((float(reached.mean()), float((reached >= 0.75).mean())))
    return found


def main(studies: int = 600) -> None:
    print(f"Power at the planned smallest difference, {studies} studies each: calm seeds; seeds apart")
    for design in (planned(*numbers) for numbers in DESIGNS):
        found = "; ".join(f"{power(true, design, design.finds(true), studies):.0%}" for true in (CALM, APART))
        who = f"{design.arms} arms × {design.seeds} seeds × {design.patients} patients, {design.family} comparisons"
        print(f"  {who}: {found}", flush=True)
    print(f"Power where a pilot promises 80 % (4 arms × 5 seeds × 60), {studies} pilots: mean, share at 75 % or more")
    for pilot in ((2, 2, 20), (2, 3, 20), (2, 3, 60), (4, 3, 60), (4, 5, 60)):
        for name, true in (("calm", CALM), ("apart", APART)):
            (mean, share), (safe, most) = of_pilots(true, pilot, planned(4, 5, 60, 5), studies)
            print(f"  {pilot}, {name}: {mean:.0%}, {share:.0%}; to be safe {safe:.0%}, {most:.0%}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
