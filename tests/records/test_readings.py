"""The ledger of readings: who read the scores of which cases; counted once each, chained, and never a crash."""

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

from seg.records.chain import read_chain
from seg.records.readings import FILE, NOTE, Reading, note_reading, part_of, readings

PART = part_of({"case_1": "a", "case_2": "b"})


def note(outputs: Path, reader: str, kind: str = "run", part: str = PART) -> None:
    folder = outputs / "sweeps" / reader if kind == "study" else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    note_reading(outputs, part, kind=kind, reader=reader, name=f"name of {reader}", folder=folder)


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """With the readings of two runs and two studies, and one of another part."""
    for reader, kind in (("r1", "run"), ("s1", "study"), ("r2", "run"), ("s2", "study")):
        note(tmp_path, reader, kind)
    note(tmp_path, "r1", part=part_of({"case_1": "a"}))
    return tmp_path


def test_a_part_is_what_its_cases_and_their_files_are() -> None:
    assert part_of({"case_2": "b", "case_1": "a"}) == PART
    assert len({PART, part_of({"case_1": "a"}), part_of({"case_1": "a", "case_2": "c"})}) == 3
    assert part_of({}) == ""


def test_each_reader_of_a_part_counts_once(outputs: Path) -> None:
    for reader, kind in (("r1", "run"), ("s1", "study")):
        note(outputs, reader, kind)
    found = readings(outputs, PART)
    assert [reading.reader for reading in found.known] == ["r1", "s1", "r2", "s2"]
    assert (found.place("s1"), found.place("s2"), found.place("s3")) == (1, 2, 1)
    (said,) = found.told("This test part has")
    assert said.startswith("This test part has been read 4 times, by 2 studies, since ")
    assert len((outputs / FILE).read_text().splitlines()) == 5
    note(outputs, "r9", part="")
    assert len((outputs / FILE).read_text().splitlines()) == 5, "nothing was scored"
    assert not readings(outputs, "another").told("These cases have")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: [*lines[:2], lines[2].replace("r2", "r9"), *lines[3:]], "entry 0004 does not continue"),
        (lambda lines: [lines[0], *lines[2:]], "entry 0002 is out of place"),
        (lambda lines: [*lines[:2], "{", *lines[3:]], "entry 0003 cannot be read"),
        (lambda lines: lines[:3], "entry 0004, of the study name of s2, was changed or removed"),
        (lambda lines: [*lines[:4], lines[4][:20]], "entry 0005 cannot be read"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "entry 0001 is out of place"),
        (lambda lines: [*lines[:4], json.dumps(json.loads(lines[4]) | {"time": 5})], "entry 0005 cannot be read"),
        (lambda lines: [json.dumps(json.loads(lines[0]) | {"time": "today"}), *lines[1:]], "entry 0001 cannot be read"),
        (lambda lines: [*lines[:4], json.dumps(json.loads(lines[4]) | {"reader": []})], "entry 0005 cannot be read"),
        (
            lambda lines: [*lines[:4], json.dumps(json.loads(lines[4]) | {"name": "\ud800"})],
            "entry 0005 cannot be read",
        ),
        (lambda lines: [*lines[:4], "null"], "entry 0005 cannot be read"),
    ],
)
def test_a_change_is_said_and_the_counting_goes_on(outputs: Path, change: object, words: str) -> None:
    path = outputs / FILE
    path.write_text("\n".join(change(path.read_text().splitlines())))
    found = readings(outputs, PART)
    assert words in " ".join(found.faults)
    assert "changed or is damaged" in found.told("This test part has")[-1]
    assert found.place("s2") == 2, "a study keeps its own line"
    before = len(found.known)
    note(outputs, "new")
    again = readings(outputs, PART)
    assert len(again.known) == before + 1
    assert words in " ".join(again.faults), "writing on does not heal it"


def test_a_ledger_that_was_removed_is_said(outputs: Path) -> None:
    (outputs / FILE).unlink()
    found = readings(outputs, PART)
    assert len(found.faults) == 2
    assert found.studies == ["s1", "s2"]
    note(outputs, "s1", "study")
    assert not (outputs / FILE).exists(), "what a study noted is no new reading"
    (outputs / "sweeps/s1" / NOTE).write_text("not JSON")
    assert readings(outputs, PART).studies == ["s2"]


def test_a_ledger_that_cannot_be_read_or_written_stops_nothing(outputs: Path, caplog: pytest.LogCaptureFixture) -> None:
    (outputs / FILE).unlink()
    (outputs / FILE).mkdir()
    note(outputs, "new")
    assert "could not be noted" in caplog.text
    assert "it cannot be read" in readings(outputs, PART).told("This test part has")[-1]


def _many(outputs: Path, first: int) -> None:
    for number in range(first, first + 10):
        note(outputs, f"r{number}")


def test_processes_that_read_at_once_all_get_their_line(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_many, args=(tmp_path, 100 * number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    found = readings(tmp_path, PART)
    assert (len(found.known), found.faults) == (30, ())


def test_more_than_9999_entries_are_in_order(outputs: Path) -> None:
    entries, _ = read_chain(Reading, {"0001": (outputs / FILE).read_text().splitlines()[0]})
    for number in range(2, 10_002):
        entries.append(replace(entries[-1], number=number, previous=entries[-1].hash))
    assert read_chain(Reading, {f"{entry.number:04}": entry.text for entry in entries}) == (entries, [])
