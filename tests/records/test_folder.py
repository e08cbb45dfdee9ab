import hashlib
import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.pool import Pool
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg.errors import ConfigError
from seg.records.folder import claim, claimed, find, one_at_a_time, owner
from seg.records.predictions import begin_predictions, write_manifest
from seg.records.state import Process, State, read_state, write_state

A, B = "a" * 32, "a" * 10 + "b" * 22


def test_a_run_has_two_folders_that_name_it(tmp_path: Path) -> None:
    folders = claim(tmp_path, A)
    assert folders.run == tmp_path / "runs/run_aaaaaaaa"
    assert folders.predictions == tmp_path / "predictions/run_aaaaaaaa"
    assert owner(folders.run) == owner(folders.predictions) == A


def test_a_run_that_is_claimed_again_gets_its_own_folders_back(tmp_path: Path) -> None:
    assert claim(tmp_path, A) == claim(tmp_path, A)


def test_runs_that_begin_alike_get_longer_names(tmp_path: Path) -> None:
    first, second = claim(tmp_path, A), claim(tmp_path, B)
    assert (first.short, second.short) == (A[:8], B[:9])
    assert claim(tmp_path, B) == second


def test_a_longer_name_is_kept_when_the_shorter_one_gets_free(tmp_path: Path) -> None:
    first, second = claim(tmp_path, A), claim(tmp_path, B)
    for folder in (first.run, first.predictions):
        (folder / "run_id").unlink()
        folder.rmdir()
    assert claim(tmp_path, B) == second


@pytest.mark.parametrize("kind", ["runs", "predictions"])
def test_a_folder_that_is_not_a_runs_is_left_alone(tmp_path: Path, kind: str) -> None:
    foreign = tmp_path / kind / f"run_{A[:8]}"
    foreign.mkdir(parents=True)
    (foreign / "thesis.txt").write_text("mine")
    assert claim(tmp_path, A).short == A[:9]
    assert [path.name for path in foreign.iterdir()] == ["thesis.txt"]


def test_a_link_is_never_taken_for_a_runs_folder(tmp_path: Path) -> None:
    elsewhere = claim(tmp_path / "elsewhere", A).predictions
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / f"run_{A[:8]}").symlink_to(elsewhere)
    assert claim(tmp_path, A).short == A[:9]


@pytest.mark.parametrize("run_id", ["", "../../etc", "a/b", "A" * 8, "ab cd", "a\n"])
def test_a_run_id_cannot_lead_out_of_the_outputs(tmp_path: Path, run_id: str) -> None:
    with pytest.raises(ConfigError, match="digits and lower-case letters"):
        claim(tmp_path, run_id)
    assert not list(tmp_path.iterdir())


@settings(max_examples=25, deadline=None)
@given(ids=st.lists(st.text("ab", min_size=10, max_size=10), min_size=2, max_size=12, unique=True))
def test_no_two_runs_ever_share_a_folder(ids: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    outputs = tmp_path_factory.mktemp("outputs")
    folders = {run_id: claim(outputs, run_id) for run_id in ids}
    assert len({f.run for f in folders.values()}) == len({f.predictions for f in folders.values()}) == len(ids)
    for run_id, own in folders.items():
        assert owner(own.run) == owner(own.predictions) == run_id
        assert find(outputs, run_id) == claim(outputs, run_id) == own


def _claim_at(outputs: Path, run_id: str, moment: float) -> tuple[str, str]:
    time.sleep(max(0.0, moment - time.time()))
    folders = claim(outputs, run_id)
    return str(folders.run), str(folders.predictions)


@pytest.fixture(scope="module")
def four_processes() -> Iterator[Pool]:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        yield pool


def test_processes_that_claim_at_once_do_not_collide(tmp_path: Path, four_processes: Pool) -> None:
    ids = ["c" * 12 + str(n) * 4 for n in range(4)]
    for attempt in range(5):
        outputs = tmp_path / str(attempt)
        moment = time.time() + 0.1
        folders = four_processes.starmap(_claim_at, [(outputs, run_id, moment) for run_id in ids], chunksize=1)
        assert len({run for run, _ in folders}) == len({predictions for _, predictions in folders}) == 4
        assert {run.run_id for run in claimed(outputs)} == set(ids)
        assert not [path for path in outputs.rglob(".*") if path.is_dir()], "a draft was left"


def test_find_takes_an_id_its_beginning_and_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = claim(tmp_path, A)
    claim(tmp_path, "c" * 32)
    monkeypatch.chdir(tmp_path)
    for run in (A, "aaa", "run_aaaaaaaa", "runs/run_aaaaaaaa", "predictions/run_aaaaaaaa/", str(folders.run)):
        assert find(tmp_path, run) == folders


@pytest.mark.parametrize(
    ("run", "message"),
    [("zz", f"no run zz in .*{A}"), ("", "no run"), ("aaaaaaaa", f"may be any of {A}, {B}. Give more")],
)
def test_find_lists_the_runs_that_could_be_meant(tmp_path: Path, run: str, message: str) -> None:
    claim(tmp_path, A)
    claim(tmp_path, B)
    with pytest.raises(ConfigError, match=message):
        find(tmp_path, run)


def test_find_says_where_a_folder_of_other_outputs_lies(tmp_path: Path) -> None:
    other = claim(tmp_path / "other", A)
    with pytest.raises(ConfigError, match=f"Set paths.outputs={tmp_path / 'other'}"):
        find(tmp_path, str(other.run))


def test_beginning_predictions_removes_the_runs_own_files_and_no_others(tmp_path: Path) -> None:
    mine, other = claim(tmp_path, A), claim(tmp_path, B)
    outside = tmp_path / "outside.txt"
    outside.write_text("keep")
    (mine.predictions / "pictures").mkdir()
    (mine.predictions / "pictures/a.png").write_text("old")
    (mine.predictions / "case.nii.gz").write_text("old")
    (mine.predictions / "link").symlink_to(outside)
    (other.predictions / "case.nii.gz").write_text("of another run")
    assert begin_predictions(mine) == 3
    assert [path.name for path in mine.predictions.iterdir()] == ["run_id"]
    assert (other.predictions / "case.nii.gz").exists()
    assert outside.exists()
    assert begin_predictions(mine) == 0


def test_predictions_are_never_begun_in_another_runs_folder(tmp_path: Path) -> None:
    theirs = claim(tmp_path, A)
    (theirs.predictions / "case.nii.gz").write_text("of another run")
    with pytest.raises(ConfigError, match="does not belong to run"):
        begin_predictions(replace(theirs, run_id=B))
    assert (theirs.predictions / "case.nii.gz").exists()


def test_a_removed_prediction_folder_is_made_again(tmp_path: Path) -> None:
    folders = claim(tmp_path, A)
    (folders.predictions / "run_id").unlink()
    folders.predictions.rmdir()
    assert begin_predictions(folders) == 0
    assert owner(folders.predictions) == A


def test_the_manifest_lists_every_file_with_its_hash(tmp_path: Path) -> None:
    folders = claim(tmp_path, A)
    (folders.predictions / "sub").mkdir()
    (folders.predictions / "sub/case.nii.gz").write_bytes(b"mask")
    content = json.loads(write_manifest(folders, config_hash="c", checkpoint_hash="d").read_text())
    assert (content["run_id"], content["config_hash"], content["checkpoint_hash"]) == (A, "c", "d")
    assert content["files"] == [{"path": "sub/case.nii.gz", "bytes": 4, "sha256": hashlib.sha256(b"mask").hexdigest()}]
    again = json.loads(write_manifest(folders, config_hash="c", checkpoint_hash="d").read_text())
    assert again["files"] == content["files"], "the manifest may not list itself"


def test_a_process_is_gone_once_it_is_killed_even_before_its_parent_looks() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    process = replace(Process.this(), pid=child.pid, started=time.time())
    assert not process.gone
    child.kill()
    deadline = time.time() + 10
    while not process.gone and time.time() < deadline:
        time.sleep(0.01)
    assert process.gone, "a zombie counts as gone"
    child.wait()
    assert process.gone


def test_a_number_given_to_a_later_process_is_not_taken_for_the_first() -> None:
    this = Process.this()
    assert not this.gone
    assert replace(this, started=this.started - 3600).gone
    assert not replace(this, host="elsewhere", pid=2**22 + 1).gone, "of another host nothing is certain"


def test_a_process_of_another_host_is_lost_when_it_shows_no_sign_of_life() -> None:
    this, now = Process.this(), time.time()
    away = replace(this, host="elsewhere")
    assert not this.lost(0.0), "it is known to live"
    assert replace(this, started=0.0).lost(now)
    assert not away.lost(now - 60)
    assert away.lost(now - 3600)


def test_a_state_that_says_running_of_a_dead_process_is_not_believed(tmp_path: Path) -> None:
    this = Process.this()
    state = State("none", None, "phantom/default", "unet", "RUNNING", this)
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state
    assert state.true_status == "RUNNING"
    assert replace(state, process=replace(this, started=0.0)).true_status == "KILLED"
    assert replace(state, status="FINISHED", process=replace(this, started=0.0)).true_status == "FINISHED"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"kind": "none"}'])
def test_a_damaged_state_is_no_state(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    assert read_state(tmp_path) is None


def _add_one(path: Path) -> None:
    with one_at_a_time(path.parent):
        value = int(path.read_text())
        time.sleep(0.02)
        path.write_text(str(value + 1))


def test_one_process_at_a_time(tmp_path: Path, four_processes: Pool) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    four_processes.map(_add_one, [counter] * 12, chunksize=1)
    assert counter.read_text() == "12"
