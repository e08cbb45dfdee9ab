import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg.files import atomic_write
from seg.records import pending as unsent
from seg.records.pending import Courier, Journal, Report, UnreachableError


class Receiver:
    """Takes reports, unless it is away; reads the files they are about."""

    def __init__(self, away: bool = False) -> None:
        self.got: list[Report] = []
        self.files: dict[str, str] = {}
        self.away = away
        self.calls = 0

    def __call__(self, reports: Sequence[Report]) -> None:
        self.calls += 1
        if self.away:
            raise UnreachableError("nobody home")
        self.got += reports
        self.files |= {Path(r["path"]).name: Path(r["path"]).read_text() for r in reports if "path" in r}

    @property
    def numbers(self) -> list[int]:
        return [report["n"] for report in self.got if "n" in report]


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.time() + seconds
    while not condition() and time.time() < end:
        time.sleep(0.005)
    return condition()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsent, "_PAUSE", 0.01)


def test_reports_arrive_in_order_and_leave_nothing_behind(tmp_path: Path) -> None:
    receiver = Receiver()
    courier = Courier(Journal(tmp_path), receiver, "MLflow")
    for n in range(50):
        courier.put({"n": n})
    assert courier.close()
    assert receiver.numbers == list(range(50))
    assert not Journal(tmp_path).first()


def test_the_caller_does_not_wait_for_a_receiver_that_hangs(tmp_path: Path) -> None:
    release = threading.Event()

    def hang(_: Sequence[Report]) -> None:
        release.wait()

    courier = Courier(Journal(tmp_path), hang, "MLflow")
    for n in range(100):  # one that waited would never come back
        courier.put({"n": n})
    assert not courier.close(patience=0.1), "a hanging receiver has not got everything"
    assert len(Journal(tmp_path).first()) == 100
    release.set()


@pytest.mark.usefixtures("impatient")
def test_what_was_kept_is_sent_when_the_receiver_is_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    receiver = Receiver(away=True)
    courier = Courier(Journal(tmp_path), receiver, "MLflow at x")
    courier.put({"n": 0})
    assert eventually(lambda: receiver.calls > 3), "it is tried again and again"
    courier.put({"n": 1})
    receiver.away = False
    assert eventually(lambda: receiver.numbers == [0, 1])
    assert courier.close()
    said = [record.message for record in caplog.records]
    assert said == [
        "MLflow at x does not answer (nobody home); the run goes on and keeps what it has to report.",
        "MLflow at x is back: sent 2 reports that had been kept.",
    ]


@pytest.mark.usefixtures("impatient")
def test_a_file_is_sent_as_it_was_when_the_receiver_went_away(tmp_path: Path) -> None:
    file = tmp_path / "log.txt"
    file.write_text("then")
    receiver = Receiver(away=True)
    courier = Courier(Journal(tmp_path), receiver, "MLflow")
    courier.put({"path": str(file), "folder": ""})
    assert eventually(lambda: len(list((tmp_path / "unsent").rglob("log.txt"))) == 1)
    atomic_write(file, "now")
    assert not courier.close()
    receiver.away = False
    assert Journal(tmp_path).deliver(receiver) == 1
    assert receiver.files == {"log.txt": "then"}
    assert not (tmp_path / "unsent").exists()


def test_an_unsent_file_outlives_its_removal_and_its_runs_folder_may_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    (tmp_path / "run").mkdir()
    for name in ("linked.txt", "copied.txt"):
        (tmp_path / name).write_text(name)
        Journal(tmp_path / "run").append_to_send({"path": str(tmp_path / name), "folder": ""})
        (tmp_path / name).unlink()
        monkeypatch.setattr("os.link", no_links)
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    receiver = Receiver()
    Journal(tmp_path / "elsewhere").deliver(receiver)
    assert receiver.files == {"linked.txt": "linked.txt", "copied.txt": "copied.txt"}
    assert not (tmp_path / "elsewhere/unsent").exists()


def test_what_was_delivered_stays_in_the_record(tmp_path: Path) -> None:
    journal, receiver = Journal(tmp_path), Receiver()
    for n in range(3):
        journal.append({"n": n})
        journal.deliver(receiver)
    assert receiver.numbers == [0, 1, 2]
    assert [report["n"] for report in journal.read()] == [0, 1, 2]
    assert journal.sent == journal.path.stat().st_size


def test_the_receiver_gets_a_last_chance_when_the_run_ends(tmp_path: Path) -> None:
    receiver = Receiver(away=True)
    courier = Courier(Journal(tmp_path), receiver, "MLflow")
    courier.put({"n": 0})
    assert eventually(lambda: courier.away)
    receiver.away = False
    assert courier.close()
    assert receiver.numbers == [0]


def test_a_failure_between_two_batches_keeps_exactly_what_did_not_arrive(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("a")
    journal, got = Journal(tmp_path), []
    for report in ({"n": 0}, {"n": 1}, {"path": str(file)}, {"n": 2}):
        journal.append_to_send(report)

    def send(reports: Sequence[Report]) -> None:
        if "path" in reports[0]:
            raise UnreachableError("disk full there")
        got.extend(reports)

    with pytest.raises(UnreachableError):
        journal.deliver(send)
    assert [report["n"] for report in got] == [0, 1]
    assert [report.get("n") for report in journal.first()] == [None, 2]


def test_half_a_line_of_a_killed_process_is_ignored_and_does_not_spoil_the_next(tmp_path: Path) -> None:
    Journal(tmp_path).append({"n": 0})
    with (tmp_path / "record.jsonl").open("a") as file:
        file.write('{"n": 1, "met')
    journal = Journal(tmp_path)
    journal.append({"n": 2})
    assert [report["n"] for report in journal.first()] == [0, 2]


def test_half_a_line_of_a_full_disk_is_cut_off_by_the_next(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(tmp_path)
    journal.append({"n": 0})
    with journal.path.open("a") as file:
        file.write('{"n": 1, "met')
    assert [report["n"] for report in journal.first()] == [0]
    journal.append({"n": 2})
    assert [report["n"] for report in journal.first()] == [0, 2]
    assert len(journal.path.read_text().splitlines()) == 2


def test_a_damaged_line_is_left_out_and_the_rest_is_sent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal, receiver = Journal(tmp_path), Receiver()
    journal.append({"n": 0})
    with journal.path.open("a") as file:
        file.write('{"n": 1, "met{"n": 2}\n\0\0\0\n')
    journal.append({"n": 3})
    journal.deliver(receiver)
    assert receiver.numbers == [0, 3]
    assert sum("damaged line" in record.message for record in caplog.records) == 2
    assert not journal.first()


def test_looking_at_the_journal_of_a_living_run_does_not_change_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append({"n": 0})
    with journal.path.open("a") as file:
        file.write('{"n": 1')  # being written
        file.flush()
        assert len(Journal(tmp_path).first()) == 1
        file.write("}\n")
    assert [report["n"] for report in journal.first()] == [0, 1]


@pytest.mark.usefixtures("impatient")
def test_a_full_disk_does_not_end_the_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver, full = Receiver(), threading.Event()
    courier = Courier(Journal(tmp_path), receiver, "MLflow")
    drop = courier.journal.drop

    def refuse(count: int) -> None:
        if not full.is_set():
            full.set()
            raise OSError(28, "No space left on device")
        drop(count)

    monkeypatch.setattr(courier.journal, "drop", refuse)
    courier.put({"n": 0})
    assert eventually(full.is_set)
    assert courier.close()
    assert set(receiver.numbers) == {0}


@settings(max_examples=30, deadline=None)
@given(
    failures=st.lists(st.booleans(), max_size=12),
    reports=st.lists(st.floats() | st.text(max_size=5) | st.none(), max_size=12),
)
def test_whatever_fails_every_report_arrives_in_the_end(
    failures: list[bool], reports: list[object], tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = tmp_path_factory.mktemp("run")
    journal, receiver, moods = Journal(run), Receiver(), iter(failures)
    for report in reports:
        journal.append({"value": report})
        receiver.away = next(moods, False)
        try:
            journal.deliver(receiver)
        except UnreachableError:
            continue
    receiver.away = False
    journal.deliver(receiver)
    assert [repr(report["value"]) for report in receiver.got] == [repr(report) for report in reports]
