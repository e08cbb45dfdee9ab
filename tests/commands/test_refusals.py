"""Wrong input: exit code 2, one message with the rule and the fix, and nothing written."""

import shutil
from pathlib import Path

import pytest
from outside import Home


@pytest.fixture
def bare(tmp_path: Path) -> Home:
    return Home(tmp_path, tmp_path)


def refused(home: Home, verb: str, *arguments: str) -> str:
    done = home.seg(verb, *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("\nerror: ")
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trainer.max_epoch=3"], "trainer.max_epochs"),
        (["model=unetp"], "unetpp"),
        (["modle=unet"], "model"),
        (["trainer.accumulate=many"], "trainer.accumulate"),
        (["trainer.max_epochs=0.5"], "whole number"),
        (["data.fold=9"], "0 to 4"),
        (["data=folder"], "data.root"),
        (["resume=ffffffff"], "outputs"),
        (["experiments=mine"], "mine"),
        (["model=unet", "+model.chanels=3"], "model.channels"),
        (["trainer.max_steps=10", "trainer.max_minutes=1"], "max_minutes"),
    ],
)
def test_a_training_is_refused(bare: Home, arguments: list[str], words: str) -> None:
    said = refused(bare, "train", *arguments)
    assert words in said
    assert len(said.splitlines()) == 2, "the message is one line"
    assert not bare.outputs.exists()


@pytest.mark.parametrize(
    ("verb", "arguments", "words"),
    [
        ("runs", ["study=x"], "outputs"),
        ("runs", ["stuudy=x"], "study"),
        ("compare", [], "runs="),
        ("compare", ["runs=[ffffffff]"], "outputs"),
        ("clean", [], "keep=3"),
        ("sync", ["run=ffffffff"], "outputs"),
        ("report", [], "experiments="),
    ],
)
def test_another_verb_is_refused(bare: Home, verb: str, arguments: list[str], words: str) -> None:
    assert words in refused(bare, verb, *arguments)
    assert not bare.outputs.exists()


def test_every_fault_is_listed_at_once(bare: Home) -> None:
    said = refused(bare, "train", "trainer.validate_every=0", "inference.overlap=2", "seed=-1")
    assert "3 faults" in said
    assert all(key in said for key in ("trainer.validate_every", "inference.overlap", "seed"))


def test_a_study_without_m_is_refused(bare: Home) -> None:
    (bare.folder / "experiments").mkdir()
    (bare.folder / "experiments/mine.yaml").write_text(
        "# @package hydra.sweeper.study\nquestion: Which?\narms: {a: {}, b: {attention: se}}\n"
    )
    assert "-m" in refused(bare, "train", "experiments=mine")


def test_the_configuration_is_printed_and_nothing_else_happens(bare: Home) -> None:
    import yaml

    done = bare.seg("train", "--cfg=job", "model=unetpp", "scheduler=onecycle")
    assert done.returncode == 0
    content = yaml.safe_load(done.stdout)
    assert {"data", "model", "attention", "loss", "optimizer", "scheduler", "augmentation"} <= set(content)
    assert {"trainer", "inference", "predictions", "tracking", "paths", "seed", "dims", "study", "arm"} <= set(content)
    assert not bare.outputs.exists()


@pytest.mark.slow
def test_every_broken_file_is_named_before_training(home: Home) -> None:
    root = home.folder / "broken"
    shutil.copytree(home.shared / "phantom", root)
    images = sorted((root / "imagesTr").glob("*.nii.gz"))
    images[0].write_bytes(b"")
    images[1].unlink()
    images[2].write_bytes(b"not an image")
    said = refused(home, "train", "data=folder", f"data.root={root}")
    assert all(image.name in said for image in images[:3])
    assert not (home.outputs / "runs").exists()


@pytest.mark.slow
def test_check_trains_nothing(home: Home) -> None:
    done = home.train("check=true")
    assert done.returncode == 0, done.stderr
    assert "no fault found" in done.stderr
    assert not (home.outputs / "runs").exists()
    assert not (home.outputs / "mlflow.db").exists()
