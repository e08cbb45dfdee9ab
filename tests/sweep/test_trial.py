"""The files between a sweep and its trial."""

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from seg.errors import ConfigError, InterruptedRunError, SegError
from seg.records.folder import claim
from seg.records.state import Process
from seg.sweep import trial as module
from seg.sweep.goal import Goal, Judge
from seg.sweep.jobs import read_space
from seg.sweep.search import Search
from seg.sweep.trial import Assignment, Outcome, TrialFolder, TrialReporter, current_trial


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.TOKEN, "")  # set back after each test


def assigned(folder: Path, token: str = "", **more: Any) -> tuple[TrialFolder, TrialReporter]:
    watch = TrialFolder(folder)
    os.environ[module.TOKEN] = token
    watch.assign(Assignment("tune", 7, "a" * 32, "phantom/tune", "val_dice", token=token, **more))
    trial = current_trial(str(folder))
    assert trial is not None
    return watch, trial


def test_a_folder_without_an_assignment_is_no_trial(tmp_path: Path) -> None:
    assert current_trial(str(tmp_path)) is None


def test_the_sweep_learns_which_run_it_is(tmp_path: Path) -> None:
    watch, trial = assigned(tmp_path / "7")
    assert not watch.is_alive()
    folders = claim(tmp_path, "b" * 32)
    trial.begin(folders)
    assert watch.run["run_id"] == "b" * 32
    assert Path(watch.run["run"]) == folders.run.absolute()
    assert watch.is_alive()
    with trial.reported({"val_dice": 0.5}):
        assert watch.outcome is None
    assert watch.outcome == watch.own_outcome == Outcome("finished", {"val_dice": 0.5})
    assert not watch.is_alive()
    assert trial.tracking["tags"] == {"sweep": "tune", "trial": "7"}


@pytest.mark.parametrize(
    ("error", "status", "said", "permanent"),
    [
        (SegError("the loss is nan"), "failed", "the loss is nan", False),
        (ConfigError("no such key"), "failed", "no such key", True),
        (ZeroDivisionError("division by zero"), "failed", "ZeroDivisionError: division by zero", False),
        (InterruptedRunError("stopped"), "killed", "stopped", False),
        (KeyboardInterrupt(), "killed", "KeyboardInterrupt: ", False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_how_a_trial_ended_is_told(
    error: BaseException, status: str, said: str, permanent: bool, tmp_path: Path
) -> None:
    watch, trial = assigned(tmp_path)
    with pytest.raises(type(error)), trial.reported({}):
        raise error
    assert watch.outcome == Outcome(status, {}, said, permanent)


def searched(path: Path | str, values: Sequence[float] = (), pruner: str = "median") -> tuple[Search, dict[str, Any]]:
    """A search with finished trials of these values, and what the assignment of the next one says of its storage."""
    among = read_space(["x=interval(0.0,1.0)"], {}, {}, None)
    goal = Goal(
        ("val_dice",),
        ("maximize",),
        9,
        "random",
        pruner=pruner,
        pruner_options={"n_startup_trials": 1, "n_warmup_steps": 2},
    )
    search = Search("tune", path, goal, Process.this(), among)
    for value in values:
        trial = search.take()
        assert trial
        judge = Judge("tune", path, trial.id, "none", {})
        for epoch in (1, 2):
            judge.stops(epoch, value)
        search.complete(trial.number, [value])
    trial = search.take()
    assert trial
    own = {"id": trial.id, "storage": str(path), "pruner": pruner, "pruner_options": goal.pruner_options}
    return search, own


def test_the_sweep_sees_the_last_epoch(tmp_path: Path) -> None:
    search, own = searched(tmp_path / "journal.log")
    watch, trial = assigned(tmp_path / "0", **own)
    assert (watch.progress, watch.reached) == ({}, 0)
    assert not trial.epoch({"epoch": 1, "val_dice": 0.1})
    assert not trial.epoch({"epoch": 2, "train_loss": 3.0})
    assert not trial.epoch({"epoch": 3, "val_dice": float("nan")})
    assert watch.reached == 3
    assert not trial.epoch({"epoch": 4, "val_dice": 0.25})
    assert watch.progress == {"epoch": 4, "value": 0.25}
    assert search.study.trials[0].intermediate_values == {1: 0.1, 4: 0.25}


def test_a_trial_that_is_worse_than_the_others_is_stopped(tmp_path: Path) -> None:
    _, own = searched(tmp_path / "journal.log", [0.5, 0.6])
    watch, trial = assigned(tmp_path / "2", **own)
    assert not trial.epoch({"epoch": 1, "val_dice": 0.05})
    assert trial.epoch({"epoch": 2, "val_dice": 0.1})
    with trial.reported({}):
        pass
    assert watch.outcome is not None
    assert watch.outcome.status == "pruned"


def test_a_trial_that_the_sweep_has_given_up_is_stopped(tmp_path: Path) -> None:
    search, own = searched(tmp_path / "journal.log")
    _, trial = assigned(tmp_path / "0", **own)
    search.fail(0, "its machine is gone", retry=False)
    assert trial.epoch({"epoch": 1, "val_dice": 0.9})


def test_a_storage_that_does_not_answer_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    watch, trial = assigned(tmp_path / "7", storage=str(tmp_path / "file/journal.log"))
    assert [trial.epoch({"epoch": epoch, "val_dice": 0.1}) for epoch in range(1, 5)] == [False] * 4
    assert caplog.text.count("does not answer") == 1, "and is asked once only"
    assert watch.reached == 4


def test_the_address_of_a_database_is_in_the_environment_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"sqlite:///{tmp_path}/trials.db"
    search, own = searched(address)
    monkeypatch.setenv(module.STORAGE, address)
    _, trial = assigned(tmp_path / "0", **own | {"storage": None})
    assert not trial.epoch({"epoch": 1, "val_dice": 0.25})
    assert search.study.trials[0].intermediate_values == {1: 0.25}
    assert "sqlite" not in (tmp_path / "0/trial.json").read_text()


def test_several_objectives_are_not_reported(tmp_path: Path) -> None:
    watch, trial = assigned(tmp_path / "7", storage=str(tmp_path / "none/journal.log"), reports=False)
    assert not trial.epoch({"epoch": 1, "val_dice": 0.1})
    assert watch.reached == 1
    assert not (tmp_path / "none").exists()


def test_a_trial_that_prepares_its_data_stops_where_its_sweep_was_stopped(tmp_path: Path) -> None:
    watch, trial = assigned(tmp_path / "7")
    assert not trial.interrupted()
    watch.ask_to_stop()
    assert trial.interrupted()
    with pytest.raises(InterruptedRunError, match="stopped"):
        trial.begin(claim(tmp_path, "b" * 32))
    _, trial = assigned(tmp_path / "7")
    assert not trial.interrupted(), "a stop holds for one job only"


def test_a_trial_that_trains_is_told_to_stop_by_a_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch, trial = assigned(tmp_path / "7")
    trial.begin(claim(tmp_path, "b" * 32))
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)) if number else None)
    watch.ask_to_stop()
    assert sent == [(os.getpid(), signal.SIGTERM)]


def test_jobs_that_die_at_the_same_epoch_are_counted(tmp_path: Path) -> None:
    def deaths() -> int:
        return int(json.loads((tmp_path / "trial.json").read_text())["deaths"])

    _, trial = assigned(tmp_path)
    assert deaths() == 0
    assigned(tmp_path)
    assigned(tmp_path)
    assert deaths() == 2
    trial.epoch({"epoch": 1, "train_loss": 0.1})
    assigned(tmp_path)
    assert deaths() == 1, "it got on"
    with pytest.raises(InterruptedRunError), trial.reported({}):
        raise InterruptedRunError("stopped")
    assigned(tmp_path)
    assert deaths() == 0, "it stopped in order"


def test_a_trial_that_dies_after_its_runs_last_word_has_finished(tmp_path: Path) -> None:
    watch, trial = assigned(tmp_path / "7")
    folders = claim(tmp_path, "b" * 32)
    trial.begin(folders)
    (folders.run / "summary.json").write_text('{"status": "pruned", "metrics": {"val_dice": 0.5}}')
    assert watch.outcome is None, "its process may still say so itself"
    run = watch.run
    run["process"]["started"] = 0.0
    (watch.path / "run.json").write_text(json.dumps(run))
    assert (watch.outcome, watch.own_outcome) == (Outcome("pruned", {"val_dice": 0.5}), None)


def test_a_run_that_was_saved_can_be_gone_on_with(tmp_path: Path) -> None:
    _, trial = assigned(tmp_path / "7")
    assert trial.begun is None
    folders = claim(tmp_path, "b" * 32)
    trial.begin(folders)
    assert trial.begun is None
    (folders.run / "checkpoints").mkdir()
    (folders.run / "checkpoints/last.pt").touch()
    assert trial.begun == "b" * 32


def test_a_new_assignment_takes_the_old_result_away(tmp_path: Path) -> None:
    watch, trial = assigned(tmp_path)
    with pytest.raises(InterruptedRunError), trial.reported({}):
        raise InterruptedRunError("stopped")
    watch, _ = assigned(tmp_path)
    assert watch.outcome is None


def test_a_trial_on_another_host_lives_while_it_shows_signs_of_life(tmp_path: Path) -> None:
    watch, trial = assigned(tmp_path / "7")
    trial.begin(claim(tmp_path, "b" * 32))
    run = watch.run
    run["process"]["host"] = "elsewhere"
    (watch.path / "run.json").write_text(json.dumps(run))
    assert watch.is_alive()
    os.utime(watch.path / "run.json", (0, 0))
    assert not watch.is_alive()
