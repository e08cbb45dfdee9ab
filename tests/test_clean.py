import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from seg import clean
from seg.errors import ConfigError
from seg.records.folder import RunFolder, claim
from seg.records.state import Process, State, write_state

IDS = [letter * 32 for letter in "abcd"]


def make_run(outputs: Path, run_id: str, *, status: str = "FINISHED", kind: str = "none") -> RunFolder:
    folders = claim(outputs, run_id)
    write_state(folders.run, State(kind, None, "phantom/default", f"unet-{run_id[0]}", status, Process.this()))
    (folders.run / "last.pt").write_bytes(b"weights")
    (folders.predictions / "pictures").mkdir()
    (folders.predictions / "pictures/case.png").write_bytes(b"x" * 3_000_000)
    moment = 1_700_000_000 + ord(run_id[0]) * 1000
    os.utime(folders.predictions, (moment, moment))
    return folders


@pytest.fixture
def runs(tmp_path: Path) -> list[RunFolder]:
    """Four finished runs; a is the oldest."""
    return [make_run(tmp_path, run_id) for run_id in IDS]


def config(outputs: Path, **given: Any) -> DictConfig:
    values = {"keep": None, "run": None, "orphans": False, "yes": True, "tracking": {"uri": None}} | given
    return OmegaConf.create(values | {"paths": {"outputs": str(outputs)}})


def left(runs: list[RunFolder]) -> str:
    """The first letters of the runs whose predictions are still there."""
    return "".join(run.run_id[0] for run in runs if run.predictions.exists())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"keep": 3}, "bcd"),
        ({"keep": "3"}, "bcd"),
        ({"keep": 1}, "d"),
        ({"keep": 0}, ""),
        ({"keep": 9}, "abcd"),
        ({"run": "bbb"}, "acd"),
    ],
)
def test_what_goes_and_what_stays(runs: list[RunFolder], tmp_path: Path, given: Any, expected: str) -> None:
    clean.main(config(tmp_path, **given))
    assert left(runs) == expected
    for run in runs:
        assert (run.run / "last.pt").exists(), "a run's own folder is not predictions"


def test_it_lists_what_it_would_remove(runs: list[RunFolder], tmp_path: Path, capsys: Any) -> None:
    clean.main(config(tmp_path, keep=3))
    said = capsys.readouterr().out
    assert str(runs[0].predictions) in said
    assert "3.0 MB" in said
    assert "unet-a, FINISHED" in said
    assert str(runs[1].predictions) not in said
    assert "Folders removed: 1." in said


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "given: none"),
        ({"keep": 3, "orphans": True}, "given: .*keep.*orphans"),
        ({"keep": 0, "run": "a"}, "given: .*keep.*run"),
        ({"keep": -1}, "keep is -1"),
        ({"keep": "x"}, "keep is 'x'"),
        ({"keep": "1.5"}, "keep is '1.5'"),
        ({"run": "zz"}, "no run zz"),
    ],
)
def test_what_is_asked_must_be_clear(runs: list[RunFolder], tmp_path: Path, given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        clean.main(config(tmp_path, **given))
    assert left(runs) == "abcd"


@pytest.mark.parametrize("given", [{"keep": 3}, {"run": "a"}, {"orphans": True}])
def test_outputs_that_are_not_there_are_an_error(tmp_path: Path, given: Any) -> None:
    with pytest.raises(ConfigError, match=r"no folder .*typo\. Say where .* paths\.outputs="):
        clean.main(config(tmp_path / "typo", **given))
    assert not (tmp_path / "typo").exists()


def test_without_a_keyboard_nothing_is_removed_unasked(
    runs: list[RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(ConfigError, match="Set yes=true"):
        clean.main(config(tmp_path, keep=0, yes=False))
    assert left(runs) == "abcd"


@pytest.mark.parametrize(
    ("answer", "expected"), [("y", "d"), ("YES", "d"), ("n", "abcd"), ("", "abcd"), ("what", "abcd")]
)
def test_only_a_yes_is_a_yes(
    runs: list[RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, expected: str
) -> None:
    asked = []

    def reply(question: str) -> str:
        asked.append(question)
        return answer

    monkeypatch.setattr("sys.stdin", type("Keyboard", (), {"isatty": lambda _: True})())
    monkeypatch.setattr("builtins.input", reply)
    clean.main(config(tmp_path, keep=1, yes=False))
    assert asked == ["Folders to remove: 3, 9.0 MB. Remove them? [y/N] "]
    assert left(runs) == expected


def test_a_run_that_is_still_running_keeps_its_predictions(runs: list[RunFolder], tmp_path: Path, capsys: Any) -> None:
    make_run(tmp_path, "e" * 32, status="RUNNING")
    clean.main(config(tmp_path, keep=0))
    assert (tmp_path / "predictions/run_eeeeeeee/pictures/case.png").exists()
    assert left(runs) == ""
    assert "run_eeeeeeee is left alone: its run is still running" in capsys.readouterr().out


def test_links_and_foreign_folders_are_never_touched(runs: list[RunFolder], tmp_path: Path) -> None:
    outside = tmp_path.parent / "outside"
    outside.mkdir()
    (outside / "precious.txt").write_text("keep")
    (runs[0].predictions / "link").symlink_to(outside)
    (tmp_path / "predictions/run_link").symlink_to(runs[1].run)
    foreign = tmp_path / "predictions/run_thesis"
    foreign.mkdir()
    (foreign / "chapter.tex").write_text("keep")
    clean.main(config(tmp_path, keep=0))
    assert left(runs) == ""
    assert (outside / "precious.txt").exists()
    assert (foreign / "chapter.tex").exists()
    assert (runs[1].run / "last.pt").exists()


def test_predictions_behind_a_link_are_refused(runs: list[RunFolder], tmp_path: Path) -> None:
    (tmp_path / "predictions").rename(tmp_path / "elsewhere")
    (tmp_path / "predictions").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="is a link"):
        clean.main(config(tmp_path, keep=0))
    assert len(list((tmp_path / "elsewhere").glob("run_*"))) == 4


def test_runs_that_are_still_running_are_not_counted(runs: list[RunFolder], tmp_path: Path) -> None:
    for letter in "ef":
        make_run(tmp_path, letter * 32, status="RUNNING")
    clean.main(config(tmp_path, keep=3))
    assert left(runs) == "bcd"


def test_folders_without_predictions_are_not_counted(runs: list[RunFolder], tmp_path: Path) -> None:
    empty = [claim(tmp_path, letter * 32) for letter in "ef"]
    clean.main(config(tmp_path, keep=3))
    assert left(runs) == "bcd"
    assert left(empty) == "ef"


def test_a_run_without_a_state_is_no_orphan(runs: list[RunFolder], tmp_path: Path) -> None:
    """It may have begun this very moment."""
    (runs[0].run / "state.json").unlink()
    clean.main(config(tmp_path, orphans=True))
    assert left(runs) == "abcd"


def test_a_lost_database_costs_no_run(tmp_path: Path) -> None:
    run = make_run(tmp_path, "a" * 32, kind="mlflow")
    with pytest.raises(ConfigError, match="There is no database"):
        clean.main(config(tmp_path, orphans=True))
    assert (run.run / "last.pt").exists()
    assert run.predictions.exists()
    assert not (tmp_path / "mlflow.db").exists()


@pytest.fixture
def mlflow_without() -> Callable[[str], Any]:
    """An MLflow where one run was deleted, and which never had those that begin with f."""

    def mlflow(gone: str) -> Any:
        def stage(_: Any, run_id: str) -> str:
            return "deleted" if run_id == gone else "unknown" if run_id.startswith("f") else "active"

        return type("Mlflow", (), {"stage": stage, "name": "MLflow at x"})()

    return mlflow


def test_orphans_are_what_runs_that_are_gone_left_behind(
    runs: list[RunFolder],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mlflow_without: Callable[[str], Any],
    capsys: Any,
) -> None:
    recorded = [make_run(tmp_path, letter * 32, kind="mlflow") for letter in "efg"]
    monkeypatch.setattr(clean, "Mlflow", lambda *_: mlflow_without("e" * 32))
    for path in runs[0].run.iterdir():
        path.unlink()
    runs[0].run.rmdir()
    clean.main(config(tmp_path, orphans=True))
    assert left(runs) == "bcd", "its run folder is gone"
    assert not recorded[0].predictions.exists(), "deleted in MLflow"
    assert not recorded[0].run.exists(), "deleted in MLflow"
    for run in recorded[1:]:
        assert run.predictions.exists()
        assert (run.run / "last.pt").exists()
    assert f"{recorded[1].run} is left alone: MLflow at x does not know its run" in capsys.readouterr().out
