"""The files between a sweep and its trial."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from seg.errors import ConfigError, InterruptedRunError, SegError
from seg.records.folder import claim
from seg.sweep import trial as module
from seg.sweep.trial import Assignment, Trial, Watch, current_trial


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.TOKEN, "")  # set back after each test


def assigned(folder: Path, prunes: bool = True, token: str = "") -> tuple[Watch, Trial]:
    watch = Watch(folder)
    os.environ[module.TOKEN] = token
    watch.assign(Assignment("tune", 7, "a" * 32, "phantom/tune", "val_dice", prunes, token))
    trial = current_trial(str(folder))
    assert trial is not None
    return watch, trial


def test_a_folder_without_an_assignment_is_no_trial(tmp_path: Path) -> None:
    assert current_trial(str(tmp_path)) is None


def test_the_sweep_learns_which_run_it_is(tmp_path: Path) -> None:
    watch, trial = assigned(tmp_path / "7")
    assert not watch.alive
    folders = claim(tmp_path, "b" * 32)
    trial.begin(folders)
    assert watch.run["run_id"] == "b" * 32
    assert Path(watch.run["run"]) == folders.run.absolute()
    assert watch.alive
    with trial.reported({"val_dice": 0.5}):
        assert watch.result == {}
    assert watch.result == {"status": "finished", "metrics": {"val_dice": 0.5}, "error": None, "hopeless": False}
    assert not watch.alive
    assert trial.tracking["tags"] == {"sweep": "tune", "trial": "7"}


@pytest.mark.parametrize(
    ("error", "status", "said", "hopeless"),
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
    error: BaseException, status: str, said: str, hopeless: bool, tmp_path: Path
) -> None:
    watch, trial = assigned(tmp_path)
    with pytest.raises(type(error)), trial.reported({}):
        raise error
    assert (watch.result["status"], watch.result["error"], watch.result["hopeless"]) == (status, said, hopeless)


def test_each_epoch_is_read_once(tmp_path: Path) -> None:
    watch, trial = assigned(tmp_path, prunes=False)
    trial.epoch({"epoch": 1, "val_dice": 0.1})
    trial.epoch({"epoch": 2, "train_loss": 3.0})
    assert [(report["epoch"], report["value"]) for report in watch.epochs()] == [(1, 0.1), (2, None)]
    assert watch.epochs() == []
    with (tmp_path / "epochs.jsonl").open("a") as file:
        file.write('{"epoch": 3, "val')  # half a line of a process that is just writing
    assert watch.epochs() == []
    trial.epoch({"epoch": 3, "val_dice": 0.3})
    assert [report["epoch"] for report in watch.epochs()] == [3]


def test_the_trial_waits_for_the_verdict_on_its_epoch(tmp_path: Path) -> None:
    watch, trial = assigned(tmp_path)

    def answers() -> None:
        for epoch, prune in ((1, False), (2, True)):
            while not (reports := watch.epochs()):
                time.sleep(0.001)
            assert reports[-1]["epoch"] == epoch
            watch.answer(reports[-1], prune)

    sweep = threading.Thread(target=answers)
    sweep.start()
    assert [trial.epoch({"epoch": epoch, "val_dice": 0.1}) for epoch in (1, 2)] == [False, True]
    sweep.join()
    with trial.reported({}):
        pass
    assert watch.result["status"] == "pruned"


def test_a_sweep_that_does_not_answer_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    watch, trial = assigned(tmp_path)
    assert [trial.epoch({"epoch": epoch, "val_dice": 0.1}) for epoch in range(1, 5)] == [False] * 4
    assert trial._patience == 0, "it waited for one epoch only"
    watch.answer({"epoch": 5, "token": ""}, prune=True)
    assert trial.epoch({"epoch": 5, "val_dice": 0.1}), "a sweep that is back is heard"


def test_a_verdict_on_an_earlier_job_is_not_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    watch, _ = assigned(tmp_path, token="first")
    watch.answer({"epoch": 9, "token": "first"}, prune=True)
    _, trial = assigned(tmp_path, token="second")
    assert not trial.epoch({"epoch": 3, "val_dice": 0.1})


def test_a_trial_that_prepares_its_data_stops_where_its_sweep_was_stopped(tmp_path: Path) -> None:
    watch, trial = assigned(tmp_path / "7")
    assert not trial.interrupted()
    watch.stop()
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
    watch.stop()
    assert sent == [(os.getpid(), signal.SIGTERM)]


def test_jobs_that_die_at_the_same_epoch_are_counted(tmp_path: Path) -> None:
    def deaths() -> int:
        return int(json.loads((tmp_path / "trial.json").read_text())["deaths"])

    _, trial = assigned(tmp_path, prunes=False)
    assert deaths() == 0
    assigned(tmp_path)
    assigned(tmp_path)
    assert deaths() == 2
    trial.epoch({"epoch": 1, "val_dice": 0.1})
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
    assert watch.result == {}, "its process may still say so itself"
    run = watch.run
    run["process"]["started"] = 0.0
    (watch.folder / "run.json").write_text(json.dumps(run))
    assert (watch.result["status"], watch.result["metrics"], watch.told) == ("pruned", {"val_dice": 0.5}, False)


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
    assert watch.result == {}


def test_a_trial_on_another_host_lives_while_it_shows_signs_of_life(tmp_path: Path) -> None:
    watch, trial = assigned(tmp_path / "7")
    trial.begin(claim(tmp_path, "b" * 32))
    run = watch.run
    run["process"]["host"] = "elsewhere"
    (watch.folder / "run.json").write_text(json.dumps(run))
    assert watch.alive
    os.utime(watch.folder / "run.json", (0, 0))
    assert not watch.alive
