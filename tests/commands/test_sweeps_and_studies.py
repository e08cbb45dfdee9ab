"""Grids, searches and studies of real trainings: parents, children, states, tables, and the same command again."""

from pathlib import Path

import pytest
from outside import Home, hashes, rows, until

pytestmark = pytest.mark.slow
STUDY = """# @package hydra.sweeper.study
question: Does SE help?
arms: {baseline: {}, se: {attention: se}}
seeds: [0, 1]
"""


def sweep(home: Home) -> Path:
    (folder,) = (home.outputs / "sweeps").iterdir()
    return folder


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Home:
    """A working folder with a study of two arms and two seeds that has ended."""
    home = Home(tmp_path_factory.mktemp("study"), shared)
    (home.folder / "experiments").mkdir()
    (home.folder / "experiments/mine.yaml").write_text(STUDY)
    done = home.train("-m", "experiments=mine")
    assert done.returncode == 0, done.stderr
    return home


def test_a_study_has_one_parent_and_a_child_a_seed_and_arm(studied: Home) -> None:
    client = studied.mlflow()
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run is not parent]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    found = sorted((run.data.tags["arm"], run.data.tags["seed"]) for run in children)
    assert found == [("baseline", "0"), ("baseline", "1"), ("se", "0"), ("se", "1")]
    assert {run.data.tags["study"] for run in children} == {"mine"}
    assert all(run.info.run_name.startswith(f"{run.data.tags['arm']} f0 s") for run in children)
    folders = {run.data.tags["predictions"] for run in children}
    assert len(folders) == 4
    assert {path.name for path in (studied.outputs / "predictions").iterdir()} == {Path(f).name for f in folders}


def test_a_study_ends_in_a_table_a_page_and_the_cases_side_by_side(studied: Home) -> None:
    folder = sweep(studied)
    expected = ("table.csv", "table.md", "table.tex", "scores.csv", "report.html", "compare.html", "forest.png")
    assert {*expected, "trials.csv"} <= {path.name for path in folder.iterdir()}
    table = rows(folder / "table.csv")
    assert [row["arm"] for row in table] == ["baseline", "se"]
    assert table[1]["dice_baseline_verdict"] in ("better", "worse", "equivalent", "inconclusive", "no claim")
    assert "Does SE help?" in (folder / "report.html").read_text()
    assert [row["state"] for row in rows(folder / "trials.csv")] == ["finished"] * 4


def test_a_study_is_reported_again_with_the_same_numbers(studied: Home) -> None:
    folder = sweep(studied)
    before = (folder / "table.csv").read_text()
    done = studied.seg("report", "experiments=mine")
    assert done.returncode == 0, done.stderr
    assert "Does SE help?" in done.stdout
    assert (folder / "table.csv").read_text() == before


def test_the_same_command_trains_nothing_again(studied: Home) -> None:
    before = [path.name for path in studied.runs()]
    done = studied.train("-m", "experiments=mine")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in studied.runs()] == before


def test_a_study_is_compared_and_its_progress_drawn(studied: Home) -> None:
    done = studied.seg("compare", "study=mine", f"data.root={studied.shared / 'phantom'}")
    assert done.returncode == 0, done.stderr
    assert (studied.outputs / "compare/mine.html").stat().st_size > 50_000
    done = studied.seg("report", "data=phantom")
    assert done.returncode == 0, done.stderr
    assert (studied.outputs / "progress/phantom.html").exists()


def test_a_killed_sweep_continues_with_the_run_it_was_in(home: Home) -> None:
    arguments = ("-m", "seed=0,1", "trainer.max_epochs=8", "tracking=none")
    process = home.start(*arguments)
    until(lambda: list(home.outputs.glob("runs/*/checkpoints/last.pt")) or process.poll() is not None)
    process.kill()
    process.communicate()
    (begun,) = (path.parents[1].name for path in home.outputs.glob("runs/*/checkpoints/last.pt"))
    done = home.train(*arguments)
    assert done.returncode == 0, done.stderr
    table = rows(sweep(home) / "trials.csv")
    assert [row["state"] for row in table] == ["finished", "finished"]
    assert begun == f"run_{table[0]['run_id'][:8]}"
    assert len(list(home.outputs.glob("runs/*/checkpoints/last.pt"))) == 2, "no run was begun twice"


def test_a_search_finds_the_best_of_its_trials_and_prunes(home: Home) -> None:
    search = ["hydra.sweeper.n_trials=3", "hydra.sweeper.sampler=random", "hydra.sweeper.pruner=median"]
    search += ["hydra.sweeper.pruner_options={n_startup_trials: 1}", "optimizer.lr=choice(0.02,1e-9)"]
    search += ["hydra.sweeper.enqueue=[{optimizer.lr: 0.02}, {optimizer.lr: 1e-9}]", "scheduler=constant"]
    done = home.train("-m", "trainer.max_epochs=3", *search)
    assert done.returncode == 0, done.stderr
    table = rows(sweep(home) / "trials.csv")
    assert len(table) == 3
    assert [row["state"] for row in table[:2]] == ["finished", "pruned"]
    client = home.mlflow()
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert sum("mlflow.parentRunId" in run.data.tags for run in runs) == 3
    before = hashes(home.outputs / "runs")
    assert home.train("-m", "trainer.max_epochs=3", *search).returncode == 0
    assert {name for name in hashes(home.outputs / "runs") if name.endswith("last.pt")} == {
        name for name in before if name.endswith("last.pt")
    }, "it has all its trials"


def test_a_trial_that_fails_is_told_and_the_others_go_on(home: Home) -> None:
    done = home.train("-m", "optimizer=adamw", "optimizer.lr=0.02,1e30", "hydra.sweeper.retries=0", "tracking=none")
    assert "Traceback" not in done.stderr
    table = rows(sweep(home) / "trials.csv")
    assert [row["state"] for row in table] == ["finished", "failed"]
    assert "finite" in table[1]["error"] or "nan" in table[1]["error"]
