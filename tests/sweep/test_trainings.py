"""A sweep of real trainings: one is killed, one finishes, one fails, one is pruned; each is told as what it was."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_sweeper import ROOT, until

pytestmark = pytest.mark.slow
KILLED = 0  # number of the trial that the system ends


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep that has ended, in an outputs folder of its own."""
    outputs = tmp_path_factory.mktemp("sweep") / "outputs"
    command = [
        *(sys.executable, "-m", "seg.train", "-m", "debug=fast", f"paths.outputs={outputs}", "scheduler=constant"),
        *("trainer.max_epochs=3", "optimizer.lr=choice(0.02,1e-9,1e30)", "seed=choice(0,1)", "optimizer=adamw"),
        "hydra.sweeper.enqueue=[{optimizer.lr: 0.02, seed: 0}, {optimizer.lr: 0.02, seed: 1}, "
        "{optimizer.lr: 1e30, seed: 0}, {optimizer.lr: 1e-9, seed: 0}]",  # none but the last is worse than another
        *("hydra.sweeper.n_trials=2", "hydra.sweeper.sampler=random", "hydra.sweeper.retries=0"),
        *("hydra.sweeper.pruner=median", "hydra.sweeper.pruner_options={n_startup_trials: 1}"),
        "hydra/launcher=submitit_local",
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as sweep:
        until(lambda: list(outputs.glob(f"sweeps/*/trials/{KILLED}/progress.json")) or sweep.poll() is not None, 300)
        assert sweep.poll() is None, sweep.communicate()[0]
        (trial,) = outputs.glob(f"sweeps/*/trials/{KILLED}")
        os.kill(json.loads((trial / "run.json").read_text())["process"]["pid"], signal.SIGKILL)
        said = sweep.communicate(timeout=300)[0]
    assert sweep.returncode == 0, said
    (folder,) = (outputs / "sweeps").iterdir()
    return folder


def runs(folder: Path) -> pd.DataFrame:
    """The sweep's runs as MLflow holds them, by trial."""
    from seg.records.table import runs

    table = runs(folder.parents[1], sweep=folder.name)
    return table[table["trial"].notna()].assign(trial=lambda t: t["trial"].astype(int)).set_index("trial")


def trials(folder: Path) -> Any:
    return pd.read_csv(folder / "trials.csv").set_index("number")


def test_each_trial_is_told_as_what_it_was(folder: Path) -> None:
    table = trials(folder)
    assert list(table["state"]) == ["failed", "finished", "failed", "pruned"]
    assert "died" in table.loc[0, "error"]
    assert "not finite" in table.loc[2, "error"] or "nan" in table.loc[2, "error"]
    assert table.loc[1, "val_dice"] > table.loc[3, "val_dice"]


def test_their_runs_have_the_same_ends_in_mlflow(folder: Path) -> None:
    table = runs(folder)
    assert table["status"].to_dict() == {0: "FAILED", 1: "FINISHED", 2: "FAILED", 3: "PRUNED"}
    assert table["run_id"].to_dict() == trials(folder)["run_id"].to_dict()
    assert len(set(table["parent"])) == 1


def test_each_trial_has_a_prediction_folder_of_its_own_and_none_is_tested(folder: Path) -> None:
    predictions = [Path(path) for path in trials(folder)["predictions"]]
    assert len(set(predictions)) == 4
    assert [len(list(path.glob("*.png"))) > 0 for path in predictions] == [False] * 4
    assert not any("test_dice" in path.read_text() for path in folder.parents[1].glob("runs/*/summary.json"))


def test_the_log_of_a_killed_trial_is_kept(folder: Path) -> None:
    assert "epoch   1" in (folder / f"trials/{KILLED}/log.txt").read_text()


def test_a_killed_sweep_goes_on_with_the_run_it_was_in(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    command = [sys.executable, "-m", "seg.train", "-m", "debug=fast", "tracking=none", f"paths.outputs={outputs}"]
    command += ["seed=0,1", "trainer.max_epochs=6"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as sweep:
        until(lambda: list(outputs.glob("runs/*/checkpoints/last.pt")) or sweep.poll() is not None, 300)
        sweep.kill()
    (before,) = outputs.glob("runs/*/checkpoints/last.pt")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (folder,) = (outputs / "sweeps").iterdir()
    table = trials(folder)
    assert table["state"].to_dict() == {0: "finished", 1: "finished"}
    assert before.parents[1].name == f"run_{table.loc[0, 'run_id'][:8]}"
    assert "resumed after step" in (before.parents[1] / "log.txt").read_text()
    assert len(list(outputs.glob("runs/run_*/checkpoints"))) == 2, "no run was begun twice"
    assert len(list(outputs.glob("runs/run_*"))) == 3, "two trials and their parent"
