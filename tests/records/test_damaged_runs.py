"""Files of a run that are damaged: refused by name, or left out with a line; never a traceback, never silent."""

import os
import random
import shutil
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from seg.config.schema import KEYS
from seg.data.fingerprint import Fingerprint
from seg.data.plan import Plan
from seg.data.splits import Split
from seg.engine.checkpoint import read, weights
from seg.engine.computing import as_before, stored
from seg.engine.device import Precision
from seg.engine.resume import as_begun
from seg.errors import ConfigError, DataError
from seg.files import private_folder
from seg.records import mlflow
from seg.records.folder import RunFolder, claim, claimed, find
from seg.records.mlflow import Mlflow
from seg.records.opening import open_record
from seg.records.state import read_state
from seg.records.table import runs

CPU = Precision(torch.device("cpu"), None)
READERS: dict[str, Callable[[RunFolder], object]] = {
    "config": lambda run: as_begun(run.read_config(), run, ()),
    "computing": lambda run: as_before(run.read(run.computing, stored), CPU),
    "split": lambda run: run.read(run.split, Split.from_json),
    "fingerprint": lambda run: run.read(run.fingerprint, Fingerprint.from_json),
    "plan": lambda run: run.read(run.plan, Plan.from_json),
}


@pytest.fixture
def copy(whole: tuple[Path, Any], tmp_path: Path) -> RunFolder:
    """A finished run that may be spoilt."""
    name = whole[1].predictions.name
    shutil.copytree(whole[0] / "runs" / name, tmp_path / "runs" / name)
    return RunFolder.at(tmp_path / "runs" / name)


def test_a_run_folder_that_was_moved_is_read_where_it_is(
    copy: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = copy.run.rename(tmp_path / copy.run.name)
    monkeypatch.chdir(tmp_path)
    for place in (moved, Path(moved.name)):
        assert RunFolder.at(place).run == moved
        assert RunFolder.at(place).read_config() is not None


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("damage", ["null", "", "[]", "7", "\x00\x00", "cut", "not text", "gone"])
def test_a_damaged_file_is_refused_by_name(copy: RunFolder, name: str, damage: str) -> None:
    path: Path = getattr(copy, name)
    READERS[name](copy)
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        contents = {"cut": whole[: len(whole) // 2], "not text": b"\xff\xfe" + whole}
        path.write_bytes(contents.get(damage, damage.encode()))
    with pytest.raises(DataError, match=path.name):
        READERS[name](copy)


@pytest.mark.parametrize("damage", [b"null", b"{", b"[]", b"[" * 100_000, b'{"process": null}', b"\xff"])
def test_a_run_with_a_damaged_state_is_left_out_with_a_line(
    copy: RunFolder, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (copy.run / "state.json").write_bytes(damage)
    assert read_state(copy.run) is None
    assert runs(copy.outputs).empty
    assert f"{copy.run} is left out: its state.json" in caplog.text


def test_a_run_id_that_is_no_text_is_no_runs(tmp_path: Path) -> None:
    kept, spoilt = claim(tmp_path, "a" * 32), claim(tmp_path, "b" * 32)
    (spoilt.run / "run_id").write_bytes(b"\xff\xfe\x00")
    assert claimed(tmp_path) == [kept]
    with pytest.raises(ConfigError, match="no run bbb"):
        find(tmp_path, "bbb")
    assert claim(tmp_path, "b" * 32).short == "b" * 9, "its folder is never written to"


def flipped(content: bytes, number: int) -> bytes:
    chance = random.Random(number)
    spoilt = bytearray(content)
    spoilt[chance.randrange(len(spoilt))] ^= 1 << chance.randrange(8)
    return bytes(spoilt)


@pytest.mark.parametrize("flips", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_flipped_bit_of_a_checkpoint_is_seen_or_harmless(tmp_path: Path, flips: int) -> None:
    content = {"network": {"w": torch.randn(40, 40)}, "average": None, "progress": {"step": 3, "history": [{"a": 1.5}]}}
    torch.save(content, tmp_path / "last.pt")
    whole, harmless = (tmp_path / "last.pt").read_bytes(), 0
    for number in range(flips):
        (tmp_path / "last.pt").write_bytes(flipped(whole, number))
        with suppress(DataError):
            found = read(tmp_path / "last.pt")
            assert torch.equal(found["network"].pop("w"), content["network"]["w"])
            assert found == content | {"network": {}}
            harmless += 1
    assert harmless < 0.2 * flips


@pytest.mark.parametrize("damage", [b"", b"zeros", b"half"])
def test_a_checkpoint_that_ends_early_is_seen_and_the_other_offered(copy: RunFolder, damage: bytes) -> None:
    best = copy.checkpoint("best")
    whole = best.read_bytes()
    half = len(whole) // 2
    best.write_bytes({b"": b"", b"half": whole[:half], b"zeros": whole[:half] + bytes(len(whole) - half)}[damage])
    with pytest.raises(DataError, match=r"best\.pt is damaged .* remove it to use last\.pt in its place"):
        weights(copy.chosen("best"))
    best.unlink()
    assert copy.chosen("best") == copy.checkpoint("last")


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_what_holds_pictures_of_patients_is_for_owner_and_group_at_most(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        folder = claim(tmp_path, "a" * 32)
        private_folder(tmp_path / "new/outputs")
    finally:
        os.umask(before)
    for place in (folder.run, folder.predictions, tmp_path / "new/outputs"):
        assert stat.S_IMODE(place.stat().st_mode) == 0o750 & ~umask


@pytest.mark.parametrize("content", [b"garbage " * 99, None])
def test_a_damaged_database_has_its_own_message(tmp_path: Path, empty_database: Path, content: bytes | None) -> None:
    whole = empty_database.read_bytes()
    (tmp_path / "mlflow.db").write_bytes(content or whole[:5000] + bytes(len(whole) - 5000))
    with pytest.raises(ConfigError, match=r"mlflow\.db is damaged: [a-z ]+\. Restore it from a copy, or move it away"):
        open_record("mlflow", outputs=tmp_path, uri=None, experiment="a", run_name="b")
    assert not (tmp_path / "runs").exists()


def test_a_path_that_an_address_cannot_hold_is_refused(tmp_path: Path) -> None:
    outputs = tmp_path / "what?"
    with pytest.raises(ConfigError, match=r"what\?.* paths\.outputs"):
        open_record("mlflow", outputs=outputs, uri=None, experiment="a", run_name="b")
    assert not [*tmp_path.rglob("*.db"), *tmp_path.glob("wha*")]
    assert "paths.outputs" in KEYS
    assert open_record("none", outputs=outputs, uri=None, experiment="a", run_name="b").folders.run.exists()


def test_a_server_that_hangs_at_the_start_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mlflow._AT_FIRST, "MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0), backlog=9) as server:  # it takes what comes and answers nothing
        with pytest.raises(ConfigError, match="does not answer"):
            Mlflow(f"http://127.0.0.1:{server.getsockname()[1]}", tmp_path)
        server.setblocking(False)
        server.accept()[0].close()
        with pytest.raises(BlockingIOError):  # nobody asked again
            server.accept()
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "30", "later requests may take longer"
