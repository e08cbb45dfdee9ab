"""Statistics of a large study: 12 arms, 3 seeds, 260 patients with two classes, 10,000 bootstrap draws, on one core.

``python -m benchmarks.statistics`` prints the median seconds of ``analyse`` for several sizes, and of the output.
"""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd

from benchmarks.timing import median_seconds
from seg.study.analysis import Analysis, analyse
from seg.study.figures import write_figures
from seg.study.tables import write_tables

REPEATS = 5


def study(
    gains: dict[str, float],
    *,
    patients: int = 60,
    seeds: int = 3,
    folds: int = 5,
    classes: tuple[str, ...] = ("structure",),
    spread: float = 0.012,
    rest: float = 0.010,
    seed_spread: float = 0.002,
    rng: int | np.random.Generator = 0,
) -> pd.DataFrame:
    """Scores of a made-up study.

    Args:
        gains: of each arm, in dice over 0.85; an HD95 goes with it.
        patients: with one case each.
        seeds: of each arm.
        folds: the patients are dealt to in turn.
        classes: that all score alike but for noise.
        spread: SD of what a patient does in one arm and not in another.
        rest: SD of what a patient does in one training and not in the next.
        seed_spread: SD of what one training does to all patients.
        rng: or its seed.
    """
    rng = np.random.default_rng(rng)
    size = (len(gains), seeds, patients, len(classes))
    dice = 0.85 + np.fromiter(gains.values(), float)[:, None, None, None] + rng.normal(0, 0.04, (1, 1, patients, 1))
    dice = dice + rng.normal(0, spread, (size[0], 1, patients, 1)) + rng.normal(0, seed_spread, (*size[:2], 1, 1))
    dice = dice + rng.normal(0, rest, size)
    keys = pd.MultiIndex.from_product([gains, range(seeds), range(patients), classes])
    arm, seed, patient, name = (keys.get_level_values(level) for level in range(4))
    return pd.DataFrame(
        {"arm": arm, "seed": seed, "fold": patient % folds, "case": [f"case_{n:03d}" for n in patient]}
        | {"patient": [f"p{n:03d}" for n in patient], "class": name, "dice": dice.ravel()}
        | {"hd95_mm": (np.exp(12 * (0.9 - dice)) * rng.lognormal(0, 0.1, size)).ravel(), "missed": 0, "false": 0}
    )


def main() -> None:
    analysis: Analysis | None = None
    for arms, seeds, patients, draws in ((3, 3, 52, 10_000), (5, 3, 260, 10_000), (12, 3, 260, 10_000)):
        gains = {f"arm_{n}": 0.002 * n for n in range(arms)}
        scores = study(gains, patients=patients, seeds=seeds, classes=("anterior", "posterior"))

        def run(scores: pd.DataFrame = scores, draws: int = draws) -> Analysis:
            return analyse(scores, baseline="arm_0", margin=0.005, draws=draws)

        seconds, analysis = median_seconds(run, REPEATS), run()
        print(
            f"{arms} arms x {seeds} seeds x {patients} cases, {len(scores)} rows, {draws} draws, "
            f"{len(analysis.comparisons)} comparisons: analyse {seconds:.2f} s"
        )
    assert analysis is not None
    with tempfile.TemporaryDirectory() as folder:
        tables = median_seconds(lambda: write_tables(analysis, Path(folder)), REPEATS)
        figures = median_seconds(lambda: write_figures(analysis, Path(folder)), REPEATS)
    print(f"the largest of these: tables {tables:.2f} s, figures (PNG and SVG) {figures:.2f} s")


if __name__ == "__main__":
    main()
