import itertools
import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from seg.config.build import allowing
from seg.engine.live import Live
from seg.engine.progress import Progress
from seg.errors import ConfigError, without_passwords
from seg.records import opening
from seg.records import sink as sinks
from seg.records.address import experiment_name
from seg.records.folder import RunFolder, find
from seg.records.journal import Journal
from seg.records.mlflow import Mlflow
from seg.records.opening import open_record
from seg.records.pending import add_to_record, push_again
from seg.records.record import Record
from seg.records.state import Process, read_state, write_state
from seg.records.table import runs

ADDRESS = "http://user:secret@127.0.0.1:1/"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pushes come in the time of a test."""
    monkeypatch.setattr(sinks, "_PUSH_SECONDS", (0.05, 0.2))


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database for all tests here: making one takes seconds. The space is meant."""
    return tmp_path_factory.mktemp("out puts")


@pytest.fixture(scope="module")
def client(outputs: Path) -> Any:
    return Mlflow(None, outputs, create=True).client


@pytest.fixture
def begin(outputs: Path) -> Iterator[Callable[..., tuple[Record, RunFolder]]]:
    open_ones: list[Record] = []

    def begin(**options: Any) -> tuple[Record, RunFolder]:
        given = {"outputs": outputs, "uri": None, "experiment": "phantom/default", "run_name": "unet"} | options
        tracker = open_record(given.pop("kind", "mlflow"), **given)
        open_ones.append(tracker)
        return tracker, tracker.folders

    yield begin
    for tracker in open_ones:
        if read_state(tracker.folders.run).status == "RUNNING":
            tracker.finish("FAILED")


def store(tracker: Record) -> Mlflow:
    """Where the record is pushed to."""
    return tracker._sink


def record(tracker: Record, folder: Path) -> None:
    """A little of everything."""
    tracker.log_params({"model.width": 32, "loss": "dice_ce"})
    tracker.set_tags({"study": "attention", "fold": 0})
    tracker.log_dataset("phantom", "d" * 64, source="data/phantom")
    (folder / "config.yaml").write_text("seed: 0\n")
    tracker.log_artifact(folder / "config.yaml", "config")
    for step in range(3):
        tracker.log_metrics({"train_loss": 1 / (step + 1), "lr": 0.1}, step=step)


def test_everything_arrives(begin: Any, client: Any) -> None:
    tracker, folders = begin()
    record(tracker, folders.run)
    (folders.run / "log.txt").write_text("done")
    tracker.log_artifact(folders.run / "log.txt", "")
    tracker.finish("FINISHED")
    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "unet"
    assert client.get_experiment(run.info.experiment_id).name == "phantom/default"
    assert run.data.params == {"model.width": "32", "loss": "dice_ce"}
    assert {"study": "attention", "fold": "0"}.items() <= run.data.tags.items()
    assert "mlflow.parentRunId" not in run.data.tags
    history = client.get_metric_history(tracker.run_id, "train_loss")
    assert [(metric.step, metric.value) for metric in history] == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert {file.path for file in client.list_artifacts(tracker.run_id)} == {"config", "log.txt"}
    assert [file.path for file in client.list_artifacts(tracker.run_id, "config")] == ["config/config.yaml"]
    (seen,) = run.inputs.dataset_inputs
    assert (seen.dataset.name, seen.dataset.digest) == ("phantom", "d" * 8)
    assert not folders.is_pending
    assert read_state(folders.run).status == "FINISHED"


def test_files_arrive_though_the_outputs_are_named_by_way_of_another_folder(
    client: Any, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (outputs / "work").mkdir()
    monkeypatch.chdir(outputs / "work")
    tracker = open_record("mlflow", outputs=Path(".."), uri=None, experiment="phantom/default", run_name="unet")
    (tracker.folders.run / "log.txt").write_text("done")
    tracker.log_artifact(tracker.folders.run / "log.txt", "")
    tracker.finish("FINISHED")
    assert [file.path for file in client.list_artifacts(tracker.run_id)] == ["log.txt"]


def test_the_artifacts_lie_under_the_outputs_and_nothing_in_the_working_folder(
    begin: Any, client: Any, outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tracker, folders = begin()
    record(tracker, folders.run)
    tracker.finish("FINISHED")
    assert (outputs / "mlartifacts" / tracker.run_id / "artifacts/config/config.yaml").read_text() == "seed: 0\n"
    assert client.get_experiment("0").artifact_location == (outputs / "mlartifacts/0").resolve().as_uri()
    assert not list(tmp_path.iterdir())


def test_a_child_names_its_parent_whatever_the_environment_says(
    begin: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "f" * 32)
    tracker, _ = begin(parent_run_id="e" * 32)
    assert tracker.run_id != "f" * 32
    wait_until_sent(tracker)
    assert client.get_run(tracker.run_id).data.tags["mlflow.parentRunId"] == "e" * 32


def test_mlflows_own_variable_says_where_a_new_run_is_recorded(
    begin: Any, client: Any, outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"sqlite:///{outputs}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    tracker, _ = begin(outputs=tmp_path)
    assert tracker.place == f"MLflow at {address} (MLFLOW_TRACKING_URI)"
    tracker.finish("KILLED")
    assert client.get_run(tracker.run_id).info.status == "KILLED"
    assert not (tmp_path / "mlflow.db").exists()
    assert tracker.run_id in set(runs(tmp_path / "nothing here")["run_id"])

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")  # a later shell's: what has begun stays where it is
    again, _ = begin(outputs=tmp_path, run_id=tracker.run_id)
    child, _ = begin(outputs=tmp_path, parent_run_id=tracker.run_id)
    assert again.place == f"MLflow at {address} (where it began)"
    assert child.place == f"MLflow at {address} (where its parent is)"
    child.finish("FINISHED")
    assert client.get_run(child.run_id).info.status == "FINISHED"
    assert begin(outputs=outputs, uri=address)[0].place.endswith("(tracking.uri)")


def test_the_variables_password_is_used_and_never_written(
    begin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", ADDRESS)
    message = r"^MLFLOW_TRACKING_URI: MLflow at http://user:\*\*\*@127.0.0.1:1/ does not answer"
    with pytest.raises(ConfigError, match=message):
        begin(outputs=tmp_path)
    with pytest.raises(ConfigError, match=message):  # a run notes its address without the password
        Mlflow(without_passwords(ADDRESS), tmp_path)


def test_the_experiment_of_a_new_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert experiment_name(None, "phantom/default") == "phantom/default"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    assert experiment_name(None, "phantom/default") == "mine"
    assert experiment_name("given", "phantom/default") == "given"


def test_numbers_that_are_none_and_names_that_mlflow_refuses(begin: Any, client: Any) -> None:
    tracker, _ = begin()
    tracker.log_metrics({"val_dice_left (cyst)": 0.5, "loss": math.nan, "hd95_mm": math.inf}, step=0)
    tracker.log_params({"note": "x" * 7000})
    tracker.set_tags({"report": "y" * 9000})
    tracker.finish("FAILED")
    run = client.get_run(tracker.run_id)
    assert run.data.metrics["val_dice_left _cyst_"] == 0.5
    assert math.isnan(run.data.metrics["loss"])
    assert run.data.metrics["hd95_mm"] > 1e300
    assert run.data.params["note"] == "x" * 6000
    assert run.data.tags["report"] == "y" * 8000
    assert run.info.status == "FAILED"


def test_one_refused_report_does_not_take_others_with_it(
    begin: Any, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    tracker, folders = begin()
    tracker.log_params({f"p{n}": n for n in range(150)} | {"/x": 1})  # a name that begins like a path is refused
    tracker.log_metrics({"loss": 1.0}, step=0)
    tracker.finish("FINISHED")
    run = client.get_run(tracker.run_id)
    assert len(run.data.params) == 150
    assert run.data.metrics["loss"] == 1.0
    assert sum("rejected /x" in entry.message for entry in caplog.records) == 1
    assert not folders.is_pending


def test_a_resumed_run_is_the_same_run(begin: Any, client: Any, outputs: Path) -> None:
    first, folders = begin()
    record(first, folders.run)
    first.finish("KILLED")
    assert client.get_run(first.run_id).info.status == "KILLED"
    second, again = begin(run_id=first.run_id)
    assert (second.run_id, again) == (first.run_id, folders)
    wait_until_sent(second)
    assert client.get_run(first.run_id).info.status == "RUNNING"
    assert read_state(folders.run).status == "RUNNING"
    second.log_params({"loss": "another, which cannot be set", "new": 1})
    second.log_metrics({"train_loss": 0.25}, step=3)
    second.finish("FINISHED")
    run = client.get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"model.width": "32", "loss": "dice_ce", "new": "1"}
    assert len(client.get_metric_history(first.run_id, "train_loss")) == 4


def test_a_run_that_is_still_going_cannot_be_resumed(begin: Any, outputs: Path) -> None:
    tracker, folders = begin(kind="none")
    parent = replace(Process.this(), pid=os.getppid(), started=psutil.Process(os.getppid()).create_time())
    write_state(folders.run, replace(read_state(folders.run), process=parent))
    with pytest.raises(ConfigError, match=f"still running as process {os.getppid()}"):
        begin(kind="none", run_id=tracker.run_id)


def test_of_two_that_resume_a_run_at_once_one_is_refused(begin: Any, tmp_path: Path) -> None:
    """Neither has its folder open yet when the other one asks."""
    first, _ = begin(kind="none", outputs=tmp_path)
    first.finish("KILLED")
    asked = {"outputs": tmp_path, "uri": None, "experiment": "a", "run_name": "b", "run_id": first.run_id}
    command = (
        "import sys; from pathlib import Path; from seg.records.opening import open_record as o; o('none', outputs="
    )
    command += f"Path({str(tmp_path)!r}), uri=None, experiment='a', run_name='b', run_id={first.run_id!r}); print(); "
    with subprocess.Popen(
        [sys.executable, "-c", command + "sys.stdout.flush(); sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout.readline() == b"\n"
        with pytest.raises(ConfigError, match=f"still running as process {other.pid}"):
            open_record("none", **asked)
        other.stdin.close()
    assert open_record("none", **asked).run_id == first.run_id


def test_a_resume_that_fails_leaves_the_state_as_it_was(begin: Any, tmp_path: Path) -> None:
    run, folders = begin(kind="none", outputs=tmp_path)
    run.finish("FINISHED")
    with pytest.raises(ConfigError, match="There is no database"):
        begin(outputs=tmp_path, run_id=run.run_id)
    assert read_state(folders.run).status == "FINISHED"
    assert not (tmp_path / "mlflow.db").exists()


def test_a_masked_password_is_asked_for(begin: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"The password of http://user:\*\*\*@host.*whole address: tracking\.uri="):
        begin(outputs=tmp_path, uri="http://user:***@host")


@pytest.mark.parametrize("kind", ["mlflow", "none"])
def test_a_full_disk_does_not_keep_the_end_from_being_told(
    begin: Any, client: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    tracker, _ = begin(kind=kind)
    tracker.log_metrics({"loss": 1.0}, step=0)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    for name in ("seg.records.journal.append_line", "seg.records.record.write_state"):
        monkeypatch.setattr(name, full)
    with pytest.raises(OSError, match="No space left"):
        tracker.log_metrics({"loss": 2.0}, step=1)
    tracker.finish("FAILED")
    if kind == "mlflow":
        run = client.get_run(tracker.run_id)
        assert (run.info.status, run.data.metrics["loss"]) == ("FAILED", 1.0)


def test_mlflow_tells_a_deleted_run_from_one_it_never_had(begin: Any, client: Any) -> None:
    tracker, _ = begin()
    tracker.finish("FINISHED")
    assert store(tracker).stage(tracker.run_id) == "active"
    client.delete_run(tracker.run_id)
    assert store(tracker).stage(tracker.run_id) == "deleted"
    assert store(tracker).stage("f" * 32) == "unknown"


def test_half_a_line_of_a_killed_run_does_not_spoil_the_local_record(begin: Any, tmp_path: Path) -> None:
    tracker, folders = begin(kind="none", outputs=tmp_path)
    tracker.set_tags({"a": 1})
    with (folders.run / "record.jsonl").open("a") as file:
        file.write('{"metr')
    tracker.set_tags({"b": 2})
    lines = [json.loads(line) for line in (folders.run / "record.jsonl").read_text().splitlines()]
    assert lines[1:] == [{"tags": {"a": "1"}}, {"tags": {"b": "2"}}]


def test_a_run_deleted_in_mlflow_cannot_be_resumed(begin: Any, client: Any) -> None:
    tracker, _ = begin()
    tracker.finish("FINISHED")
    client.delete_run(tracker.run_id)
    with pytest.raises(ConfigError, match="Restore it, or start a new run"):
        begin(run_id=tracker.run_id)


def test_a_deleted_experiment_is_explained(begin: Any, client: Any) -> None:
    tracker, _ = begin(experiment="phantom/gone")
    tracker.finish("FINISHED")
    client.delete_experiment(client.get_experiment_by_name("phantom/gone").experiment_id)
    with pytest.raises(ConfigError, match="phantom/gone was deleted in MLflow"):
        begin(experiment="phantom/gone")


OPEN_AND_DIE = """
import os, sys
from pathlib import Path
from seg.records.opening import open_record
outputs = Path(sys.argv[1])
tracker = open_record("mlflow", outputs=outputs, uri=None, experiment="phantom/default", run_name="dies")
print(tracker.run_id, flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_killed_run_is_marked_so_by_the_next_one(begin: Any, client: Any, outputs: Path, forked: Any) -> None:
    living, _ = begin()
    code, printed = forked(OPEN_AND_DIE, outputs)
    assert code == -signal.SIGKILL
    dead = printed.split()[0]
    assert client.get_run(dead).info.status == "RUNNING"
    process = {"host": "elsewhere", "pid": 1, "started": 0.0}
    elsewhere = client.create_run("0", tags={"seg.process": json.dumps(process)})
    begin()
    assert client.get_run(dead).info.status == "KILLED"
    assert client.get_run(dead).data.tags["error"] == "its process has gone"
    assert client.get_run(living.run_id).info.status == "RUNNING"
    assert client.get_run(elsewhere.info.run_id).info.status == "RUNNING"


KILLED_MIDWAY = """
import os, sys
from pathlib import Path
from seg.records.opening import open_record
kind, outputs = sys.argv[1], Path(sys.argv[2])
tracker = open_record(kind, outputs=outputs, uri=None, experiment="phantom/default", run_name="dies")
tracker.log_metrics({"loss": 0.5}, step=1)
(tracker.folders.run / "log.txt").write_text("about to die")
with (tracker.folders.run / "record.jsonl").open("a") as file:
    file.write('{"metr')
print(tracker.run_id, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def killed_midway(forked: Any) -> Callable[[str, Path], RunFolder]:
    def killed_midway(kind: str, outputs: Path) -> RunFolder:
        code, printed = forked(KILLED_MIDWAY, kind, outputs)
        assert code == -signal.SIGKILL
        return find(outputs, printed.strip())

    return killed_midway


@pytest.mark.parametrize("buried", [False, True])
def test_a_run_that_was_killed_is_marked_failed(
    begin: Any, client: Any, outputs: Path, buried: bool, killed_midway: Any
) -> None:
    folders = killed_midway("mlflow", outputs)
    if buried:
        begin()
        assert client.get_run(folders.run_id).info.status == "KILLED"
    add_to_record(folders.run, status="FAILED", error="out of memory:\n  it wanted 80 GB")
    run = client.get_run(folders.run_id)
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", "out of memory: it wanted 80 GB")
    assert run.data.metrics["loss"] == 0.5
    assert Path(client.download_artifacts(folders.run_id, "log.txt")).read_text() == "about to die"
    assert read_state(folders.run).status == "FAILED"
    begin()
    assert client.get_run(folders.run_id).info.status == "FAILED"


def test_a_local_run_that_was_killed_is_marked_failed(tmp_path: Path, killed_midway: Any) -> None:
    folders = killed_midway("none", tmp_path)
    assert read_state(folders.run).true_status == "KILLED"
    add_to_record(folders.run, status="FAILED", error="out of memory")
    last = Journal(folders.run).read()[-1]
    assert (last["status"], last["error"]) == ("FAILED", "out of memory")
    assert read_state(folders.run).status == "FAILED"
    assert not (tmp_path / "mlflow.db").exists()


def test_a_run_that_never_began_cannot_be_marked(tmp_path: Path) -> None:
    add_to_record(tmp_path / "runs/run_a", status="FAILED", error="it died at once")
    assert not list(tmp_path.iterdir())


def test_what_mlflow_does_not_hear_of_a_failed_run_is_sent_later(
    begin: Any,
    client: Any,
    outputs: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    killed_midway: Any,
) -> None:
    folders = killed_midway("mlflow", outputs)

    def away(*_: Any) -> None:
        raise OSError(111, f"Connection refused by {ADDRESS}")

    monkeypatch.setattr("mlflow.MlflowClient.log_batch", away)
    add_to_record(folders.run, status="FAILED", error="out of memory")
    assert f"Send it later with: python -m seg.sync run={folders.short}" in caplog.text
    assert "secret" not in caplog.text
    monkeypatch.undo()
    assert folders.is_pending
    push_again(folders)
    assert not folders.is_pending
    assert client.get_run(folders.run_id).info.status == "FAILED"


def test_a_failed_run_that_is_resumed_has_no_error_any_more(
    begin: Any, client: Any, outputs: Path, killed_midway: Any
) -> None:
    folders = killed_midway("mlflow", outputs)
    add_to_record(folders.run, status="FAILED", error="out of memory")
    tracker, _ = begin(run_id=folders.run_id)
    wait_until_sent(tracker)
    assert "error" not in client.get_run(folders.run_id).data.tags
    tracker.finish("FINISHED")
    run = client.get_run(folders.run_id)
    assert (run.info.status, "error" in run.data.tags) == ("FINISHED", False)


def test_why_a_run_failed_is_a_tag(begin: Any, client: Any) -> None:
    tracker, _ = begin()
    tracker.finish("FAILED", "the loss is nan\nafter step 3 " + "x" * 9000)
    assert client.get_run(tracker.run_id).data.tags["error"].startswith("the loss is nan after step 3 xxx")


def test_a_parent_tells_its_story_while_it_runs_and_goes_on_when_it_is_resumed(begin: Any, client: Any) -> None:
    parent, _ = begin(run_name="sweep")
    for finished in range(3):
        parent.log_metrics({"finished": finished, "best_val_dice": 0.5 + finished / 10}, step=finished)
        parent.set_tags({"best.trial": finished})
        wait_until_sent(parent)
        run = client.get_run(parent.run_id)
        assert (run.info.status, run.data.tags["best.trial"]) == ("RUNNING", str(finished))
        assert run.data.metrics["finished"] == finished
    parent.finish("KILLED")
    again, _ = begin(run_name="sweep", run_id=parent.run_id)
    child, _ = begin(parent_run_id=again.run_id)
    wait_until_sent(child)
    again.log_metrics({"finished": 3}, step=3)
    again.set_tags({"best.trial": 3})
    wait_until_sent(again)
    run = client.get_run(again.run_id)
    assert (run.info.status, run.data.tags["best.trial"], run.data.metrics["finished"]) == ("RUNNING", "3", 3)
    found = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{again.run_id}'")
    assert [entry.info.run_id for entry in found] == [child.run_id]


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), ConfigError("Every folder is taken.")])
def test_a_run_that_gets_no_folder_has_failed(
    client: Any, outputs: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise fault

    monkeypatch.setattr(opening, "claim", refuse)
    with pytest.raises(type(fault), match=str(fault)[-10:]):
        open_record("mlflow", outputs=outputs, uri=None, experiment="phantom/folderless", run_name="a")
    experiment = client.get_experiment_by_name("phantom/folderless").experiment_id
    run = client.search_runs([experiment])[0]
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", str(fault))


def test_a_run_that_goes_on_has_not_ended_whatever_it_could_not_say_before(
    begin: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, folders = begin()
    wait_until_sent(first)

    def away(*_: Any) -> None:
        raise OSError(111, "Connection refused")

    monkeypatch.setattr(store(first).client, "set_terminated", away)
    first.finish("KILLED")
    assert folders.is_pending
    monkeypatch.undo()
    again, _ = begin(run_id=first.run_id)
    wait_until_sent(again)
    assert client.get_run(first.run_id).info.status == "RUNNING"


def test_a_run_taken_for_dead_by_mistake_has_the_last_word(begin: Any, client: Any) -> None:
    tracker, _ = begin()
    client.set_tag(tracker.run_id, "error", "its process has gone")
    client.set_terminated(tracker.run_id, "KILLED")
    tracker.finish("FINISHED")
    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert "error" not in run.data.tags


def test_what_an_outage_kept_is_sent_later_and_nothing_differs(
    begin: Any, client: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole, whole_folders = begin()
    record(whole, whole_folders.run)
    whole.finish("FINISHED")

    broken, folders = begin()
    wait_until_sent(broken)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(111, f"Connection refused by {ADDRESS}")

    for call in ("log_batch", "log_artifact", "log_inputs", "set_terminated"):
        monkeypatch.setattr(store(broken).client, call, fail)
    record(broken, folders.run)
    broken.finish("FINISHED")
    assert f"python -m seg.sync run={folders.short}" in caplog.text
    assert "secret" not in caplog.text + Journal(folders.run).path.read_text()
    assert client.get_run(broken.run_id).data.params == {}
    assert folders.is_pending

    monkeypatch.undo()
    assert push_again(folders).startswith("MLflow at sqlite:")
    assert not folders.is_pending
    assert contents(client, broken.run_id) == contents(client, whole.run_id)


def wait_until_sent(tracker: Record) -> None:
    """Returns once all of the journal has arrived."""
    deadline, journal = time.time() + 60, Journal(tracker.folders.run).path
    while store(tracker)._pushed.get(tracker.run_id, 0) < journal.stat().st_size:
        assert time.time() < deadline
        time.sleep(0.01)


def contents(client: Any, run_id: str) -> dict[str, Any]:
    """All that a user sees of a run, but for ids and times."""
    run = client.get_run(run_id)
    passing = ("seg.process", "mlflow.source.git.commit")
    artifacts = [
        file.path for file in client.list_artifacts(run_id) for file in client.list_artifacts(run_id, file.path)
    ]
    return {
        "status": run.info.status,
        "params": run.data.params,
        "tags": {key: value for key, value in run.data.tags.items() if key not in passing},
        "metrics": {
            key: [(m.step, m.value) for m in client.get_metric_history(run_id, key)] for key in run.data.metrics
        },
        "artifacts": {path: Path(client.download_artifacts(run_id, path)).read_bytes() for path in artifacts},
        "datasets": [(seen.dataset.name, seen.dataset.digest) for seen in run.inputs.dataset_inputs],
        "ended": run.info.end_time is not None,
    }


def test_a_push_that_is_repeated_changes_nothing(begin: Any, client: Any) -> None:
    tracker, folders = begin()
    record(tracker, folders.run)
    tracker.finish("FINISHED")
    before = contents(client, tracker.run_id)
    assert len(before["metrics"]["train_loss"]) == 3
    push_again(folders)
    assert contents(client, tracker.run_id) == before


def test_a_sink_that_hangs_costs_the_run_nothing(begin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker, _ = begin()
    release, entered = threading.Event(), threading.Event()

    def hang(*_: Any) -> None:
        entered.set()
        release.wait()

    monkeypatch.setattr(store(tracker), "push", hang)
    assert entered.wait(10)
    for step in range(100):  # one that waited would never come back
        tracker.log_metrics({"loss": 1.0}, step=step)
    release.set()
    tracker.finish("FINISHED")


def test_a_run_that_died_after_its_last_number_is_finished_when_it_is_pushed_again(
    client: Any, outputs: Path, killed_midway: Any
) -> None:
    folders = killed_midway("mlflow", outputs)
    folders.summary.write_text("{}")
    push_again(folders)
    assert client.get_run(folders.run_id).info.status == read_state(folders.run).status == "FINISHED"


CSV_SINK = """
from seg.records.sink import Sink
from seg.records.journal import Journal

class CsvSink(Sink):
    name = "numbers.csv"
    def push(self, run, unwritten=()):
        reports = [*Journal(run.run).read(), *unwritten]
        rows = [f"{name},{value},{r['step']}" for r in reports for name, value in r.get("metrics", {}).items()]
        (run.run / self.name).write_text("\\n".join(rows))
"""


def test_another_sink_is_one_class(begin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_sinks.py").write_text(CSV_SINK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example")  # nothing to other trackers
    with allowing(["my_sinks"]):
        tracker, folders = begin(kind="my_sinks.CsvSink", outputs=tmp_path, parent_run_id="a1b2")
    assert read_state(folders.run).uri is None
    tracker.log_metrics({"loss": 0.5}, step=1)
    tracker.finish("FINISHED")
    assert (folders.run / "numbers.csv").read_text() == "loss,0.5,1"
    assert not folders.is_pending
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert list(runs(tmp_path)["loss"]) == [0.5], "the folder is the record"
    assert list(runs(tmp_path)["parent"]) == ["a1b2"]


ADDRESS_SINK = """
from seg.records.sink import Sink

class AddressSink(Sink):
    def __init__(self, uri, outputs, *, create=False):
        self.name = uri
"""


def test_another_sink_gets_the_whole_address_that_a_sweep_hid(
    begin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_address.py").write_text(ADDRESS_SINK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ann:secret@host")
    with allowing(["my_address"]):
        tracker, folders = begin(kind="my_address.AddressSink", outputs=tmp_path, uri="https://ann:***@host")
        tracker.finish("FINISHED")
        assert push_again(folders) == "https://ann:secret@host"
    assert tracker.place.startswith("https://ann:secret@host")
    assert read_state(folders.run).uri == "https://ann:***@host"


@pytest.mark.parametrize("kind", ["wandb", "no.such.Sink", "pathlib.Path"])
def test_what_is_no_sink_is_refused(begin: Any, tmp_path: Path, kind: str) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.kind"):
        begin(kind=kind, outputs=tmp_path)


def test_the_machines_load_is_sampled(begin: Any, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "_SAMPLE_SECONDS", 0.05)
    tracker, _ = begin(system_metrics=True)
    while "system/cpu_utilization_percentage" not in client.get_run(tracker.run_id).data.metrics:
        time.sleep(0.05)
    tracker.finish("FINISHED")
    metrics = client.get_run(tracker.run_id).data.metrics
    assert 0 < metrics["system/system_memory_usage_percentage"] <= 100
    assert 0 <= metrics["system/cpu_utilization_percentage"] <= 100


def test_without_mlflow_the_runs_folder_is_the_record(begin: Any, tmp_path: Path) -> None:
    tracker, folders = begin(kind="none", outputs=tmp_path)
    record(tracker, folders.run)
    tracker.finish("FINISHED")
    lines = [json.loads(line) for line in (folders.run / "record.jsonl").read_text().splitlines()]
    assert lines[0]["status"] == "RUNNING"
    assert lines[1] == {"params": {"model.width": "32", "loss": "dice_ce"}}
    assert [line["metrics"]["train_loss"] for line in lines if "metrics" in line] == [1.0, 0.5, 1 / 3]
    assert lines[-1]["status"] == read_state(folders.run).status == "FINISHED"
    assert tracker.look == {"record": str(folders.run)}
    assert not (tmp_path / "mlflow.db").exists()
    resumed, again = begin(kind="none", outputs=tmp_path, run_id=tracker.run_id)
    assert (resumed.run_id, again) == (tracker.run_id, folders)


def test_the_command_and_the_addresses_that_show_the_record(begin: Any, client: Any, outputs: Path) -> None:
    tracker, _ = begin()
    runs = f"http://127.0.0.1:5000/#/experiments/{client.get_run(tracker.run_id).info.experiment_id}/runs"
    view = "?workflowType=machine_learning"  # not that of language models, where a training looks empty
    assert tracker.look == {
        "record": f"python -m mlflow ui --backend-store-uri 'sqlite:///{outputs.resolve()}/mlflow.db' --host 127.0.0.1",
        "its charts": f"{runs}/{tracker.run_id}/model-metrics{view}",
        "all runs": f"{runs}{view}",
    }


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (ADDRESS, r"MLflow at http://user:\*\*\*@127.0.0.1:1/ does not answer: \[Errno \d+\] Connection refused"),
        ("postgresql://user:secret@127.0.0.1:1/runs", r"postgresql://user:\*\*\*@127.0.0.1:1/runs does not answer"),
        ("ftp://user:secret@example.org/", r"ftp://user:\*\*\*@example.org/ does not answer"),
        ("sqlite:////dev/null/mlflow.db", "dev/null"),
        ("file:///tmp/mlruns", "file:///tmp/mlruns does not answer"),
    ],
)
def test_an_address_that_does_not_answer_is_named_without_its_password(
    uri: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ConfigError, match=message) as caught:
        open_record("mlflow", outputs=tmp_path, uri=uri, experiment="a", run_name="b")
    assert caught.value.__suppress_context__, "a traceback of the cause would show the password"
    printed = "".join(capfd.readouterr())
    assert "secret" not in str(caught.value) + caplog.text + printed
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]


@pytest.mark.parametrize(
    ("text", "uri", "safe"),
    [
        ("at http://u:pw@h/x", "", "at http://u:***@h/x"),
        ("bad p%40ss and p@ss", "http://u:p%40ss@h", "bad *** and ***"),
        ("no password", "http://h:80/", "no password"),
        ("two http://u:a@h postgresql://u:b@h/db", "", "two http://u:***@h postgresql://u:***@h/db"),
    ],
)
def test_passwords_are_masked(text: str, uri: str, safe: str) -> None:
    assert without_passwords(text, uri) == safe


OPEN_AND_FINISH = """
import sys
from pathlib import Path
from seg.records.opening import open_record
outputs = Path(sys.argv[1])
tracker = open_record("mlflow", outputs=outputs, uri=None, experiment="phantom/default", run_name=sys.argv[2])
tracker.log_metrics({"loss": float(sys.argv[2])}, step=0)
tracker.finish("FINISHED")
"""


@pytest.mark.slow
def test_four_first_starts_at_once_on_a_fresh_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPEN_AND_FINISH, tmp_path / "outputs"]
    started = [subprocess.Popen([*command, str(n)], stderr=subprocess.PIPE, text=True) for n in range(4)]
    failed = [said for process in started if (said := process.communicate()[1]) and process.returncode]
    assert not failed, failed[0]
    client = Mlflow(None, tmp_path / "outputs").client
    (experiment,) = [e for e in client.search_experiments() if e.name == "phantom/default"]
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.metrics["loss"] for run in runs) == [0, 1, 2, 3]
    assert {run.info.status for run in runs} == {"FINISHED"}


@contextmanager
def server(folder: Path, port: int) -> Iterator[None]:
    """A real MLflow server, killed at the end like a machine that loses power."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    with (folder / "server.log").open("a") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    try:
        for _ in range(1200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
@pytest.mark.network
def test_a_server_that_dies_midway_costs_nothing(
    begin: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    """Killed between two metrics; the rest is sent by ``seg.sync``, and all is as in a run without the accident."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    uri = f"http://user:secret@127.0.0.1:{port}"
    place = {"outputs": tmp_path / "outputs", "uri": uri, "system_metrics": False}
    with server(tmp_path, port):
        whole, folders = begin(**place)
        whole.log_metrics({"params": 5.0}, step=0)
        record(whole, folders.run)
        whole.finish("FINISHED")
        broken, folders = begin(**place)
        broken.log_metrics({"params": 5.0}, step=0)
        wait_until_sent(broken)
    record(broken, folders.run)
    broken.finish("FINISHED")
    assert f"python -m seg.sync run={folders.short}" in caplog.text
    with server(tmp_path, port):
        command = [sys.executable, "-m", "seg.sync", f"run={folders.short}", f"paths.outputs={place['outputs']}"]
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
        assert refused.returncode == 2
        assert "tracking.uri=" in refused.stderr
        sent = subprocess.run([*command, f"tracking.uri={uri}"], capture_output=True, text=True, check=False)
        assert sent.returncode == 0, sent.stderr
        client = store(broken).client
        expected, got = contents(client, whole.run_id), contents(client, broken.run_id)
    assert got == expected
    assert [step for step, _ in got["metrics"]["train_loss"]] == [0, 1, 2]
    said = caplog.text + "".join(capfd.readouterr()) + refused.stderr + sent.stdout + sent.stderr
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert "user:secret" not in said
    assert b"user:secret" not in kept


def test_a_point_is_the_mean_since_the_last_and_comes_soon_and_seldom(
    begin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = itertools.count(step=4.0)  # seconds a step
    monkeypatch.setattr("seg.engine.live.time", SimpleNamespace(monotonic=lambda: next(now)))
    tracker, folders = begin(kind="none", outputs=tmp_path)
    live, progress = Live(tracker, "auto"), Progress(lr=0.1)
    for step in range(1, 7):
        progress.step = step
        live.step(progress, float(step))
    live.epoch(progress, {"epoch": 1, "step": 6, "train_loss": 3.5, "val_dice": 0.5, "epoch_seconds": 24.0})
    reports = [(r["step"], r["metrics"]) for r in Journal(folders.run).read() if "metrics" in r]
    assert reports == [
        (1, {"train_loss": 1.0, "lr": 0.1}),
        (4, {"train_loss": 3.0, "lr": 0.1}),  # of the steps 2 to 4: ten seconds are over
        (6, {"train_loss": 5.5, "lr": 0.1}),
        (6, {"epoch": 1.0, "val_dice": 0.5, "system/epoch_seconds": 24.0}),
    ]


def test_a_file_that_is_not_there_costs_a_warning_and_nothing_else(
    begin: Any, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    tracker, folders = begin()
    tracker.log_artifact(folders.run / "log.txt", "")
    tracker.log_metrics({"loss": 1.0}, step=0)
    tracker.finish("FINISHED")
    assert client.get_run(tracker.run_id).data.metrics["loss"] == 1.0
    assert "log.txt was removed before it could be sent" in caplog.text
