"""``python -m seg.train`` from outside: what is refused, what is checked, what is printed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cloudpickle
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from omegaconf import DictConfig, OmegaConf
from training import arguments, command, composed

from seg import train as verb
from seg.config.compose import entry
from seg.config.options import CONF
from seg.config.schema import check
from seg.errors import ConfigError
from seg.train import train


def refused_here(capfd: pytest.CaptureFixture[str], *overrides: str) -> tuple[int, str]:
    """Exit code and standard error of the command, run in this process, which has imported everything already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["seg.train", *overrides])
        with pytest.raises(SystemExit) as ended:
            verb.run()
    return int(str(ended.value.code)), capfd.readouterr().err


def test_wrong_input_ends_a_process_with_2_and_the_fix(tmp_path: Path) -> None:
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
def test_wrong_input_ends_with_2_and_the_fix(
    overrides: list[str], words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, printed = refused_here(capfd, *overrides, f"paths.outputs={tmp_path}")
    assert code == 2, printed
    assert words in printed
    assert "Traceback" not in printed
    assert printed.count("error:") == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# @package _global_\nmodel: {chanels: [8]}", "experiments=mine sets 'model.chanels'"),
        ("# @package _global_\ntrainer: {accumulate: lots}", "trainer.accumulate is 'lots'"),
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
    code, printed = refused_here(capfd, "experiments=mine")
    assert code == 2, printed
    assert words in printed
    assert "Traceback" not in printed


def test_what_only_hydras_own_start_does_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "local/default.yaml").write_text(
        "# @package _global_\nseed: 5\nhydra: {job: {env_set: {SEG_PLACE: here}}}"
    )
    seen: list[object] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["seg.train", "tracking.tags.scanner=3T", "data.name=12e45678", "study=it's [1]"])
    entry(
        "train",
        lambda cfg: seen.extend([os.environ["SEG_PLACE"], cfg.seed, cfg.tracking.tags, cfg.data.name, cfg.study]),
    )()
    assert seen == ["here", 5, {"scanner": "3T"}, "12e45678", "it's [1]"]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("trainer.max_epoch=3", "'trainer.max_epochs'"),  # refused by Hydra
        ("+optimizer.lrr=3", "'optimizer.lr'"),  # refused by us
        ("optimizer=adamw optimizer.beta=3", "'optimizer.betas'"),
    ],
)
def test_a_wrong_key_is_refused_after_one_composition(wrong: str, right: str) -> None:
    code = (
        "from hydra._internal.config_loader_impl import ConfigLoaderImpl as Loader\n"
        "compose = Loader._load_configuration_impl\n"
        "def counted(*args, **options):\n    print('composed')\n    return compose(*args, **options)\n"
        "Loader._load_configuration_impl = counted\n"
        "from seg.train import run\nrun()"
    )
    done = subprocess.run([sys.executable, "-c", code, *wrong.split()], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (2, ["composed"])
    assert right in done.stderr


def test_what_is_kept_of_a_composition_is_nobodys_to_change() -> None:
    first = composed("model=unetpp", "seed=5")
    OmegaConf.set_struct(first, False)
    first.model.clear()
    second, third = composed("model=unetpp", "seed=6"), composed("model=unetpp", "+tracking.tags.a=1")
    assert (second.seed, third.seed, third.tracking.tags.a) == (6, 0, 1)
    assert second.model == third.model != {}
    assert OmegaConf.is_struct(second)
    assert "a" not in composed("model=unetpp").tracking.tags


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
    code, printed = refused_here(
        capfd, "data=folder", f"data.root={root}", f"paths.outputs={tmp_path / 'out'}", "check=true"
    )
    assert code == 2, printed
    for image in images[:3]:
        assert image.name in printed
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("model", sorted(path.stem for path in (CONF / "model").glob("*.yaml")))
def test_every_model_takes_the_automatic_patch(
    model: str, dims: int, phantom_root: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seg.engine.foresight.end_check", lambda *_: None)  # what comes after it was built
    chosen = [f"model={model}", f"dims={dims}", *arguments(phantom_root, tmp_path, cache)]
    assert train(composed(*chosen, "check=true"), model) is None


def test_check_finds_what_cannot_be_built(phantom_root: Path, tmp_path: Path) -> None:
    chosen = ["data=folder", f"data.root={phantom_root}", f"paths.outputs={tmp_path}", "check=true"]
    with pytest.raises(ConfigError, match=r"33×33×33.*data\.patch=\[40, 40, 40\]"):
        train(composed(*chosen, "data.patch=[33,33,33]"), "x")
    with pytest.raises(ConfigError, match="cannot take a patch"):
        train(composed(*chosen, "attention=cbam", "attention.kernel_size=6"), "x")


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


@pytest.mark.parametrize("recipe", ["experiments=hippocampus", "data=phantom"])
def test_a_trial_in_seconds_suits_every_recipe(recipe: str) -> None:
    cfg = composed(recipe, "debug=fast", "data.root=here")
    assert cfg.trainer.max_epochs == 2
    check(cfg)


def test_launchers_can_pickle_what_each_job_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks: list[Callable[[DictConfig], float | None]] = []
    monkeypatch.setattr("seg.config.compose._started", lambda root, task, flags, settings: tasks.append(task))
    monkeypatch.setattr(sys, "argv", ["seg.train", "-m", "seed=1"])
    entry("train", lambda cfg: float(cfg.seed))()
    task = cloudpickle.loads(cloudpickle.dumps(tasks[0]))  # as submitit does
    assert task(OmegaConf.create({"seed": 3})) == 3.0
