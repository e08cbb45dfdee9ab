import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest
from omegaconf import DictConfig, OmegaConf

from seg import sync
from seg.errors import ConfigError
from seg.records import pending
from seg.records.folder import RunFolder, claim, find
from seg.records.journal import Journal, Report
from seg.records.sink import Sink
from seg.records.state import Process, State, read_state, write_state


class Taking(Sink):
    """Takes everything; sending to MLflow is tested in test_record."""

    name = "MLflow at x"
    got: ClassVar[dict[str, int]] = {}

    def push(self, run: RunFolder, unwritten: Sequence[Report] = ()) -> None:
        self.got[run.run_id] = sum("n" in report for report in Journal(run.run).read())


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> type[Taking]:
    monkeypatch.setattr(pending, "sink_class", lambda _: Taking)
    monkeypatch.setattr(Taking, "got", {})
    return Taking


def config(outputs: Path, run: str) -> DictConfig:
    return OmegaConf.create({"run": run, "tracking": {"uri": None}, "paths": {"outputs": str(outputs)}})


def make_run(outputs: Path, run_id: str, reports: int, process: Process | None = None) -> RunFolder:
    folders = claim(outputs, run_id)
    status = "RUNNING" if process else "FINISHED"
    write_state(folders.run, State("mlflow", None, "phantom/default", "unet", status, process or Process.this()))
    for n in range(reports):
        Journal(folders.run).append({"n": n})
        folders.pending.touch()
    return folders


def alive() -> Process:
    return replace(Process.this(), pid=os.getppid(), started=psutil.Process(os.getppid()).create_time())


def test_one_run_or_all_that_kept_something(tmp_path: Path, mlflow: type[Taking], capsys: Any) -> None:
    for letter, reports in (("a", 2), ("b", 3), ("c", 0)):
        make_run(tmp_path, letter * 32, reports)
    sync.main(config(tmp_path, "bbb"))
    assert mlflow.got == {"b" * 32: 3}
    sync.main(config(tmp_path, "all"))
    assert mlflow.got == {"b" * 32: 3, "a" * 32: 2}
    sync.main(config(tmp_path, "all"))
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "run bbbbbbbb (unet): sent to MLflow at x"
    assert said[-1].startswith("Nothing is waiting to be sent")


def test_a_run_that_is_still_going_sends_by_itself(tmp_path: Path, mlflow: type[Taking], capsys: Any) -> None:
    going = make_run(tmp_path, "a" * 32, 2, alive())
    make_run(tmp_path, "b" * 32, 1)
    with pytest.raises(ConfigError, match="still running"):
        sync.main(config(tmp_path, "aaa"))
    sync.main(config(tmp_path, "all"))
    assert list(mlflow.got) == ["b" * 32]
    assert "Run aaaaaaaa is still running" in capsys.readouterr().out
    assert going.is_pending


def test_a_killed_run_can_be_sent(tmp_path: Path, mlflow: type[Taking]) -> None:
    make_run(tmp_path, "a" * 32, 2, replace(alive(), started=0.0))
    sync.main(config(tmp_path, "a"))
    assert mlflow.got["a" * 32] == 2
    assert read_state(find(tmp_path, "a").run).status == "KILLED"


def test_an_unknown_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run zz"):
        sync.main(config(tmp_path, "zz"))


def noted(outputs: Path, uri: str | None) -> RunFolder:
    """A run that kept something for the MLflow at ``uri``."""
    run = make_run(outputs, "a" * 32, 1)
    write_state(run.run, replace(read_state(run.run), uri=uri))
    return run


def test_a_password_that_was_not_written_down_is_asked_for(tmp_path: Path) -> None:
    run = noted(tmp_path, "http://user:***@host")
    with pytest.raises(ConfigError, match=r"The password of http://user:\*\*\*@host is never stored.*tracking.uri="):
        sync.main(config(tmp_path, "all"))
    assert run.is_pending


def test_of_all_runs_what_one_lacks_holds_up_no_other(
    tmp_path: Path, mlflow: type[Taking], monkeypatch: pytest.MonkeyPatch
) -> None:
    for letter in "abc":
        make_run(tmp_path, letter * 32, 1)

    def push(self: Taking, run: RunFolder, unwritten: Sequence[Report] = ()) -> None:
        if run.short[0] != "c":
            raise ConfigError(f"{run.short} fails.")
        Taking.got[run.run_id] = 1

    monkeypatch.setattr(Taking, "push", push)
    with pytest.raises(ConfigError, match=r"(?s)2 faults.*aaaaaaaa fails.*bbbbbbbb fails"):
        sync.main(config(tmp_path, "all"))
    assert mlflow.got == {"c" * 32: 1}


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


def test_a_run_without_mlflow_has_nothing_to_send(tmp_path: Path, mlflow: type[Taking], capsys: Any) -> None:
    run = make_run(tmp_path, "a" * 32, 2)
    run.pending.unlink()  # no sink lacks anything
    sync.main(config(tmp_path, "all"))
    assert capsys.readouterr().out.startswith("Nothing is waiting")
    assert not mlflow.got


def test_what_version_0_1_0_kept_is_sent(tmp_path: Path, mlflow: type[Taking]) -> None:
    run = make_run(tmp_path, "a" * 32, 2)
    run.pending.unlink()
    (run.run / "record.sent").write_text("5")
    sync.main(config(tmp_path, "all"))
    assert mlflow.got == {"a" * 32: 2}
    assert not run.is_pending
