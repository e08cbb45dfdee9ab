import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from omegaconf import DictConfig, OmegaConf

from seg import sync
from seg.errors import ConfigError
from seg.records.folder import Process, RunFolders, State, claim, read_state, write_state
from seg.records.pending import Journal


class FakeMlflow:
    """Takes everything; sending to a real one is tested in test_tracking."""

    name = "MLflow at x"

    def __init__(self) -> None:
        self.got: dict[str, list[Any]] = {}

    def catch_up(self, folders: RunFolders) -> int:
        return Journal(folders.run).deliver(self.got.setdefault(folders.run_id, []).extend)


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> FakeMlflow:
    fake = FakeMlflow()
    monkeypatch.setattr(sync, "Mlflow", lambda *_: fake)
    return fake


def config(outputs: Path, run: str) -> DictConfig:
    return OmegaConf.create({"run": run, "tracking": {"uri": None}, "paths": {"outputs": str(outputs)}})


def make_run(outputs: Path, run_id: str, reports: int, process: Process | None = None) -> RunFolders:
    folders = claim(outputs, run_id)
    status = "RUNNING" if process else "FINISHED"
    write_state(folders.run, State("mlflow", None, "phantom/default", "unet", status, process or Process.this()))
    for n in range(reports):
        Journal(folders.run).append({"n": n})
    return folders


def alive() -> Process:
    return replace(Process.this(), pid=os.getppid(), started=psutil.Process(os.getppid()).create_time())


def test_one_run_or_all_that_kept_something(tmp_path: Path, mlflow: FakeMlflow, capsys: Any) -> None:
    for letter, reports in (("a", 2), ("b", 3), ("c", 0)):
        make_run(tmp_path, letter * 32, reports)
    sync.main(config(tmp_path, "bbb"))
    assert {run: len(got) for run, got in mlflow.got.items()} == {"b" * 32: 3}
    sync.main(config(tmp_path, "all"))
    assert {run: len(got) for run, got in mlflow.got.items()} == {"b" * 32: 3, "a" * 32: 2}
    sync.main(config(tmp_path, "all"))
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "run bbbbbbbb (unet): sent 3 reports to MLflow at x"
    assert said[-1].startswith("Nothing is waiting to be sent")


def test_a_run_that_is_still_going_sends_by_itself(tmp_path: Path, mlflow: FakeMlflow, capsys: Any) -> None:
    going = make_run(tmp_path, "a" * 32, 2, alive())
    make_run(tmp_path, "b" * 32, 1)
    with pytest.raises(ConfigError, match="still going"):
        sync.main(config(tmp_path, "aaa"))
    sync.main(config(tmp_path, "all"))
    assert list(mlflow.got) == ["b" * 32]
    assert "Run aaaaaaaa is still going" in capsys.readouterr().out
    assert len(Journal(going.run).first()) == 2


def test_a_killed_run_can_be_sent(tmp_path: Path, mlflow: FakeMlflow) -> None:
    make_run(tmp_path, "a" * 32, 2, replace(alive(), started=0.0))
    sync.main(config(tmp_path, "a"))
    assert len(mlflow.got["a" * 32]) == 2


def test_an_unknown_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run zz"):
        sync.main(config(tmp_path, "zz"))


def noted(outputs: Path, uri: str | None) -> RunFolders:
    """A run that kept something for the MLflow at ``uri``."""
    run = make_run(outputs, "a" * 32, 1)
    write_state(run.run, replace(read_state(run.run), uri=uri))
    return run


def test_a_password_that_was_not_written_down_is_asked_for(tmp_path: Path) -> None:
    run = noted(tmp_path, "http://user:***@host")
    with pytest.raises(
        ConfigError, match=r"The password of http://user:\*\*\*@host is never written down.*tracking.uri="
    ):
        sync.main(config(tmp_path, "all"))
    assert len(Journal(run.run).first()) == 1


@pytest.mark.parametrize("uri", [None, "sqlite:///{}/other.db"])
def test_no_database_is_made_where_one_should_be(tmp_path: Path, uri: str | None) -> None:
    noted(tmp_path, uri and uri.format(tmp_path))
    with pytest.raises(ConfigError, match=r"There is no database .*\.db"):
        sync.main(config(tmp_path, "all"))
    assert not list(tmp_path.rglob("*.db"))


@pytest.mark.parametrize("run", ["all", "abc"])
def test_outputs_that_are_not_there_are_an_error(tmp_path: Path, run: str) -> None:
    with pytest.raises(ConfigError, match=r"no folder .*typo\. Say where .* paths\.outputs=") as caught:
        sync.main(config(tmp_path / "typo", run))
    assert not (tmp_path / "typo").exists(), caught.value


def test_a_run_without_mlflow_has_nothing_to_send(tmp_path: Path, mlflow: FakeMlflow, capsys: Any) -> None:
    run = make_run(tmp_path, "a" * 32, 2)
    write_state(run.run, replace(read_state(run.run), kind="none"))
    sync.main(config(tmp_path, "all"))
    assert capsys.readouterr().out.startswith("Nothing is waiting")
    assert not mlflow.got
