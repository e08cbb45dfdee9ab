"""Dice for time: the recipe experiments/hippocampus.yaml for 10 and for 25 minutes, scored once on the test part."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from seg.metrics import read_scores

DRAWS = 10_000


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over cases."""
    rng = np.random.default_rng(0)
    means = rng.choice(values, (DRAWS, len(values))).mean(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def main() -> None:
    root = Path(os.environ.get("SEG_HIPPOCAMPUS", "../shared/data/Task04_Hippocampus")).resolve()
    outputs = Path(os.environ.get("SEG_BENCH_OUTPUTS", "outputs/quality"))
    for minutes in (10, 25):
        before = set(outputs.glob("runs/*"))
        where = [f"data.root={root}", f"paths.outputs={outputs}", "tracking=none"]
        command = [
            sys.executable,
            "-m",
            "seg.train",
            "experiments=hippocampus",
            f"trainer.max_minutes={minutes}",
            *where,
        ]
        subprocess.run(command, check=True)
        (run,) = set(outputs.glob("runs/*")) - before
        cases = read_scores(run / "data" / "cases.csv")
        dice = cases.groupby("case")["dice"].mean().to_numpy()
        low, high = interval(dice)
        steps = int(pd.read_csv(run / "history.csv")["step"].iloc[-1])
        spread = f"95 % interval {low:.4f} to {high:.4f}, {len(dice)} cases"
        print(f"{minutes} minutes, {steps} steps: test Dice {dice.mean():.4f}, {spread}")


if __name__ == "__main__":
    main()
