"""What a sweep costs beside its trials, what asynchronous workers gain, and what pruning saves."""

import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import pandas as pd

TRIALS, SLEEP = 17, 20.0  # seconds of a short trial; a long one takes three times as much


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        outputs = Path(folder)
        for launcher in ("basic", "submitit_local"):
            overhead(outputs / launcher, launcher)
        throughput(outputs)
        pruning(outputs)


def sweep(outputs: Path, *arguments: str, module: str = "benchmarks.sleeper") -> float:
    """Runs a sweep; returns its seconds."""
    start = time.perf_counter()
    command = [sys.executable, "-m", module, "-m", f"paths.outputs={outputs}", "paths.cache=outputs/cache", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return time.perf_counter() - start


def trial_times(outputs: Path) -> list[dict[str, float]]:
    return [
        json.loads(path.read_text())
        for path in sorted(outputs.glob("sweeps/*/trials/*/times.json"), key=os.path.getmtime)
    ]


def overhead(outputs: Path, launcher: str) -> None:
    """Seconds between the end of a trial's work and the next one's beginning, less the start of its Python."""
    sweep(outputs, f"hydra/launcher={launcher}", "seed=range(0,12,2)", "trainer.max_minutes=0.01")
    gaps = pd.Series([gap(*pair) for pair in pairwise(trial_times(outputs))])
    print(f"overhead per trial, {launcher}: median {gaps.median():.2f} s ({gaps.min():.2f} to {gaps.max():.2f})")


def gap(before: dict[str, float], after: dict[str, float]) -> float:
    python = after["began"] - after["born"] if after["born"] > before["ended"] else 0.0
    return after["began"] - before["ended"] - python


def throughput(outputs: Path) -> None:
    """Two workers, trials of which every other one takes three times as long: asynchronous against in batches.

    From the first trial's beginning to the last one's end; each has a Python of its own to start, in both.
    """
    work = [f"seed=range({TRIALS})", f"trainer.max_minutes={SLEEP / 60}"]
    sweep(outputs / "free", "hydra.sweeper.n_jobs=2", *work)
    batches = ["hydra/sweeper=basic", "hydra.sweeper.max_batch_size=2", "hydra/launcher=submitit_local"]
    sweep(outputs / "batches", f"hydra.sweep.dir={outputs}/batches/sweeps/x", *batches, *work)
    free, together = (span(trial_times(outputs / name)) for name in ("free", "batches"))
    print(
        f"{TRIALS} trials of {SLEEP:.0f} and {3 * SLEEP:.0f} s on 2 workers: {free:.0f} s, in batches {together:.0f} s,"
    )
    print(f"{together / free:.2f} times the throughput (at most 1.5)")


def span(times: list[dict[str, float]]) -> float:
    assert len(times) == TRIALS
    return max(trial["ended"] for trial in times) - min(trial["began"] for trial in times)


def pruning(outputs: Path) -> None:
    """The same search with and without a median pruner: best value, and epochs trained."""
    search = [
        "hydra.sweeper.n_trials=16",
        "optimizer.lr=tag(log, interval(1e-4, 1e-1))",
        "loss=choice(dice_ce,tversky,dice_focal)",
        "tracking=none",
        "data.patch_voxels=32768",
        "model.channels=[8,16,32]",
        "model.strides=[2,2]",
        "trainer.max_epochs=12",
        "trainer.steps_per_epoch=10",
        "predictions.dpi=72",
        "predictions.slices=best",
    ]
    found = {}
    for pruner, options in (("none", "{}"), ("median", "{n_startup_trials: 4, n_warmup_steps: 2}")):
        place = outputs / pruner
        options = f"hydra.sweeper.pruner_options={options}"
        sweep(place, f"hydra.sweeper.pruner={pruner}", options, *search, module="seg.train")
        (table,) = place.glob("sweeps/*/trials.csv")
        reached = place.glob("sweeps/*/trials/*/progress.json")
        epochs = sum(json.loads(path.read_text())["epoch"] for path in reached)
        found[pruner] = (pd.read_csv(table)["val_dice"].max(), epochs)
    (best, epochs), (best_pruned, epochs_pruned) = found["none"], found["median"]
    print(f"median pruning: best val_dice {best_pruned:.4f} in {epochs_pruned} epochs, without {best:.4f} in {epochs}:")
    print(f"{epochs_pruned / epochs:.0%} of the epochs")


if __name__ == "__main__":
    main()
