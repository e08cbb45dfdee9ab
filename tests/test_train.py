"""Whole runs, tiny: their files, tags and scores; stopped and resumed; failed; side by side."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from composing import composed as as_hydra_does
from omegaconf import DictConfig

from seg import train as verb
from seg.cli import quoted
from seg.config import CONF
from seg.console import Display
from seg.engine.loop import Budget, Progress
from seg.errors import ConfigError, DataError, InterruptedRunError, SegError
from seg.run import Result
from seg.tested import choices
from seg.train import resumed, run_name, train

Runner = Callable[..., Result]
TINY = (
    "debug=fast",
    "tracking=none",
    "model.channels=[8,16,32]",
    "model.strides=[2,2]",
    "trainer.workers=0",
    "data.folds=3",
    "predictions.dpi=72",
)
WHOLE = ("trainer.ema=0.9", "tracking.every_steps=3")


def composed(*overrides: str) -> DictConfig:
    return as_hydra_does(*map(quoted, overrides))


def arguments(root: Path, outputs: Path, cache: Path) -> list[str]:
    return ["data=folder", f"data.root={root}", f"paths.outputs={outputs}", f"paths.cache={cache}"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def tiny(phantom_root: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """Trains, and draws no curves: those of one run are enough."""
    monkeypatch.setattr("seg.record.curves", lambda *_: [])

    def run(*overrides: str, name: str = "tiny", outputs: Path = tmp_path) -> Result:
        result = train(composed(*TINY, *arguments(phantom_root, outputs, cache), *overrides), name)
        assert result is not None
        return result

    return run


def weights(outputs: Path, run_id: str) -> dict[str, torch.Tensor]:
    (path,) = outputs.glob(f"runs/run_{run_id[:8]}/checkpoints/last.pt")
    return dict(torch.load(path, weights_only=True)["network"])


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="module")
def whole(phantom_root: Path, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, Result]:
    """One run of two epochs with everything on, MLflow too; the one that resumed runs must end as."""
    outputs = tmp_path_factory.mktemp("outputs")
    overrides = [*TINY, *arguments(phantom_root, outputs, cache), *WHOLE]
    result = train(
        composed(*overrides, "tracking=mlflow", "+tracking.tags.scanner=3T"), "unet-f0-s0", options={"model": "unet"}
    )
    assert result is not None
    return outputs, result


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


class StopError(Exception):
    """The power went off."""


def stopped_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    from seg.engine import loop

    gradients, done = loop._gradients, [0]

    def counted(*args: Any) -> tuple[float, str | None]:
        if done[0] == steps:
            raise StopError
        done[0] += 1
        return gradients(*args)

    monkeypatch.setattr(loop, "_gradients", counted)


def resume(outputs: Path, cache: Path) -> Result:
    """Goes on with the only run there."""
    (folder,) = (outputs / "runs").iterdir()
    cfg = composed(f"resume={folder.name.removeprefix('run_')}", *where(outputs, cache))
    again = train(resumed(cfg, []), "as this command would name one")
    assert again is not None
    assert again.predictions.name == folder.name
    assert json.loads((folder / "state.json").read_text())["name"] == "tiny"
    return again


def history(outputs: Path, run: Result) -> pd.DataFrame:
    return pd.read_csv(outputs / f"runs/run_{run.run_id[:8]}/history.csv")


def series(outputs: Path, run: Result, metric: str) -> list[tuple[int, float]]:
    """What a run reported of ``metric``: steps and values."""
    record = (outputs / f"runs/run_{run.run_id[:8]}/record.jsonl").read_text()
    reports = map(json.loads, record.splitlines())
    return [(r["step"], r["metrics"][metric]) for r in reports if metric in r.get("metrics", ())]


@pytest.mark.parametrize("more", [False, True])
def test_a_resumed_run_ends_bit_for_bit_as_the_uninterrupted(
    more: bool, whole: tuple[Path, Result], tiny: Runner, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (outputs, unbroken), epochs, settings = whole, 2, WHOLE
    if more:
        epochs, outputs = 3, tmp_path / "unbroken"
        settings += ("trainer.max_epochs=3", "model.dropout=0.2", "scheduler=adaptive", "trainer.accumulate=2")
        unbroken = tiny(*settings, outputs=outputs)
    elsewhere = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        stopped_after(patch, 6)  # in the second epoch of four steps
        with pytest.raises(StopError):
            tiny(*settings, outputs=elsewhere)
    again = resume(elsewhere, cache)
    assert same(weights(outputs, unbroken.run_id), weights(elsewhere, again.run_id))
    assert history(outputs, unbroken)["val_dice"].tolist() == history(elsewhere, again)["val_dice"].tolist()
    points = series(outputs, unbroken, "train_loss")
    assert [step for step, _ in points] == [3, 4, 6, 8, 9, 12][: 2 * epochs]
    assert series(elsewhere, again, "train_loss") == points, "none doubled, none lost"
    assert series(elsewhere, again, "epoch") == [(4, 1), (8, 2), (12, 3)][:epochs]


def test_a_loss_that_is_not_finite_names_step_and_cases(tiny: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    from seg import losses

    forward = losses.DeepSupervision.forward
    monkeypatch.setattr(losses.DeepSupervision, "forward", lambda *args: forward(*args) * float("nan"))
    with pytest.raises(SegError, match=r"nan at step 1, on the cases \w+"):
        tiny()


def test_a_full_disk_is_told_as_one_and_leaves_no_half_written_checkpoint(
    tiny: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    from seg.engine import checkpoint

    save = checkpoint.save

    def on_a_small_disk(path: Path, training: Any) -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        try:
            save(path, training)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, ignored)

    monkeypatch.setattr(checkpoint, "save", on_a_small_disk)
    with pytest.raises(OSError, match="File too large"):
        tiny()
    assert not list((tmp_path / "runs").rglob("checkpoints/*"))


@pytest.mark.parametrize("steps", [4, 8])
def test_a_run_interrupted_at_the_end_of_an_epoch_loses_nothing_of_it(
    steps: int, whole: tuple[Path, Result], tiny: Runner, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seg.engine import loop

    outputs, unbroken = whole  # two epochs of four steps
    update = loop._update

    def interrupting(training: Any, *args: Any) -> None:
        if training.progress.step + 2 == steps:
            os.kill(os.getpid(), signal.SIGTERM)  # the step under way is finished, and the next one ends the epoch
        update(training, *args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_update", interrupting)
        with pytest.raises(InterruptedRunError, match=f"step {steps}"):
            tiny(*WHOLE)
    again = resume(tmp_path, cache)
    assert same(weights(outputs, unbroken.run_id), weights(tmp_path, again.run_id))
    for column in ("epoch", "step", "train_loss", "val_dice"):
        assert history(outputs, unbroken)[column].tolist() == history(tmp_path, again)[column].tolist()


def where(outputs: Path, cache: Path) -> list[str]:
    return [f"paths.outputs={outputs}", f"paths.cache={cache}"]


def test_a_run_does_not_go_on_with_other_data(
    phantom_root: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data"
    shutil.copytree(phantom_root, root)
    with monkeypatch.context() as patch:
        stopped_after(patch, 5)
        with pytest.raises(StopError):
            train(composed(*TINY, *arguments(root, tmp_path, cache)), "tiny")
    (folder,) = (tmp_path / "runs").iterdir()
    content = json.loads((root / "dataset.json").read_text())
    content["training"] = content["training"][1:]
    (root / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="12 cases then, 11 now"):
        train(resumed(composed(f"resume={folder.name[4:]}", *where(tmp_path, cache)), []), "tiny")


def test_a_run_stopped_before_its_first_checkpoint_begins_again_as_the_same_run(
    whole: tuple[Path, Result], tiny: Runner, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs, unbroken = whole
    with monkeypatch.context() as patch:
        stopped_after(patch, 2)
        with pytest.raises(StopError):
            tiny(*WHOLE)
    again = resume(tmp_path, cache)
    assert same(weights(outputs, unbroken.run_id), weights(tmp_path, again.run_id))


def test_lines_of_a_long_first_epoch_come_soon_and_then_each_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    monkeypatch.setattr("seg.console.time", SimpleNamespace(monotonic=lambda: now[0]))
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
    assert "about 67 min for 1000 steps of 4 s, and the validations; trainer.max_minutes=10" in took[0][1]


def test_early_stopping_waits_for_validations(tiny: Runner, tmp_path: Path) -> None:
    wait = ("trainer.max_epochs=9", "trainer.validate_every=2", "trainer.early_stopping=2", "optimizer.lr=0.0")
    result = tiny(*wait)  # nothing is learnt: the second validation is no better than the first
    assert history(tmp_path, result)["epoch"].iloc[-1] == 4


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("model", sorted(path.stem for path in (CONF / "model").glob("*.yaml")))
def test_every_model_takes_the_automatic_patch(
    model: str, dims: int, phantom_root: Path, tmp_path: Path, cache: Path
) -> None:
    chosen = [f"model={model}", f"dims={dims}", *arguments(phantom_root, tmp_path, cache)]
    assert train(composed(*chosen, "check=true"), model) is None


def test_check_finds_what_cannot_be_built(phantom_root: Path, tmp_path: Path) -> None:
    chosen = ["data=folder", f"data.root={phantom_root}", f"paths.outputs={tmp_path}", "check=true"]
    with pytest.raises(ConfigError, match=r"33×33×33.*data\.patch=\[40, 40, 40\]"):
        train(composed(*chosen, "data.patch=[33,33,33]"), "x")
    with pytest.raises(ConfigError, match="cannot take a patch"):
        train(composed(*chosen, "attention=cbam", "attention.kernel_size=6"), "x")


def test_two_dimensions(tiny: Runner) -> None:
    result = tiny("dims=2", "trainer.max_epochs=1", "data.batch_size=4")
    assert 0 <= result.metrics["test_dice"] <= 1


def test_all_cases_but_the_test_part(tiny: Runner) -> None:
    result = tiny("data.fold=all", "trainer.max_epochs=1")
    assert "best_val_dice" not in result.metrics
    assert "test_dice" in result.metrics


def test_minutes_are_kept(tiny: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = count(step=0.1)  # every look at it takes a tenth of a second
    monkeypatch.setattr("seg.engine.loop.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    result = tiny(
        "trainer.max_epochs=auto", "trainer.max_minutes=0.1", "trainer.steps_per_epoch=5", "trainer.validate_every=9"
    )
    assert result.metrics["total_training_seconds"] == pytest.approx(6, abs=0.3)
    rates = history(tmp_path, result)["lr"]
    assert rates.iloc[-1] < 0.1 * rates.max(), "the schedule spans the time"


def command(*overrides: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "seg.train", *overrides], capture_output=True, text=True, check=False, **settings
    )


def said_here(capfd: pytest.CaptureFixture[str], *overrides: str) -> tuple[int, str]:
    """Exit code and standard error of the command, run in this process, which has imported everything already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["seg.train", *overrides])
        with pytest.raises(SystemExit) as ended:
            verb.run()
    return int(str(ended.value.code)), capfd.readouterr().err


def test_wrong_input_ends_a_process_with_2_and_the_mending(tmp_path: Path) -> None:
    done = command("trainer.max_epoch=3", f"paths.outputs={tmp_path}")
    assert done.returncode == 2
    assert done.stderr.startswith("\nerror: ")
    assert "trainer.max_epochs" in done.stderr
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["trainer.max_epoch=3"], "trainer.max_epochs"),
        (["model=unetp"], "unetpp"),
        (["trainer.accumulate=many"], "trainer.accumulate"),
        (["modle=unet"], "model"),
        (["data.fold=9"], "0 to 4"),
        (["data=folder"], "data.root"),
        (["data=hippocampus", "data.root=/nowhere"], "medicaldecathlon"),
        (["resume=ffffffff"], "ffffffff"),
        (["experiments=mine"], "mine"),
        (["trainer.max_epochs=0.5"], "whole number"),
        (["model=unet", "+model.chanels=3"], "model.channels"),
    ],
)
def test_wrong_input_ends_with_2_and_the_mending(
    overrides: list[str], words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, said = said_here(capfd, *overrides, f"paths.outputs={tmp_path}")
    assert code == 2, said
    assert words in said
    assert "Traceback" not in said
    assert said.count("error:") == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# @package _global_\nmodel: {chanels: [8]}", "experiments=mine sets 'model.chanels'"),
        ("# @package _global_\ntrainer: {accumulate: lots}", "could not be converted to Integer"),
        ("# @package _global_\ntrainer: {accumulate: 2", "mine.yaml"),
        ("trainer: {accumulate: 2}", "# @package _global_"),
    ],
)
def test_a_wrong_study_file_is_named(
    text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/mine.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    code, said = said_here(capfd, "experiments=mine")
    assert code == 2, said
    assert words in said
    assert "Traceback" not in said


def test_check_lists_every_fault_of_the_data(
    phantom_root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "broken"
    shutil.copytree(phantom_root, root)
    images = sorted((root / "imagesTr").glob("*.nii.gz"))
    images[0].write_bytes(b"")
    images[1].unlink()
    bad = nib.load(images[2])
    data = np.asarray(bad.dataobj).astype(np.float32)
    data[3, 3, 3] = np.nan
    nib.save(nib.Nifti1Image(data, bad.affine), images[2])
    code, said = said_here(capfd, "data=folder", f"data.root={root}", f"paths.outputs={tmp_path / 'out'}", "check=true")
    assert code == 2, said
    for image in images[:3]:
        assert image.name in said
    assert not (tmp_path / "out" / "runs").exists()


def started(root: Path, outputs: Path, cache: Path, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "seg.train", *TINY, *arguments(root, outputs, cache), *overrides]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_a_stopped_process_is_marked_and_resumes_to_the_same_end(
    name: str, phantom_root: Path, tmp_path: Path, cache: Path, tiny: Runner
) -> None:
    from mlflow import MlflowClient

    length = ("tracking=mlflow", "trainer.max_epochs=30", "trainer.steps_per_epoch=4")
    whole = tiny(*length, "tracking=none", outputs=tmp_path / "whole")
    stopped = tmp_path / "stopped"
    process = started(phantom_root, stopped, cache, *length)
    until(lambda: bool(list(stopped.glob("runs/*/checkpoints/last.pt"))))
    time.sleep(0.5)
    process.send_signal(getattr(signal, name))
    _, said = process.communicate(timeout=60)
    (folder,) = (stopped / "runs").iterdir()
    client = MlflowClient(f"sqlite:///{stopped / 'mlflow.db'}")
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    if name == "SIGKILL":
        assert run.info.status == "RUNNING"
    else:
        assert process.returncode == 1
        assert run.info.status == "KILLED"
        assert re.search(rf"seg\.train resume={run.info.run_id[:8]}", said)
    done = command(f"resume={folder.name.removeprefix('run_')}", f"paths.outputs={stopped}", f"paths.cache={cache}")
    assert done.returncode == 0, done.stderr
    assert same(weights(tmp_path / "whole", whole.run_id), weights(stopped, run.info.run_id))
    assert client.get_run(run.info.run_id).info.status == "FINISHED"
    assert len(list((stopped / "predictions").iterdir())) == 1
    finished = command(f"resume={folder.name.removeprefix('run_')}", f"paths.outputs={stopped}")
    assert finished.returncode == 2
    assert "finished" in finished.stderr


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


@pytest.mark.slow
def test_debug_fast_goes_through_everything(tmp_path: Path) -> None:
    done = command("debug=fast", f"paths.outputs={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "mean of classes" in done.stdout
    assert "mlflow" in done.stdout


@pytest.mark.slow
def test_real_scans_are_learnt(hippocampus_root: Path, tmp_path: Path) -> None:
    where = ("data=hippocampus", f"data.root={hippocampus_root}", f"paths.outputs={tmp_path}", "tracking=none")
    done = command(*where, "trainer.max_steps=60", "trainer.validate_every=2", "predictions.dpi=100")
    assert done.returncode == 0, done.stderr
    (table,) = tmp_path.glob("runs/*/data/cases.csv")
    assert pd.read_csv(table)["dice"].mean() > 0.6


def test_an_unreadable_checkpoint_is_said_so(tmp_path: Path) -> None:
    from seg.engine.checkpoint import read

    (tmp_path / "last.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(DataError, match=r"last\.pt"):
        read(tmp_path / "last.pt")
