"""What a run reports, line by line: nothing that was written is lost or doubled, whatever ended the writing."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg.records.journal import Journal


def numbers(journal: Journal) -> list[int]:
    return [report["n"] for report in journal.read() if "n" in report]


def test_reports_are_read_in_order_from_any_point(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for n in range(5):
        journal.append({"n": n})
    first, end = journal.read_from(0, count=2)
    rest, last = journal.read_from(end)
    assert [report["n"] for report in first + rest] == list(range(5))
    assert last == journal.path.stat().st_size
    assert journal.read_from(last) == ([], last)


def test_a_journal_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert Journal(tmp_path / "none").read() == []


def test_a_file_is_named_from_the_runs_folder_which_may_move(tmp_path: Path) -> None:
    run, other = tmp_path / "outputs/runs/run_a", tmp_path / "outputs/predictions/run_a/sheet.png"
    for file in (run / "data/cases.csv", other):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        Journal(run).append_file(file, "data")
    (tmp_path / "outputs").rename(tmp_path / "elsewhere")
    moved = tmp_path / "elsewhere/runs/run_a"
    assert all((moved / report["path"]).exists() for report in Journal(moved).read())


def test_half_a_line_of_a_killed_process_or_a_full_disk_is_cut_off_by_the_next(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append({"n": 0})
    with journal.path.open("a") as file:
        file.write('{"n": 1, "met')
    assert numbers(journal) == [0]
    Journal(tmp_path).append({"n": 2})
    assert numbers(journal) == [0, 2]
    assert len(journal.path.read_text().splitlines()) == 2


def test_a_damaged_line_is_left_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append({"n": 0})
    with journal.path.open("a") as file:
        file.write('{"n": 1, "met{"n": 2}\n\0\0\0\n')
    journal.append({"n": 3})
    assert numbers(journal) == [0, 3]


def test_looking_at_the_journal_of_a_living_run_does_not_change_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append({"n": 0})
    with journal.path.open("a") as file:
        file.write('{"n": 1')  # being written
        file.flush()
        assert numbers(Journal(tmp_path)) == [0]
        file.write("}\n")
    assert numbers(journal) == [0, 1]


VALUES = st.floats() | st.text(max_size=9) | st.none()


@given(reports=st.lists(st.dictionaries(st.text(max_size=5), VALUES), max_size=9))
def test_whatever_is_reported_comes_back(reports: list[dict], tmp_path_factory: pytest.TempPathFactory) -> None:
    journal = Journal(tmp_path_factory.mktemp("run"))
    for report in reports:
        journal.append(report)
    assert repr(journal.read()) == repr(reports)
