"""Sweeps of a stand-in through every launcher but the basic one: processes, a SLURM cluster of one node."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from slurm import Slurm, cluster, missing
from test_sweeper import Sweeps, until

from seg.data.processors import processors

pytestmark = pytest.mark.slow


@pytest.fixture
def sweeps(tmp_path: Path, phantom_root: Path) -> Iterator[Sweeps]:
    yield (sweeps := Sweeps(tmp_path, phantom_root))
    sweeps.end()


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


def dies(sweeps: Sweeps, *grid: str, when: Callable[[], bool]) -> None:
    """A sweep that is killed as soon as ``when`` holds."""
    process = sweeps.start(*grid)
    until(when)
    process.kill()
    process.communicate(timeout=60)


def ended(process: "subprocess.Popen[str]", code: int = 0) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, out + err
    return out + err


def test_submitit_local_shares_processors_and_gpus_out(sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    sweeps.run_alone("hydra/launcher=submitit_local", "hydra.sweeper.n_jobs=2", "seed=1,2,3")
    assert len({act["pid"] for act in sweeps.acts}) == 3
    assert {act["gpus"] for act in sweeps.acts} == {"3", "5"}
    assert {act["threads"] for act in sweeps.acts} == {str(max(1, processors() // 2))}
    assert list(sweeps.trials["state"]) == ["finished"] * 3


def test_a_folder_may_have_an_apostrophe(sweeps: Sweeps) -> None:
    place = sweeps.outputs.parent / "O'Brien"
    sweeps.common = [one.replace(f"={sweeps.outputs}", f"={place}") for one in sweeps.common]
    sweeps.outputs = place
    sweeps.run_alone("hydra/launcher=submitit_local", "seed=1,2")
    assert list(sweeps.trials["state"]) == ["finished"] * 2


SLURM = ("hydra/launcher=submitit_slurm", "hydra.sweeper.n_jobs=2", "hydra.launcher.timeout_min=30")


def test_slurm_runs_each_trial_as_a_job(sweeps: Sweeps, slurm: Slurm) -> None:
    sweeps.run_alone(*SLURM, "seed=1,2,3")
    assert sorted(act["seed"] for act in sweeps.acts) == [1, 2, 3]
    assert len({act["job"] for act in sweeps.acts} - {None}) == 3
    assert list(sweeps.trials["state"]) == ["finished"] * 3
    assert sorted(sweeps.trials["val_dice"]) == pytest.approx([0.11, 0.21, 0.31])


def test_a_job_that_the_cluster_ends_is_failed_and_tried_again(sweeps: Sweeps, slurm: Slurm) -> None:
    process = sweeps.start(*SLURM, "arm=hang,well")
    until((sweeps.outputs / "hung").exists)
    (job,) = {act["job"] for act in sweeps.acts if act["arm"] == "hang"}
    slurm.cancel(job)
    ended(process)
    trials = sweeps.trials
    assert trials[trials["arm"] == "hang"]["state"].tolist() == ["failed", "finished"]
    assert "CANCELLED" in trials.loc[trials["state"] == "failed", "error"].iloc[0]
    assert trials[trials["arm"] == "well"]["state"].tolist() == ["finished"]


def test_a_job_that_the_cluster_puts_back_into_the_queue_goes_on_from_where_it_saved(
    sweeps: Sweeps, slurm: Slurm
) -> None:
    process = sweeps.start(*SLURM, "arm=save,well")
    until((sweeps.outputs / "saved").exists)
    (job,) = {act["job"] for act in sweeps.acts if act["arm"] == "save"}
    slurm.ask("scontrol", "requeue", job)
    ended(process)
    first, second = [act for act in sweeps.acts if act["arm"] == "save"]
    assert (first["begun"], second["job"]) == (None, job)
    assert second["begun"] is not None
    assert list(sweeps.trials["state"]) == ["finished"] * 2


def test_a_job_outlives_its_sweep_which_then_waits_for_its_result(sweeps: Sweeps, slurm: Slurm) -> None:
    grid = (*SLURM, "arm=wait,well")
    dies(sweeps, *grid, when=lambda: started(sweeps, "wait"))
    (job,) = {act["job"] for act in sweeps.acts if act["arm"] == "wait"}
    again = sweeps.start(*grid)
    until(lambda: f'"pid":{again.pid},' in (sweeps.folder / "journal.log").read_text())
    (sweeps.outputs / "go").touch()  # the job could not end before the next sweep had found it
    ended(again)
    assert [act["job"] for act in sweeps.acts if act["arm"] == "wait"] == [job]
    assert list(sweeps.trials["state"]) == ["finished"] * 2


def test_a_job_that_waits_when_its_sweep_dies_is_not_run_twice(sweeps: Sweeps, slurm: Slurm) -> None:
    grid = (*SLURM, "seed=1,2")
    slurm.ask("scontrol", "update", "PartitionName=all", "State=DOWN")  # takes jobs, and lets them wait
    try:
        dies(sweeps, *grid, when=lambda: len(slurm.jobs()) == 2)
        again = sweeps.start(*grid)
        until(lambda: len(slurm.jobs()) == 4)
    finally:
        slurm.ask("scontrol", "update", "PartitionName=all", "State=UP")
    ended(again)
    until(lambda: not slurm.jobs())
    assert sorted(act["seed"] for act in sweeps.acts) == [1, 2]
    assert list(sweeps.trials["state"]) == ["finished"] * 2


def test_a_stopped_sweep_leaves_its_jobs_to_the_cluster(sweeps: Sweeps, slurm: Slurm) -> None:
    grid = (*SLURM, "hydra.sweeper.n_jobs=1", "arm=wait")
    process = sweeps.start(*grid)
    until(lambda: started(sweeps, "wait"))
    job = sweeps.acts[0]["job"]
    process.terminate()
    assert "the jobs of the cluster continue" in ended(process, code=1)
    assert slurm.jobs("RUNNING") == [job]
    (sweeps.outputs / "go").touch()
    sweeps.run_alone(*grid)
    assert [act["job"] for act in sweeps.acts] == [job]
    assert list(sweeps.trials["state"]) == ["finished"]


def test_a_job_that_ends_while_no_sweep_looks_is_found_out(sweeps: Sweeps, slurm: Slurm) -> None:
    grid = (*SLURM, "arm=hang")
    dies(sweeps, *grid, when=(sweeps.outputs / "hung").exists)
    slurm.cancel(sweeps.acts[0]["job"])
    until(lambda: not slurm.jobs())
    os.utime(sweeps.folder / "trials/0/run.json", (0, 0))  # its last sign of life, long ago
    sweeps.run_alone(*grid)
    assert len(sweeps.acts) == 2
    assert list(sweeps.trials["state"]) == ["finished"]
