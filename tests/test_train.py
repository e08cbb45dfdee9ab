"""Whole runs, tiny: their files, tags and scores; failed; side by side."""

import json
import os
import subprocess
import sys
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from training import TINY, WHOLE, Runner, arguments, command, composed, history, same, weights

from seg.engine.console import Display
from seg.engine.progress import Budget, Progress
from seg.engine.run import Result
from seg.errors import SegError
from seg.records.scored import choices
from seg.train import run_name


def test_a_run_leaves_what_it_promises(whole: tuple[Path, Result]) -> None:
    outputs, result = whole
    run, predictions = outputs / f"runs/run_{result.run_id[:8]}", outputs / f"predictions/run_{result.run_id[:8]}"
    for name in (
        "config/config.yaml",
        "data/split.json",
        "data/cases.csv",
        "history.csv",
        "log.txt",
        "checkpoints/best.pt",
    ):
        assert (run / name).stat().st_size > 0, name
    tested = json.loads((run / "data/split.json").read_text())["test"]
    assert len(tested) >= 2
    for case in tested:
        assert (predictions / f"{case}.nii.gz").exists()
        assert list(predictions.glob(f"{case}_Slice_[0-9][0-9][0-9].png"))
    manifest = json.loads((predictions / "manifest.json").read_text())
    assert manifest["run_id"] == result.run_id
    listed = {entry["path"] if isinstance(entry, dict) else entry for entry in manifest["files"]}
    assert listed == {path.name for path in predictions.iterdir()} - {"manifest.json", "run_id"}


def test_cases_csv_is_the_source_of_the_test_scores(whole: tuple[Path, Result]) -> None:
    outputs, result = whole
    cases = pd.read_csv(outputs / f"runs/run_{result.run_id[:8]}/data/cases.csv")
    assert set(cases.columns) >= {
        "run_id",
        "case",
        "patient",
        "class",
        "dice",
        "hd95_mm",
        "assd_mm",
        "nsd",
        "missed",
        "false",
    }
    assert result.metrics["test_dice"] == pytest.approx(cases.groupby("case")["dice"].mean().mean())
    assert result.metrics["test_missed"] == cases["missed"].sum()


def test_the_masks_lie_on_the_grid_of_their_input(whole: tuple[Path, Result], phantom_root: Path) -> None:
    _, result = whole
    for path in result.predictions.glob("*.nii.gz"):
        mask, image = nib.load(path), nib.load(phantom_root / "imagesTr" / path.name)
        assert mask.shape == image.shape
        np.testing.assert_allclose(mask.affine, image.affine)


def test_mlflow_knows_the_run(whole: tuple[Path, Result]) -> None:
    from mlflow import MlflowClient

    outputs, result = whole
    client = MlflowClient(f"sqlite:///{outputs / 'mlflow.db'}")
    run = client.get_run(result.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["run_id"] == result.run_id
    assert run.data.tags["run_id_short"] == result.run_id[:8]
    assert run.data.tags["scanner"] == "3T"
    assert run.data.tags["seed"] == "0"
    assert run.data.tags["fold"] == "0"
    assert {"dataset_version", "split_hash", "study", "arm", "experiment_type", "developer"} <= run.data.tags.keys()
    assert run.data.params["optimizer.lr"]
    assert run.data.params["model"] == "unet"
    assert client.search_runs([run.info.experiment_id], "params.model = 'unet'")
    said = run.data.tags["mlflow.note.content"]
    assert said.startswith("- **unet** with dice_ce, Muon, warmup_cosine; ")
    assert f"test: Dice {result.metrics['test_dice']:.4g}" in said
    for key in (
        "train_loss",
        "val_loss",
        "train_dice",
        "val_dice",
        "lr",
        "system/epoch_seconds",
        "system/samples_per_second",
        "system/memory_mib",
        "system/total_training_seconds",
        "system/best_epoch",
    ):
        assert key in run.data.metrics, key
    assert run.data.metrics["test_dice"] == pytest.approx(result.metrics["test_dice"])
    assert run.data.metrics["best_val_dice"] > 0
    steps = {key: [m.step for m in client.get_metric_history(result.run_id, key)] for key in run.data.metrics}
    assert steps["epoch"] == steps["val_dice"] == steps["train_dice"] == [4, 8], "the axis is the step"
    assert {4, 8} < set(steps["train_loss"]), "more than the epochs"
    assert steps["train_loss"] == steps["lr"]
    assert steps["test_dice"] == [8]
    there = {entry.path for entry in client.list_artifacts(result.run_id)}
    assert {"config", "models", "data", "plots", "predictions", "environment"} <= there
    assert run.inputs.dataset_inputs
    assert "MLFLOW_TRACKING_URI" not in os.environ, "a later run would go there"


def test_the_name_of_a_run_begins_with_what_tells_it_from_its_neighbours() -> None:
    chosen = {"model": "unetpp", "attention": "se", "scheduler": "poly"}
    trial: Any = SimpleNamespace(assignment=SimpleNamespace(number=7))
    names = [
        run_name(composed("data.fold=2", "seed=1"), chosen),
        run_name(composed("data.fold=2", "seed=1"), chosen, trial),
        run_name(composed("data.fold=2", "seed=1", "arm=squeezed"), chosen, trial),
    ]
    assert names == ["unetpp-se-poly-f2-s1", "t7 f2 s1 · unetpp-se-poly", "squeezed f2 s1 · unetpp-se-poly"]
    assert {choices(name) for name in names} == {choices("unetpp-se-poly-f2-s1-t7")} == {"unetpp-se-poly"}


def test_two_runs_never_share_a_folder(whole: tuple[Path, Result], tiny: Runner) -> None:
    outputs, first = whole
    before = {path: path.read_bytes() for path in first.predictions.iterdir()}
    second = tiny(*WHOLE, outputs=outputs)
    assert first.predictions != second.predictions
    assert {path: path.read_bytes() for path in first.predictions.iterdir()} == before
    assert same(weights(outputs, first.run_id), weights(outputs, second.run_id)), "the same seed gives the same weights"


def test_the_loss_falls(tiny: Runner, tmp_path: Path) -> None:
    length = ("trainer.max_epochs=4", "trainer.steps_per_epoch=8", "trainer.validate_every=4")
    result = tiny(*length, "optimizer.lr=0.003")
    losses = history(tmp_path, result)["train_loss"]
    assert losses.iloc[-1] < 0.9 * losses.iloc[0]


def test_a_loss_that_is_not_finite_names_step_and_cases(tiny: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    from seg import losses

    forward = losses.DeepSupervision.forward
    monkeypatch.setattr(losses.DeepSupervision, "forward", lambda *args: forward(*args) * float("nan"))
    with pytest.raises(SegError, match=r"nan at step 1, on the cases \w+"):
        tiny()


def test_a_processor_without_bf16_trains_in_fp32(tiny: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seg.engine.device._has_bf16", lambda _: False)
    result = tiny("trainer.precision=auto", "trainer.max_epochs=1")
    record = tmp_path / f"runs/run_{result.run_id[:8]}/record.jsonl"
    params = {
        key: v for line in record.read_text().splitlines() for key, v in json.loads(line).get("params", {}).items()
    }
    assert params["resolved.precision"] == "fp32"
    assert params["resolved.max_steps"] == params["resolved.steps_per_epoch"], "of one epoch"
    assert np.isfinite(result.metrics["val_loss"])


def test_lines_of_a_long_first_epoch_come_soon_and_then_each_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    monkeypatch.setattr("seg.engine.console.time", SimpleNamespace(monotonic=lambda: now[0]))
    caplog.set_level("INFO")
    display, said = Display(Budget(1000, None, 1000)), []
    for step in range(1, 81):  # four seconds each
        display.step(Progress(step=step), 0.5)
        said += [(now[0], record.message) for record in caplog.records]
        caplog.clear()
        now[0] += 4
    took, lines = [line for line in said if "about" in line[1]], [line for line in said if "about" not in line[1]]
    assert [time for time, _ in lines] == [0, 12, 32, 72, 132, 192, 252, 312]
    assert [time for time, _ in took] == [4]  # once, as soon as two steps are done
    assert "about 67 min for 1000 steps of 4 s, plus the validations; trainer.max_minutes=10" in took[0][1]


@pytest.mark.slow
def test_early_stopping_waits_for_validations(tiny: Runner, tmp_path: Path) -> None:
    wait = ("trainer.max_epochs=9", "trainer.validate_every=2", "trainer.early_stopping=2", "optimizer.lr=0.0")
    wait += ("trainer.steps_per_epoch=1",)
    result = tiny(*wait)  # nothing is learnt: the second validation is no better than the first
    assert history(tmp_path, result)["epoch"].iloc[-1] == 4


def test_two_dimensions(tiny: Runner) -> None:
    result = tiny("dims=2", "trainer.max_epochs=1", "data.batch_size=4")
    assert 0 <= result.metrics["test_dice"] <= 1


@pytest.mark.slow
def test_all_cases_but_the_test_part(tiny: Runner) -> None:
    result = tiny("data.fold=all", "trainer.max_epochs=1")
    assert "best_val_dice" not in result.metrics
    assert "test_dice" in result.metrics


@pytest.mark.slow
def test_minutes_are_kept(tiny: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = count(step=0.1)  # every look at it takes a tenth of a second
    monkeypatch.setattr("seg.engine.loop.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    result = tiny(
        "trainer.max_epochs=auto", "trainer.max_minutes=0.1", "trainer.steps_per_epoch=5", "trainer.validate_every=9"
    )
    assert result.metrics["total_training_seconds"] == pytest.approx(6, abs=0.3)
    rates = history(tmp_path, result)["lr"]
    assert rates.iloc[-1] < 0.1 * rates.max(), "the schedule spans the time"


CLOSED = """
import os, sys
end, begin = os.pipe()
os.close(end)
os.dup2(begin, 1)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.mark.slow
@pytest.mark.parametrize("stdout", ["ascii", "closed", "full"])
def test_whatever_becomes_of_stdout_a_finished_run_is_finished(
    phantom_root: Path, tmp_path: Path, cache: Path, stdout: str
) -> None:
    words = ["-m", "seg.train", *TINY, *arguments(phantom_root, tmp_path, cache), "trainer.max_epochs=1"]
    given = [sys.executable, *(["-c", CLOSED] if stdout == "closed" else []), *words]
    env = os.environ | ({"PYTHONIOENCODING": "ascii"} if stdout == "ascii" else {})
    with Path("/dev/full" if stdout == "full" else tmp_path / "said.txt").open("w") as out:
        done = subprocess.run(given, stdout=out, stderr=subprocess.PIPE, text=True, check=False, env=env)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    (state,) = tmp_path.glob("runs/*/state.json")
    assert json.loads(state.read_text())["status"] == "FINISHED"
    if stdout == "ascii":
        assert "predictions" in (tmp_path / "said.txt").read_text()


@pytest.mark.slow
def test_two_processes_train_as_one(phantom_root: Path, tmp_path: Path, cache: Path) -> None:
    common = [
        *TINY,
        *arguments(phantom_root, tmp_path, cache),
        "trainer.precision=fp32",
        "data.batch_size=4",
        "optimizer=adamw",
        "augmentation=light",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    one = command(*common, f"paths.outputs={tmp_path / 'one'}", env=environment)
    assert one.returncode == 0, one.stderr
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--standalone",
        "-m",
        "seg.train",
    ]
    two = subprocess.run(
        [*launch, *common, f"paths.outputs={tmp_path / 'two'}"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert two.returncode == 0, two.stderr
    folders = [list((tmp_path / name / "runs").iterdir()) for name in ("one", "two")]
    assert [len(found) for found in folders] == [1, 1], "only rank 0 writes"
    tables = [pd.read_csv(found[0] / "history.csv") for found in folders]
    np.testing.assert_allclose(tables[0]["train_loss"], tables[1]["train_loss"], rtol=1e-3)
    np.testing.assert_allclose(tables[0]["val_dice"], tables[1]["val_dice"], atol=5e-3)
