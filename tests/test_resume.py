"""Runs that stop in every way, and go on as if they never had."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training import TINY, WHOLE, Runner, arguments, command, composed, history, same, series, weights, where

from seg.engine.resume import resumed
from seg.engine.run import Result
from seg.errors import ConfigError, DataError, InterruptedRunError
from seg.records.table import runs
from seg.train import train


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


@pytest.mark.parametrize("more", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_resumed_run_ends_bit_for_bit_as_the_uninterrupted(
    more: bool, whole: tuple[Path, Result], tiny: Runner, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (outputs, unbroken), epochs, settings = whole, 2, WHOLE
    if more:
        epochs, outputs = 3, tmp_path / "unbroken"
        settings += ("trainer.max_epochs=3", "model.dropout=0.2", "scheduler=adaptive", "trainer.accumulate=2")
        settings += ("trainer.precision=auto", "trainer.layout=auto")
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


@pytest.mark.slow
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
    (table,) = runs(tmp_path).to_dict("records")
    assert (table["status"], table["error"]) == ("KILLED", f"stopped after step {steps}")
    again = resume(tmp_path, cache)
    assert same(weights(outputs, unbroken.run_id), weights(tmp_path, again.run_id))
    for column in ("epoch", "step", "train_loss", "val_dice"):
        assert history(outputs, unbroken)[column].tolist() == history(tmp_path, again)[column].tolist()


@pytest.mark.slow
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


@pytest.mark.slow
def test_where_the_last_checkpoint_is_damaged_the_best_is_used_and_where_both_are_neither(
    whole: tuple[Path, Result],
    tiny: Runner,
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    outputs, unbroken = whole
    with monkeypatch.context() as patch:
        stopped_after(patch, 6)
        with pytest.raises(StopError):
            tiny(*WHOLE)
    best, last = sorted(tmp_path.glob("runs/*/checkpoints/*.pt"))
    sound = best.read_bytes()
    for path in (best, last):
        path.write_bytes(sound[: len(sound) // 2] + bytes(len(sound) // 2))
    with pytest.raises(DataError, match=r"last\.pt is damaged .*best\.pt is damaged .*remove .*checkpoints to begin"):
        resume(tmp_path, cache)
    best.write_bytes(sound)
    caplog.set_level("INFO")
    again = resume(tmp_path, cache)
    assert "The run continues from best.pt, after step 4." in caplog.text
    assert "resumed after step 4, epoch 1" in caplog.text
    assert same(weights(outputs, unbroken.run_id), weights(tmp_path, again.run_id))


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
    again = composed(f"resume={folder.name[4:]}", *where(tmp_path, cache))
    whole = (root / "dataset.json").read_text()
    content = json.loads(whole)
    content["training"] = content["training"][1:]
    (root / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="12 cases then, 11 now"):
        train(resumed(again, []), "tiny")
    (root / "dataset.json").write_text(whole)
    for part in ("imagesTr", "labelsTr"):  # two cases change places: the same files by other names
        one, two = sorted((root / part).glob("*.nii.gz"))[:2]
        one.rename(tmp_path / "kept")
        two.rename(one)
        (tmp_path / "kept").rename(two)
    with pytest.raises(ConfigError, match="12 cases then, 12 now"):
        train(resumed(again, []), "tiny")


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


def started(root: Path, outputs: Path, cache: Path, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "seg.train", *TINY, *arguments(root, outputs, cache), *overrides]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


LONG = ("trainer.max_epochs=30", "trainer.steps_per_epoch=4")  # long enough for a signal to come midway


@pytest.fixture(scope="module")
def long_run(phantom_root: Path, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, Result]:
    """The outputs and the result of a long run that nobody stops."""
    outputs = tmp_path_factory.mktemp("long")
    result = train(composed(*TINY, *LONG, *arguments(phantom_root, outputs, cache)), "long")
    assert result is not None
    return outputs, result


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_a_stopped_process_is_marked_and_resumes_to_the_same_end(
    name: str, phantom_root: Path, tmp_path: Path, cache: Path, long_run: tuple[Path, Result]
) -> None:
    from mlflow import MlflowClient

    outputs, unbroken = long_run
    stopped = tmp_path / "stopped"
    process = started(phantom_root, stopped, cache, *LONG, "tracking=mlflow")
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
        assert run.data.tags["error"].startswith("stopped after step")
        assert re.search(rf"seg\.train resume={run.info.run_id[:8]}", said)
    done = command(f"resume={folder.name.removeprefix('run_')}", f"paths.outputs={stopped}", f"paths.cache={cache}")
    assert done.returncode == 0, done.stderr
    assert same(weights(outputs, unbroken.run_id), weights(stopped, run.info.run_id))
    assert client.get_run(run.info.run_id).info.status == "FINISHED"
    assert len(list((stopped / "predictions").iterdir())) == 1
    finished = command(f"resume={folder.name.removeprefix('run_')}", f"paths.outputs={stopped}")
    assert finished.returncode == 2
    assert "finished" in finished.stderr
