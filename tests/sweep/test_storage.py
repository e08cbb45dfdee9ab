"""Where a sweep is kept: what cannot be reached is said without a password; PostgreSQL is a real server here."""

import errno
import logging
import subprocess
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from optuna.exceptions import StorageInternalError
from postgres import SECRET, WRITTEN, Server, serving
from sqlalchemy.exc import OperationalError

from seg.errors import ConfigError, SegError
from seg.records.state import Process
from seg.sweep import search as search_module
from seg.sweep import storage
from seg.sweep.goal import Goal, Judge
from seg.sweep.jobs import Space, choice, read_space
from seg.sweep.search import Search

OPENED: list[Search] = []


def space() -> Space:
    lines = ["lr=tag(log,interval(1e-5,1e-1))", "model=choice(unet,unetpp)", "max_lr=interval(0.1,0.9)"]
    return read_space(lines, {}, {"max_lr": {"model": "unetpp"}}, None)


def search(
    address: str | Path, n_trials: int = 6, name: str = "tune", starts: Sequence[dict[str, Any]] = (), **goal: Any
) -> Search:
    chosen, among = Goal(("val_dice",), ("maximize",), n_trials, **goal), space()
    OPENED.append(hand := Search(name, address, chosen, Process.this(), among, among.starts(starts), shared=True))
    hand.enter()
    return hand


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


def told(error: BaseException) -> str:
    """All that a user or a log could get to see of an error."""
    return "".join(traceback.format_exception(error, chain=True))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (f"postgresql://me:{WRITTEN}@127.0.0.1:1/db", "connection to server"),
        (f"postgresql://127.0.0.1:1/db?user=me&password={WRITTEN}", "connection to server"),
        (f"postgres://me:{WRITTEN}@127.0.0.1:1/db", "Connection refused"),
        (f"postgresql://me:{SECRET}@127.0.0.1/db", "is not a valid address"),
        ("postgresql://me:s3cr", "is not a valid address"),
        (f"mysql+nosuch://me:{WRITTEN}@127.0.0.1/db", "nosuch"),
        (f"oracle://me:{WRITTEN}@127.0.0.1/db", "pip install"),
        ("sqlite:////nowhere/at/all.db", "unable to open"),
    ],
)
def test_a_storage_that_cannot_be_opened_is_named_without_its_password(
    address: str, said: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ConfigError) as caught:
        search(address)
    assert said in str(caught.value)
    assert "hydra.sweeper.storage" in str(caught.value)
    everything = told(caught.value) + caplog.text + "".join(capfd.readouterr())
    shown = everything.replace(address, "")  # pytest's own line of this test's source
    assert not any(part in shown for part in ("s3cr", "{x}"))
    assert caught.value.__context__ is None


def test_a_driver_that_is_missing_is_named_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"import of psycopg halted.* Run: pip install 'seg\[postgres\]'"):
        search(f"postgresql://me:{WRITTEN}@127.0.0.1:1/db")


def test_a_journal_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/journal\.log cannot be opened"):
        search(tmp_path / "file" / "journal.log")


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    (tmp_path / "journal.log").write_text("nonsense\n{}\nand more")
    with pytest.raises(ConfigError, match=r"journal\.log cannot be opened"):
        search(tmp_path / "journal.log")
    assert (tmp_path / "journal.log").read_text().endswith("and more"), "another file is left as it was"


def test_a_disk_that_fills_for_a_moment_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hand = search(tmp_path / "journal.log")
    backend, whole = hand._storage._backend, (tmp_path / "journal.log").read_bytes()  # as Optuna keeps it

    def half(file: int) -> None:
        assert (tmp_path / "journal.log").stat().st_size > len(whole)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", half)
    with pytest.raises(OSError, match="No space"):
        backend.append_logs([{"op_code": 5}])
    assert (tmp_path / "journal.log").read_bytes() == whole
    monkeypatch.undo()
    backend.append_logs([{"op_code": 5}])
    assert (tmp_path / "journal.log").read_bytes() == whole + b'{"op_code":5}\n'


def test_a_relative_path_is_a_journal_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert search("sweeps/tune/journal.log").take()
    assert (tmp_path / "sweeps/tune/journal.log").exists()


class Away:
    """Refuses the first calls, as a database that restarts does."""

    def __init__(self, times: int, call: Callable[..., Any]) -> None:
        self.times, self.call = times, call

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if self.times:
            self.times -= 1
            error = OperationalError("SELECT", {}, Exception(f"no answer from postgresql://me:{WRITTEN}@host"))
            raise StorageInternalError("in the middle") from error
        return self.call(*arguments, **named)


def test_a_storage_that_comes_back_costs_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(storage, "_PAUSES", (0.0,) * 3)
    hand = search(tmp_path / "journal.log", retries=1, starts=[{"model": "unetpp"}])
    place = hand.study._storage
    names = ("create_new_trial", "set_trial_user_attr", "set_trial_param", "set_trial_state_values", "get_all_trials")
    for turn, name in enumerate(names * 3):
        monkeypatch.setattr(place, name, Away(2, getattr(place, name)))
        if trial := hand.take():
            if turn % 3:
                hand.complete(trial.number, [0.5])
            else:
                hand.fail(trial.number, "broken", retry=True)
        monkeypatch.undo()
        monkeypatch.setattr(storage, "_PAUSES", (0.0,) * 3)
    while trial := hand.take():
        hand.complete(trial.number, [0.5])
    assert hand.over()
    counts = Counter(hand.frame()["state"])
    assert counts["finished"] == 6
    assert set(counts) <= {"finished", "failed"}
    assert "trying again" in caplog.text


def test_a_retry_is_entered_though_the_storage_goes_away_while_its_trial_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_PAUSES", (0.0,))
    hand = search(tmp_path / "journal.log", retries=1)
    trial, place = hand.take(), hand.study._storage
    assert trial
    monkeypatch.setattr(place, "create_new_trial", Away(1, place.create_new_trial))
    hand.fail(trial.number, "broken", retry=True)
    assert hand.frame()[["state", "attempt", "retried"]].to_numpy().tolist() == [
        ["failed", 1, True],
        ["waiting", 2, False],
    ]


def test_a_lock_that_is_lost_with_its_server_costs_no_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLAlchemy raises its own error here, which Optuna does not wrap."""
    monkeypatch.setattr(storage, "_PAUSES", (0.0,) * 2)
    hand, away = search(tmp_path / "journal.log", 2), [True, False, True]

    @contextmanager
    def alone(*_: object) -> Iterator[None]:
        yield
        if away and away.pop():
            raise OperationalError("COMMIT", {}, Exception()) from Exception("server closed the connection")

    monkeypatch.setattr(search_module, "alone", alone)
    taken = [hand.take(), hand.take()]
    assert [trial.number for trial in taken if trial] == [0, 1]
    assert hand.take() is None
    for number in range(2):
        hand.complete(number, [0.5])
    assert hand.over()


def test_a_storage_that_stays_away_ends_the_sweep_without_showing_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(storage, "_PAUSES", (0.0,) * 3)
    hand = search(tmp_path / "journal.log")
    monkeypatch.setattr(hand.study._storage, "get_all_trials", Away(99, lambda: None))
    with pytest.raises(SegError, match=r"does not answer: .* Fix it; the same command then continues") as caught:
        hand.take()
    assert "s3cr" not in told(caught.value) + caplog.text
    assert caplog.text.count("trying again") == 3


# ---- PostgreSQL


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


HAND = """
import os
import sys
sys.path[:0] = {tests!r}
from test_storage import *

hand = search({address!r}, **{settings!r})
while not hand.over():
    if trial := hand.take():
        judge = Judge(hand.name, hand.address, trial.id, "none", {{}})
        judge.stops(1, 0.5)
        judge.close()
        if trial.number % 5 == 4 and hand.frame().at[trial.number, "attempt"] == 1:
            hand.fail(trial.number, "broken", retry=True)
        else:
            hand.complete(trial.number, [trial.params["lr"]])
hand.set_parent_once(str(os.getpid()))
print(hand.parent)
hand.close()
"""


def side_by_side(address: str, count: int, **settings: Any) -> list[str]:
    """What each of several processes said that worked off one sweep together, begun at the same moment."""
    script = HAND.format(tests=[*map(str, Path(__file__).parents[:2])], address=address, settings=settings)
    processes = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    outs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * count, outs
    return [out for out, _ in outs]


@pytest.mark.slow
@pytest.mark.network
def test_processes_at_once_on_one_empty_database_end_with_n_trials(server: Server) -> None:
    address = server.database("empty")
    settings = {"n_trials": 25, "retries": 1, "sampler": "random"}
    parents = side_by_side(address, 4, **settings)
    assert len(set(parents)) == 1, "all heard of the same parent"
    frame = search(address, **settings).frame()
    assert Counter(frame["state"])["finished"] == 25
    assert frame["lr"].nunique() == 25, "each its own point"
    assert sorted(frame[frame["state"] == "failed"]["lr"]) == sorted(frame[frame["attempt"] == 2]["lr"])


@pytest.mark.slow
@pytest.mark.network
def test_a_database_gives_the_same_trials_as_a_journal(server: Server, tmp_path: Path) -> None:
    def run(hand: Search) -> list[dict[str, Any]]:
        drawn = []
        while trial := hand.take():
            drawn.append(trial.params)
            judge = Judge(hand.name, hand.address, trial.id, "median", {})
            pruned = judge.stops(1, float(trial.params["lr"]))
            judge.close()
            hand.prune(trial.number) if pruned else hand.complete(trial.number, [float(trial.params["lr"])])
        hand.close()
        return drawn

    settings: dict[str, Any] = {"n_trials": 14, "pruner": "median", "name": "same"}
    assert run(search(server.address, **settings)) == run(search(tmp_path / "journal.log", **settings))


@pytest.mark.slow
@pytest.mark.network
def test_a_grid_and_its_retries_on_a_database(server: Server) -> None:
    among = Space((choice("lr", ("1e-4", "1e-3", "1e-2", "1e-1")),))
    goal = Goal(("a",), ("minimize",), retries=1)
    hand = Search("grid", server.address, goal, Process.this(), among, among.points())
    OPENED.append(hand)
    hand.enter()
    first = hand.take()
    assert first
    hand.fail(first.number, "broken", retry=True)
    while trial := hand.take():
        hand.note(trial.number, run_id="x")
        hand.complete(trial.number, [float(trial.params["lr"])])
    assert hand.best()["lr"].tolist() == ["1e-4"]
    assert hand.over()


@pytest.mark.slow
@pytest.mark.network
def test_a_wrong_password_is_not_shown(server: Server) -> None:
    address = server.address.replace(WRITTEN, "wr0ng")
    with pytest.raises(ConfigError, match="password authentication failed for user") as caught:
        search(address)
    assert "wr0ng" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.network
def test_a_server_that_restarts_is_waited_for(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    hand = search(server.address, 4, "restart")
    trial = hand.take()
    assert trial
    server.stop()
    back = threading.Timer(1.0, server.start)
    back.start()
    hand.complete(trial.number, [0.5])
    back.join()
    server.stop()
    back = threading.Timer(1.0, server.start)
    back.start()
    assert hand.take(), "its lock, too"
    back.join()
    assert caplog.text.count("trying again") >= 2
    assert SECRET not in caplog.text
    server.stop()
    server.start()
    assert hand.take(), "a connection that broke meanwhile is replaced"
    hand.close()
