"""Sweeps of a stand-in through every launcher but the basic one: processes, a pool, a SLURM cluster of one node."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm import Slurm, cluster, missing
from test_sweeper import Sweeps, until

from seg.material import processes

pytestmark = pytest.mark.slow


@pytest.fixture
def sweeps(tmp_path: Path, phantom_root: Path) -> Sweeps:
    return Sweeps(tmp_path, phantom_root)


@pytest.fixture(scope="module")
def one_node() -> Iterator[Slurm]:
    if absent := missing():
        pytest.skip(f"{', '.join(absent)} not found: apt-get install slurm-wlm munge")
    with cluster(processors=2) as slurm:
        yield slurm


@pytest.fixture
def slurm(one_node: Slurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    for key, value in one_node.environment.items():
        monkeypatch.setenv(key, value)
    yield one_node
    for job in one_node.jobs():
        one_node.cancel(job)
    until(lambda: not one_node.jobs())


def started(sweeps: Sweeps, arm: str) -> bool:
    """Whether a trial of that arm is at work, or was."""
    return (sweeps.outputs / "acts.jsonl").exists() and any(act["arm"] == arm for act in sweeps.acts)


def ended(process: "subprocess.Popen[str]", code: int = 0) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, out + err
    return out + err


def test_joblib_runs_trials_in_processes_of_its_own(sweeps: Sweeps) -> None:
    process = sweeps.start("hydra/launcher=joblib", "hydra.sweeper.n_jobs=2", "seed=1,2,3")
    assert "3 of 3 finished" in ended(process)
    assert sorted(act["seed"] for act in sweeps.acts) == [1, 2, 3]
    assert process.pid not in {act["pid"] for act in sweeps.acts}
    assert {act["threads"] for act in sweeps.acts} == {str(max(1, processes() // 2))}
    assert list(sweeps.trials["state"]) == ["finished"] * 3


def test_submitit_local_shares_processors_and_gpus_out(sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    sweeps.run_alone("hydra/launcher=submitit_local", "hydra.sweeper.n_jobs=2", "seed=1,2,3")
    assert len({act["pid"] for act in sweeps.acts}) == 3
    assert {act["gpus"] for act in sweeps.acts} == {"3", "5"}
    assert {act["threads"] for act in sweeps.acts} == {str(max(1, processes() // 2))}
    assert list(sweeps.trials["state"]) == ["finished"] * 3


SLURM = ("hydra/launcher=submitit_slurm", "hydra.sweeper.n_jobs=2", "hydra.launcher.timeout_min=30")


def test_slurm_runs_each_trial_as_a_job(sweeps: Sweeps, slurm: Slurm) -> None:
    sweeps.run_alone(*SLURM, "seed=1,2,3")
    assert sorted(act["seed"] for act in sweeps.acts) == [1, 2, 3]
    assert len({act["job"] for act in sweeps.acts} - {None}) == 3
    assert list(sweeps.trials["state"]) == ["finished"] * 3
    assert sorted(sweeps.trials["val_dice"]) == pytest.approx([0.11, 0.21, 0.31])


def test_a_job_that_the_cluster_ends_is_failed_and_tried_again(sweeps: Sweeps, slurm: Slurm) -> None:
    process = sweeps.start(*SLURM, "arm=hang,well")
    until(lambda: started(sweeps, "hang"))
    (job,) = {act["job"] for act in sweeps.acts if act["arm"] == "hang"}
    slurm.cancel(job)
    ended(process)
    trials = sweeps.trials
    assert trials[trials["arm"] == "hang"]["state"].tolist() == ["failed", "finished"]
    assert "CANCELLED" in trials.loc[trials["state"] == "failed", "error"].iloc[0]
    assert trials[trials["arm"] == "well"]["state"].tolist() == ["finished"]


def test_a_job_outlives_its_sweep_which_then_takes_its_result(sweeps: Sweeps, slurm: Slurm) -> None:
    grid = (*SLURM, "arm=sleep_12,well")
    process = sweeps.start(*grid)
    until(lambda: started(sweeps, "sleep_12") and started(sweeps, "well"))
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert slurm.jobs("RUNNING")
    sweeps.run_alone(*grid)
    assert sorted(act["arm"] for act in sweeps.acts) == ["sleep_12", "well"]
    assert list(sweeps.trials["state"]) == ["finished"] * 2


def test_a_job_that_waits_in_the_queue_when_its_sweep_dies_is_not_run_twice(sweeps: Sweeps, slurm: Slurm) -> None:
    grid = (*SLURM, "hydra.sweeper.n_jobs=3", "arm=sleep_12,sleep_13,well")
    process = sweeps.start(*grid)
    until(lambda: len(slurm.jobs("PENDING")) == 1 and started(sweeps, "sleep_12") and started(sweeps, "sleep_13"))
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    sweeps.run_alone(*grid)
    until(lambda: not slurm.jobs())
    assert sorted(act["arm"] for act in sweeps.acts) == ["sleep_12", "sleep_13", "well"]
    assert list(sweeps.trials["state"]) == ["finished"] * 3
