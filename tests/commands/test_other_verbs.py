"""Tables, pages and cleaning of finished runs."""

import pytest
from outside import Home, hashes, rows, short

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, shared) -> Home:
    """A working folder with a run in MLflow and one without."""
    home = Home(tmp_path_factory.mktemp("two"), shared)
    for arguments in (["study=mine", "arm=first"], ["study=mine", "arm=second", "tracking=none", "seed=1"]):
        done = home.train(*arguments)
        assert done.returncode == 0, done.stderr
    return home


def test_runs_of_both_kinds_are_in_one_table(two: Home) -> None:
    done = two.seg("runs", "study=mine", "sort=test_dice", "csv=table.csv")
    assert done.returncode == 0, done.stderr
    table = rows(two.folder / "table.csv")
    assert {row["run_id_short"] for row in table} == {short(run) for run in two.runs()}
    dice = [float(row["test_dice"]) for row in table]
    assert dice == sorted(dice, reverse=True)
    assert {row["arm"] for row in table} == {"first", "second"}
    assert {row["status"] for row in table} == {"FINISHED"}
    assert "params.optimizer.lr" in table[0]
    (two.folder / "table.csv").unlink()


def test_the_runs_of_one_case(two: Home) -> None:
    case = rows(two.runs()[0] / "data/cases.csv")[0]["case"]
    done = two.seg("runs", f"case={case}")
    assert done.returncode == 0, done.stderr
    assert "case_dice" in done.stdout
    assert f"{case}_Slice_" in done.stdout


def test_a_word_that_no_run_has_is_answered_by_the_nearest(two: Home) -> None:
    done = two.seg("runs", "arm=frist")
    assert done.returncode == 2
    assert "first" in done.stderr


def test_runs_are_compared_on_a_page(two: Home) -> None:
    ids = ",".join(short(run) for run in two.runs())
    done = two.seg("compare", f"runs=[{ids}]", "file=page.html")
    assert done.returncode == 0, done.stderr
    page = (two.folder / "page.html").read_text()
    assert all(short(run) in page for run in two.runs())
    assert "http://" not in page.split("<body")[0], "it needs nothing from elsewhere"
    (two.folder / "page.html").unlink()


def test_only_predictions_are_removed_and_only_when_agreed(home: Home) -> None:
    for seed in ("0", "1"):
        assert home.train("tracking=none", f"seed={seed}").returncode == 0
    old, new = home.runs()
    before = hashes(home.outputs)
    done = home.seg("clean", "keep=1")
    assert done.returncode == 2, "nobody can be asked"
    assert hashes(home.outputs) == before
    assert home.seg("clean", "keep=1", "yes=true").returncode == 0
    assert [path.name for path in (home.outputs / "predictions").iterdir()] == [new.name]
    left = hashes(home.outputs)
    assert {name for name in before if f"predictions/{old.name}" not in name} == set(left)


def test_nothing_waits_to_be_sent(two: Home) -> None:
    done = two.seg("sync")
    assert done.returncode == 0, done.stderr
    assert "Nothing" in done.stdout
