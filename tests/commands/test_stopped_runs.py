"""Runs that are stopped, killed or fail: their true state, and how they continue."""

import shutil
import signal
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from outside import LONG, Home, same_training, short, until

pytestmark = pytest.mark.slow


def stopped(home: Home, name: str, *arguments: str) -> tuple[Path, int, str]:
    """A long run that got a signal midway: its folder, exit code, and what it printed."""
    process = home.start(*LONG, *arguments)
    until(lambda: list(home.outputs.glob("runs/*/checkpoints/last.pt")) or process.poll() is not None)
    process.send_signal(getattr(signal, name))
    said, _ = process.communicate(timeout=120)
    (run,) = home.runs()
    return run, process.returncode, said


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_a_stopped_run_continues_to_the_same_end_bit_for_bit(name: str, home: Home, unbroken: Path) -> None:
    run, code, said = stopped(home, name)
    (record,) = recorded(home)
    if name == "SIGKILL":
        assert record.info.status == "RUNNING", "it could not say that it ended"
    else:
        assert code == 1
        assert record.info.status == "KILLED"
        assert f"resume={short(run)}" in said
    done = home.seg("train", f"resume={short(run)}", f"paths.cache={home.shared / 'cache'}")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in home.runs()] == [run.name]
    same_training(unbroken, run)
    (record,) = recorded(home)
    assert record.info.status == "FINISHED"
    assert [path.name for path in (home.outputs / "predictions").iterdir()] == [run.name]
    steps = [point.step for point in home.mlflow().get_metric_history(record.info.run_id, "val_dice")]
    assert steps == list(range(4, 121, 4)), "each epoch once"


def recorded(home: Home) -> list:
    client = home.mlflow()
    return list(client.search_runs([experiment.experiment_id for experiment in client.search_experiments()]))


def test_the_next_run_marks_a_dead_one_killed(home: Home) -> None:
    stopped(home, "SIGKILL")
    assert home.train("trainer.max_epochs=1").returncode == 0
    assert sorted(run.info.status for run in recorded(home)) == ["FINISHED", "KILLED"]


def test_a_dead_run_is_told_as_killed_by_runs(home: Home) -> None:
    run, *_ = stopped(home, "SIGKILL", "tracking=none")
    done = home.seg("runs", "status=killed")
    assert done.returncode == 0, done.stderr
    assert short(run) in done.stdout


def test_a_run_that_fails_says_why_once_and_is_failed(home: Home) -> None:
    done = home.train("optimizer=adamw", "optimizer.lr=1e30")
    assert done.returncode == 1
    assert done.stderr.count("error:") == 1
    assert "optimizer.lr" in done.stderr
    assert "Traceback" not in done.stderr
    (record,) = recorded(home)
    assert record.info.status == "FAILED"
    assert "finite" in record.data.tags["error"] or "nan" in record.data.tags["error"]


def test_a_finished_run_and_another_setting_are_refused(home: Home) -> None:
    run, *_ = stopped(home, "SIGTERM", "tracking=none")
    done = home.seg("train", f"resume={short(run)}", "optimizer.lr=1")
    assert done.returncode == 2
    assert "optimizer.lr" in done.stderr
    assert home.seg("train", f"resume={short(run)}", f"paths.cache={home.shared / 'cache'}").returncode == 0
    done = home.seg("train", f"resume={short(run)}")
    assert done.returncode == 2
    assert "finished" in done.stderr


def test_a_resumed_run_with_other_data_is_refused(home: Home) -> None:
    root = home.folder / "data"
    shutil.copytree(home.shared / "phantom", root)
    run, *_ = stopped(home, "SIGTERM", "tracking=none", f"data.root={root}")
    image = min((root / "imagesTr").glob("*.nii.gz"))
    volume = nib.load(image)
    nib.save(nib.Nifti1Image(np.asarray(volume.dataobj) + 1, volume.affine), image)
    done = home.seg("train", f"resume={short(run)}", f"paths.cache={home.shared / 'cache'}")
    assert done.returncode == 2
    assert "the data of run" in done.stderr
