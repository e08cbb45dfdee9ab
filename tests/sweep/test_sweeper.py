"""Sweeps of a stand-in for training: what runs, what is skipped, what comes back, what is told."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import nibabel
import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from seg.config.arguments import quoted
from seg.config.options import CONF
from seg.data.processors import processors
from seg.records.state import Process
from seg.sweep import parent
from seg.sweep.launch import OWNER, Workers, make_workers

APP = Path(__file__).with_name("app.py")
ROOT = APP.parents[2]
spec = importlib.util.spec_from_file_location("sweep_app", APP)
assert spec is not None
assert spec.loader is not None
app = importlib.util.module_from_spec(spec)
spec.loader.exec_module(app)


class Sweeps:
    """Runs sweeps in a folder of their own."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.outputs = folder / "outputs"
        self.processes: list[subprocess.Popen[str]] = []
        self.common = [
            "tracking=none",
            "data=folder",
            f"data.root={data}",
            f"paths.outputs={self.outputs}",
            f"paths.cache={data.parent / 'sweep_cache'}",
        ]

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, str(APP), "-m", *self.common, *arguments]
        environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
        environment["PYTHONPATH"] = str(ROOT)
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "process_group": 0}
        self.processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, **pipes))
        return self.processes[-1]

    def end(self) -> None:
        """Ends what a test that failed left behind."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.communicate()

    def run(self, *arguments: str, code: int = 0, plots: bool = False) -> str:
        """In this process, which has imported everything already; the plots take longer than all else."""
        out = StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(out):
            if not plots:
                patch.setattr(parent, "draw", lambda search, title: "")
            patch.setenv("MLFLOW_TRACKING_URI", os.environ.get("MLFLOW_TRACKING_URI", ""))  # a sweep may set it
            patch.setattr(sys, "argv", [str(APP), "-m", *self.common, *arguments])
            patch.chdir(ROOT)
            try:
                app.run()
                ended: Any = 0
            except SystemExit as end:
                ended = end.code
        assert ended == code, out.getvalue()
        return out.getvalue()

    def run_alone(self, *arguments: str, code: int = 0) -> str:
        """In a process of its own, as a user does."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=300)
        assert process.returncode == code, out + err
        return out + err

    @property
    def folder(self) -> Path:
        (folder,) = (self.outputs / "sweeps").iterdir()
        return folder

    @property
    def trials(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "trials.csv")

    @property
    def acts(self) -> list[dict[str, Any]]:
        path = self.outputs / "acts.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def sweeps(tmp_path: Path, phantom_root: Path) -> Iterator[Sweeps]:
    yield (sweeps := Sweeps(tmp_path, phantom_root))
    sweeps.end()


def until(condition: Any, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_a_grid_runs_every_combination_once(sweeps: Sweeps) -> None:
    said = sweeps.run("arm=well,better", "seed=range(1,4)", plots=True)
    assert [(act["arm"], act["seed"]) for act in sweeps.acts] == [
        (arm, seed) for arm in ("well", "better") for seed in (1, 2, 3)
    ]
    assert list(sweeps.trials["state"]) == ["finished"] * 6
    assert sweeps.trials["val_dice"].max() == pytest.approx(0.31)
    assert len(set(sweeps.trials["run_id"])) == 6
    folders = {folder.name for folder in (sweeps.outputs / "predictions").iterdir()}
    assert folders == {f"run_{run_id[:8]}" for run_id in sweeps.trials["run_id"]}, (
        "the sweep's own run predicts nothing"
    )
    assert "6 of 6 finished" in said
    assert {"trials.csv", "summary.md", "plots.html", "sweep.json", "log.txt"} <= {
        p.name for p in sweeps.folder.iterdir()
    }
    assert "experiments=best" in (sweeps.folder / "summary.md").read_text()
    assert (sweeps.folder / "experiments/best.yaml").exists()


def test_the_winners_options_are_named_only_where_they_are(sweeps: Sweeps) -> None:
    sweeps.run("seed=1,2")
    (winner,) = sweeps.trials.loc[sweeps.trials["seed"] == 2, "run_id"]
    shutil.rmtree(sweeps.outputs / "runs" / f"run_{winner[:8]}")
    shutil.rmtree(sweeps.folder / "experiments")
    sweeps.run("seed=1,2")
    assert not (sweeps.folder / "experiments").exists()
    summary = (sweeps.folder / "summary.md").read_text()
    assert "Best by val_dice" in summary
    assert "experiments=best" not in summary


@pytest.mark.slow
def test_a_finished_grid_is_not_run_again(sweeps: Sweeps) -> None:
    sweeps.run("seed=1,2")
    (sweeps.folder / "owner.json").write_text("[1]")  # a disk's fault
    said = sweeps.run("seed=1,2")
    assert len(sweeps.acts) == 2
    assert "2 of 2 finished" in said


def test_what_fails_costs_one_trial_and_is_tried_again(sweeps: Sweeps) -> None:
    said = sweeps.run("arm=once,crash,well", "seed=1", code=1)
    trials = sweeps.trials
    assert sorted(trials["state"]) == ["failed", "failed", "failed", "finished", "finished"]
    assert trials[trials["state"] == "finished"]["arm"].tolist().count("once") == 1
    assert set(trials[trials["arm"] == "crash"]["error"]) == {"ZeroDivisionError: division by zero"}
    assert "1 of 3 jobs of the grid did not finish" in said


def test_a_fault_of_the_users_is_not_tried_again(sweeps: Sweeps) -> None:
    sweeps.run("arm=wrong,well", code=1)
    assert [act["arm"] for act in sweeps.acts] == ["wrong", "well"]


@pytest.mark.slow
def test_a_sweep_that_cannot_work_ends_with_its_first_error(sweeps: Sweeps) -> None:
    said = sweeps.run("arm=fail", "seed=range(20)", "hydra.sweeper.max_failures=3", code=1)
    assert len(sweeps.acts) == 3
    assert "The first was trial 0: the loss is not finite" in said


def test_a_value_that_is_no_number_fails_its_trial(sweeps: Sweeps) -> None:
    sweeps.run("arm=nan,well", code=1)
    assert "the run has no val_dice" in sweeps.trials["error"].dropna().iloc[0]


def test_a_search_asks_the_sampler_and_stops_at_its_number(sweeps: Sweeps) -> None:
    sweeps.run("seed=interval(1,9)", "hydra.sweeper.n_trials=6", "hydra.sweeper.sampler=random")
    assert len(sweeps.acts) == 6
    assert len({act["seed"] for act in sweeps.acts}) > 1
    assert all(1 <= act["seed"] <= 9 for act in sweeps.acts)
    sweeps.run("seed=interval(1,9)", "hydra.sweeper.n_trials=8", "hydra.sweeper.sampler=random")
    assert len(sweeps.acts) == 8


def test_trials_of_a_search_are_not_tested_but_the_winner_is(sweeps: Sweeps) -> None:
    sweeps.run("seed=interval(1,9)", "hydra.sweeper.n_trials=2", "hydra.sweeper.sampler=random")
    winner = sweeps.trials.sort_values("val_dice")["run_id"].iloc[-1]
    config = OmegaConf.load(sweeps.outputs / f"runs/run_{winner[:8]}/config/config.yaml")
    assert config.inference.part == "none"
    assert OmegaConf.load(sweeps.folder / "experiments/best.yaml").inference.part == "test"
    command = f"python -m seg.score run={winner[:8]} paths.outputs={sweeps.outputs}"
    assert command in (sweeps.folder / "summary.md").read_text(), "as it is, it finds the run"


@pytest.mark.slow
def test_trials_are_pruned_where_the_others_were_better(sweeps: Sweeps) -> None:
    said = sweeps.run(
        "seed=9,8,7,6,1,2,3,4", "hydra.sweeper.pruner=median", "hydra.sweeper.pruner_options={n_startup_trials: 2}"
    )
    trials = sweeps.trials
    assert (trials["state"] == "pruned").sum() >= 2
    assert trials.loc[trials["state"] == "pruned", "seed"].max() < 9
    assert trials[trials["state"] == "finished"]["val_dice"].max() == pytest.approx(0.91)
    assert "pruned" in said


@pytest.mark.slow
def test_two_workers_have_processes_and_threads_of_their_own(sweeps: Sweeps) -> None:
    sweeps.run_alone("seed=1,2,3", "hydra.sweeper.n_jobs=2")
    assert len({act["pid"] for act in sweeps.acts}) == 3
    assert {act["threads"] for act in sweeps.acts} == {str(max(1, processors() // 2))}


@pytest.mark.slow
def test_a_trial_killed_by_the_system_costs_that_trial_only(sweeps: Sweeps) -> None:
    sweeps.run_alone("arm=kill,well", "hydra.sweeper.n_jobs=2", "hydra.sweeper.retries=0", code=1)
    trials = sweeps.trials.set_index("arm")
    assert trials.loc["kill", "state"] == "failed"
    assert "died" in trials.loc["kill", "error"]
    assert trials.loc["well", "state"] == "finished"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_a_stopped_sweep_goes_on_where_it_was(number: signal.Signals, sweeps: Sweeps) -> None:
    grid = ("arm=well,hang,better",)
    process = sweeps.start(*grid)
    until((sweeps.outputs / "hung").exists)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    parents = [path for path in sweeps.outputs.glob("runs/*/record.jsonl") if "sweep" in path.read_text()]
    assert len(parents) == 1
    sweeps.run(*grid)
    assert sorted(sweeps.trials[sweeps.trials["state"] == "finished"]["arm"]) == ["better", "hang", "well"]
    assert [act["arm"] for act in sweeps.acts].count("well") == 1
    assert len([path for path in sweeps.outputs.glob("runs/*/record.jsonl") if "sweep" in path.read_text()]) == 1
    if number == signal.SIGTERM:
        assert "the same command continues" in said


@pytest.mark.slow
def test_the_same_sweep_twice_at_once_is_refused(sweeps: Sweeps) -> None:
    process = sweeps.start("arm=hang,well")
    until((sweeps.outputs / "hung").exists)
    said = sweeps.run("arm=hang,well", code=2)
    assert "is running already" in said
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_two_processes_share_one_storage(sweeps: Sweeps, tmp_path: Path) -> None:
    shared = ("seed=interval(1,9)", "hydra.sweeper.n_trials=9", f"hydra.sweeper.storage={tmp_path / 'shared.log'}")
    processes = [sweeps.start("arm=sleep_0.3", *shared) for _ in range(2)]
    for process in processes:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    assert len(sweeps.acts) == 9
    assert len({act["pid"] for act in sweeps.acts}) == 2
    (parent,) = {act["parent"] for act in sweeps.acts}
    record = (sweeps.outputs / f"runs/run_{parent[:8]}/record.jsonl").read_text()
    assert record.count('"FINISHED"') == 1, "one of them concludes"
    assert list(sweeps.trials["state"]) == ["finished"] * 9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arm", "code", "states", "status"),
    [("well", 0, {"finished"}, "FINISHED"), ("fail", 1, {"finished", "failed"}, "FAILED")],
    ids=["well", "fail"],
)
def test_a_process_concludes_the_sweep_of_another_that_died(
    arm: str, code: int, states: set[str], status: str, sweeps: Sweeps, tmp_path: Path
) -> None:
    shared = ("seed=1,2,3", f"hydra.sweeper.storage={tmp_path / 'shared.log'}", "hydra.sweeper.retries=0")
    owner, other = (sweeps.start(f"arm=wait,{arm}", *shared) for _ in range(2))
    until(lambda: len({act["pid"] for act in sweeps.acts}) == 2)
    (parent,) = {act["parent"] for act in sweeps.acts}
    if json.loads((sweeps.folder / "owner.json").read_text())["pid"] == other.pid:
        owner, other = other, owner
    owner.kill()
    owner.communicate()
    (sweeps.outputs / "go").touch()
    _, said = other.communicate(timeout=300)
    assert other.returncode == code, said
    assert set(sweeps.trials["state"]) == states
    state = json.loads((sweeps.outputs / f"runs/run_{parent[:8]}/state.json").read_text())
    assert state["status"] == status


def test_only_the_owner_of_a_sweep_shows_that_it_lives(tmp_path: Path) -> None:
    """Another machine that works at it must not keep a dead owner looking alive."""
    owner = tmp_path / OWNER

    def beat(process: Process) -> float:
        owner.write_text(json.dumps(asdict(process)))
        os.utime(owner, (0, 0))
        ends = iter([False, True])
        workers: Any = SimpleNamespace(search=SimpleNamespace(beat=list), sweep=SimpleNamespace(folder=tmp_path))
        workers._over = SimpleNamespace(wait=lambda _: next(ends))
        Workers._beat(workers)
        return owner.stat().st_mtime

    assert beat(Process.this()) > 0
    assert beat(replace(Process.this(), host="elsewhere")) == 0


@pytest.mark.slow
def test_ctrl_c_reaches_all_processes_and_loses_no_trial(sweeps: Sweeps) -> None:
    grid = ("arm=sleep_3", "seed=1,2,3", "hydra.sweeper.n_jobs=2")
    process = sweeps.start(*grid)
    until((sweeps.outputs / "acts.jsonl").exists)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "the same command continues" in said
    sweeps.run_alone(*grid)
    trials = sweeps.trials
    assert sorted(trials["seed"]) == [1, 2, 3]
    assert set(trials["state"]) == {"finished"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["seed=interval(1,3)", "hydra.sweeper.n_trials=2", "hydra.sweeper.sampler=cmae"], ["cmae", "'cmaes'"]),
        (["seed=interval(1,3)", "hydra.sweeper.n_trials=2", "hydra.sweeper.pruner=medain"], ["medain", "'median'"]),
        (["seed=interval(1,3)"], ["n_trials"]),
        (["optimizer.lrr=0.1,0.2"], ["optimizer.lrr", "'optimizer.lr'"]),
        (["seed=1,2", "hydra.sweeper.objective=val_dise"], ["val_dise", "'val_dice'"]),
        (["seed=1,2", "hydra.sweeper.objective=test_dice"], ["test part"]),
        (["seed=1,2", "hydra.sweeper.objective=val_dice_liver"], ["val_dice_liver", "lobe"]),
        (["seed=1,2", "data.fold=all", "hydra.sweeper.objective=val_dice"], ["data.fold=all"]),
        (["seed=1,2", "hydra.sweeper.n_jobs=0"], ["n_jobs"]),
        (["seed=choice(1,2)", "hydra.sweeper.n_trials=2", "hydra.sweeper.enqueue=5"], ["enqueue is 5", "list"]),
        (["seed=choice(1,2)", "hydra.sweeper.n_trials=2", "hydra.sweeper.when=model"], ["when is 'model'", "mapping"]),
        (["seed=1,2", "hydra.sweeper.nname=x"], ["nname"]),
        (["seed=1,2", "hydra.sweeper.objective=[]"], ["objective is []", "each once"]),
        (["seed=1,2", "hydra.sweeper.objective=[val_dice,val_dice]"], ["each once"]),
        (["seed=1,-2"], ["seed is -2"]),
        (["seed=1,2", "resume=a1b2c3d4"], ["resume"]),
        (["seed=1,2", "hydra.sweeper.sampler=random"], ["sampler", "n_trials"]),
        (
            [
                "seed=choice(1,2)",
                "hydra.sweeper.n_trials=2",
                "hydra.sweeper.storage=postgresql://me:secret@127.0.0.1:1/x",
            ],
            ["127.0.0.1"],
        ),
        (["seed=choice(1,2)", "hydra.sweeper.n_trials=2", "hydra.sweeper.enqueue=[{seeed: 1}]"], ["seeed", "'seed'"]),
        (
            ["seed=1,2", "hydra.sweeper.pruner=median", "hydra.sweeper.objective=[val_dice,val_loss]"],
            ["pruner=median", "one objective"],
        ),
        (["seed=1,2", "hydra/launcher=joblib"], ["joblib", "submitit_local"]),
        (["seed=1,2", "hydra.sweeper.folds=[0,1]"], ["hydra.sweeper.folds"]),
        (
            [
                "seed=choice(1,2)",
                "hydra.sweeper.n_trials=2",
                "hydra.sweeper.pruner=median",
                "hydra.sweeper.objective=params",
            ],
            ["params", "pruner"],
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_faults_are_told_before_the_first_trial(arguments: list[str], words: list[str], sweeps: Sweeps) -> None:
    said = sweeps.run(*arguments, code=2)
    for word in words:
        assert word in said
    assert "secret" not in said
    assert not (sweeps.outputs / "acts.jsonl").exists()
    assert not re.search("Traceback", said)


def test_a_number_may_name_a_sweep(sweeps: Sweeps) -> None:
    sweeps.run("seed=1,2", "hydra.sweeper.name=2024")
    assert sweeps.folder.name == "2024"


def test_a_setting_of_a_file_that_does_not_exist_is_refused(sweeps: Sweeps) -> None:
    file = sweeps.outputs.parent / "experiments/mine.yaml"
    file.parent.mkdir()
    file.write_text("# @package hydra.sweeper\nn_trails: 3\n")
    said = sweeps.run("experiments=mine", "seed=1,2", "--config-dir", str(file.parents[1]), code=2)
    assert "There is no hydra.sweeper.n_trails. Did you mean 'n_trials'?" in said


@pytest.mark.parametrize("search", [(), ("hydra.sweeper.n_trials=2", "hydra.sweeper.sampler=random")])
def test_the_password_of_an_address_is_written_nowhere(search: tuple[str, ...], sweeps: Sweeps) -> None:
    sweeps.common.remove("tracking=none")
    address = "http://user:hunter2@127.0.0.1:9"  # where nothing listens
    said = sweeps.run("seed=choice(1,2)", *search, f"tracking.uri={address}", code=2)
    assert "hunter2" not in said
    assert (sweeps.folder / "journal.log").exists()
    kept = [path for path in sweeps.outputs.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    assert kept == []


@pytest.mark.parametrize("password", ["hunter2", "it's-hunter2"])
def test_a_launcher_has_no_password_to_write_down(
    password: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"http://user:{password}@127.0.0.1:9"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setattr(Plugins.instance(), "instantiate_launcher", lambda config, **_: config)
    given = (quoted(f"tracking.uri={address}"),)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        storage = "hydra.sweeper.storage=http://user:hunter2@127.0.0.1:9"
        config = compose("train", overrides=[*given, storage], return_hydra_config=True)
    sweep = SimpleNamespace(cfg=config, given=given, folder=tmp_path, n_jobs=1, address=tmp_path / "journal.log")
    (worker,) = make_workers(cast(Any, sweep), cast(Any, None), cast(Any, None), config)
    assert "hunter2" not in OmegaConf.to_yaml(cast(Any, worker.launcher))
    assert worker.overrides == ("tracking.uri='http://user:***@127.0.0.1:9'",)
    assert os.environ["MLFLOW_TRACKING_URI"] == address  # what completes the address again in a trial's process


def test_the_same_grid_with_its_places_named_otherwise_is_the_same_grid(sweeps: Sweeps) -> None:
    sweeps.run("seed=1,2")
    sweeps.common = [argument for argument in sweeps.common if not argument.startswith("paths.cache")]
    sweeps.run("seed=1,2")
    assert len(sweeps.acts) == 2


@pytest.mark.slow
def test_settings_without_effect_make_no_other_jobs_and_hold_for_those_that_are_left(sweeps: Sweeps) -> None:
    sweeps.run("arm=well,fail", "seed=1", code=1)
    sweeps.run("arm=well,fail", "seed=1", "trainer.workers=1", code=1)
    assert [act["arm"] for act in sweeps.acts] == ["well", "fail", "fail", "fail", "fail"]
    config = (sweeps.outputs / "runs").glob("*/config/config.yaml")
    workers = sorted(line for path in config for line in path.read_text().splitlines() if "  workers:" in line)
    assert workers == ["  workers: 1"] * 2 + ["  workers: auto"] * 3


@pytest.mark.slow
def test_the_failed_jobs_of_a_grid_are_tried_again_by_the_same_command(sweeps: Sweeps) -> None:
    few = ("arm=once,well", "hydra.sweeper.retries=0", "hydra.sweeper.max_failures=1")
    said = sweeps.run(*few, code=1)
    assert "max_failures" in said
    sweeps.run(*few)
    trials = sweeps.trials
    assert sorted(trials[trials["state"] == "finished"]["arm"]) == ["once", "well"]
    assert [act["arm"] for act in sweeps.acts].count("well") == 1


@pytest.mark.slow
def test_a_trial_that_takes_the_sweep_with_it_each_time_is_given_up(sweeps: Sweeps) -> None:
    grid = ("arm=kill,well", "hydra.sweeper.retries=0")
    for _ in range(2):
        sweeps.run_alone(*grid, code=-signal.SIGKILL)
    sweeps.run_alone(*grid, code=1)
    trials = sweeps.trials.set_index("arm")
    assert trials.loc["well", "state"] == "finished"
    assert "died 2 times" in trials.loc["kill", "error"]
    assert len(trials.loc["kill", "run_id"]) == 32


def test_what_lies_in_the_folder_of_a_new_trial_is_not_believed(sweeps: Sweeps) -> None:
    sweeps.run("seed=1,2")
    (sweeps.folder / "journal.log").unlink()
    sweeps.run("seed=1,2")
    assert len(sweeps.acts) == 4


@pytest.mark.slow
def test_trials_that_prepare_their_data_hear_that_the_sweep_is_stopped(sweeps: Sweeps) -> None:
    process = sweeps.start("arm=prepare_3,well", "hydra.sweeper.n_jobs=2")
    until((sweeps.outputs / "prepares").exists)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "the same command continues" in said
    assert "prepare_3" not in [act["arm"] for act in sweeps.acts]
    sweeps.run_alone("arm=prepare_3,well", "hydra.sweeper.n_jobs=2")
    assert sorted(act["arm"] for act in sweeps.acts) == ["prepare_3", "well"]


def test_each_epoch_is_kept_though_nothing_is_pruned(sweeps: Sweeps) -> None:
    sweeps.run("seed=1,2", plots=True)
    assert "intermediate" in (sweeps.folder / "plots.html").read_text().lower()


@pytest.mark.slow
def test_a_trial_that_somebody_else_stops_goes_on_from_where_it_saved(sweeps: Sweeps) -> None:
    process = sweeps.start("arm=yield", "hydra/launcher=submitit_local", "hydra.sweeper.retries=1")
    until((sweeps.outputs / "saved").exists)
    os.kill(sweeps.acts[0]["pid"], signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    first, second = sweeps.acts
    assert (first["begun"], second["trial"]) == (None, first["trial"])
    assert second["begun"] is not None
    assert list(sweeps.trials["state"]) == ["finished"]


@pytest.mark.slow
def test_a_sweep_does_not_go_on_over_other_data(sweeps: Sweeps, tmp_path: Path, phantom_root: Path) -> None:
    few = tmp_path / "few"
    shutil.copytree(phantom_root, few)
    sweeps.common.append(f"data.root={few}")
    sweeps.run("seed=1,2")
    label = sorted((few / "labelsTr").iterdir())[0]
    before = nibabel.load(label)
    changed = np.asanyarray(before.dataobj).copy()
    changed[0, 0, 0] = 1
    nibabel.save(nibabel.Nifti1Image(changed, before.affine, before.header), label)
    said = sweeps.run("seed=1,2", code=2)
    assert "The data changed since the sweep" in said
    assert "another hydra.sweeper.name to train all anew" in said
    assert len(sweeps.acts) == 2


def test_a_sweep_has_one_data_set(sweeps: Sweeps, phantom_root: Path) -> None:
    sweeps.common = [argument for argument in sweeps.common if not argument.startswith("data.root")]
    assert "A sweep has one data set" in sweeps.run(f"data.root={phantom_root},other", code=2)


def test_a_trial_that_fails_before_its_run_begins_has_a_record(sweeps: Sweeps) -> None:
    sweeps.run("arm=early,well", "hydra.sweeper.retries=0", code=1)
    (failed,) = sweeps.trials.query("state == 'failed'")["run_id"]
    folder = sweeps.outputs / f"runs/run_{failed[:8]}"
    assert json.loads((folder / "state.json").read_text())["status"] == "FAILED"
    assert "no memory left" in (folder / "record.jsonl").read_text()


def test_a_sweep_that_was_refused_does_not_keep_its_name(sweeps: Sweeps) -> None:
    named = ("seed=choice(1,2)", "hydra.sweeper.n_trials=2", "hydra.sweeper.name=mine")
    for fault in ("sampler=randm", "enqueue=[{seed: 12}]", "objective=val_dice_liver"):
        sweeps.run(*named, f"hydra.sweeper.{fault}", code=2)
    sweeps.run(*named, "hydra.sweeper.sampler=random")
    assert len(sweeps.acts) == 2


def test_check_looks_and_runs_nothing(sweeps: Sweeps) -> None:
    assert "no fault found" in sweeps.run("seed=1,2", "check=true")
    assert sweeps.acts == []
    assert not (sweeps.outputs / "sweeps").exists()


def test_check_builds_every_trial_that_is_known(sweeps: Sweeps) -> None:
    said = sweeps.run("data.patch=[32,48,32],[30,47,31]", "model=unet,segresnet", "check=true", code=2)
    assert said.count("[30,47,31]") >= 2
    assert "does not suit this network" in said
    assert sweeps.acts == []


def test_the_winners_tags_hold_nothing_of_an_earlier_winner(sweeps: Sweeps) -> None:
    sweeps.run(
        "seed=choice(1,5)",
        "scheduler=choice(constant,onecycle)",
        "scheduler.rise_fraction=choice(0.2,0.3)",
        "hydra.sweeper.when={scheduler.rise_fraction: {scheduler: onecycle}}",
        "hydra.sweeper.enqueue=[{seed: 1, scheduler: onecycle, scheduler.rise_fraction: 0.2}, "
        "{seed: 5, scheduler: constant}]",
        "hydra.sweeper.n_trials=2",
    )
    (record,) = [path for path in sweeps.outputs.glob("runs/*/record.jsonl") if "sweep" in path.read_text()]
    tags: dict[str, str] = {}
    for line in record.read_text().splitlines():
        tags |= json.loads(line).get("tags", {})
    assert tags["best.scheduler"] == "constant"
    assert tags["best.scheduler.rise_fraction"] == "–"


def test_a_stop_that_only_the_trial_heard_stops_the_sweep(sweeps: Sweeps) -> None:
    said = sweeps.run("arm=heard,well", code=1)
    assert "the same command continues" in said
    assert [act["arm"] for act in sweeps.acts] == ["heard"]
    sweeps.run("arm=heard,well")
    assert [act["arm"] for act in sweeps.acts] == ["heard", "well"]


def test_the_last_reports_of_a_trial_are_kept(sweeps: Sweeps) -> None:
    import optuna

    sweeps.run("seed=1,2,3", "hydra.sweeper.name=kept")
    journal = optuna.storages.journal.JournalFileBackend(str(sweeps.folder / "journal.log"))
    study = optuna.load_study(study_name="kept", storage=optuna.storages.JournalStorage(journal))
    assert [list(trial.intermediate_values) for trial in study.trials] == [list(range(1, 11))] * 3
