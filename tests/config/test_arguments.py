"""Wrong command lines: exit code 2, one message with what was seen and what to write, never a traceback."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from seg import train
from seg.config.arguments import quoted
from seg.config.compose import entry, sweeping

# what is typed → words of the one message, which are the rule and the fix
TRAIN = {
    "model=null": "There is no model=null. The options of model are",
    "model=5": "There is no model=5.",
    "model=": "There is no model=",
    "model=unetp": "Did you mean 'unetpp'?",
    "trainer=x y": "The options of trainer are default",
    "~model": "model has no _target_",
    "~trainer": "error: The section trainer is missing",
    "model@x=unet": "Write model=unet",
    "modle=unet": "There is no key 'modle'. Did you mean 'model'?",
    "seeed=3": "Did you mean 'seed'?",
    "lr=1": "Did you mean 'optimizer.lr'?",
    "trainer.max_epoch=3": "Did you mean 'trainer.max_epochs'?",
    "+trainer.max_epoch=3": "Did you mean 'trainer.max_epochs'?",
    "model.channels.x=5": "Did you mean 'model.channels'?",
    "model.channels.0=a": "model.channels is",
    "model=null optimizer.lrr=1 modle=3": "3 faults",
    "model=a,b": "has several values, and one run takes one. Add -m",
    "model=unet,unetpp seed=1,2": "2 faults",
    "study=a,b": "'study=\"a,b\"'",
    "seed=range(3)": "Add -m",
    "foo": "'foo' is not of the form key=value",
    "trainer.max_steps": "'trainer.max_steps' is not of the form key=value",
    "=3": "'=3' is not of the form key=value",
    "+": "'+' is not of the form key=value",
    "seed=[1": "'seed=[1' cannot be read",
    "optimizer.lr=(": "cannot be read",
    "--foo": "There is no flag --foo",
    "--cgf=job": "Did you mean '--cfg'?",
    "--cfg=jobs": "--cfg job, hydra or all",
    "--resolve": "only work with --cfg",
    "--package=trainer": "only work with --cfg",
    "--cfg=job model=null": "There is no model=null.",
    "--cfg=job modle=unet": "Did you mean 'model'?",
    "--config-dir=nowhere seed=1": "There is no folder",
    "--config-dir=. model=unetp": "Did you mean 'unetpp'?",
    "--config-name=other": "There is no flag --config-name",
    "hydra.sweeper.n_trialz=3": "Did you mean 'hydra.sweeper.n_trials'?",
    "hydra.sweeper.seeed=3 model=unetp": "2 faults",
    "hydra.x=3": "There is no key 'hydra.x'",
    "hydra/launcher=foo": "The options of hydra/launcher are",
    "~hydra.x": "hydra.x",
    "attention.where=encoder": "would be ignored under attention=none",
    "attention=none attention.where=encoder": "would be ignored under attention=none",
    "attention=se attention.where=middle": "attention.where is 'middle'",
    "++data.cases=null": "data.cases has no _target_",
    "++model._target_=null": "model has no _target_",
    "++loss=5": "loss",
    "trainer.max_epochs=": "trainer.max_epochs is ''",
    "allow_targets=mine": "allow_targets is 'mine'; it must be a list",
    "experiments=mine": "has no folder experiments",
    "experiments=null": "experiments",
    "resume=ffffffff trainer.max_steps=3": "paths.outputs=",
    "seed=${oc.env:SEG_NO_SUCH_VARIABLE}": "SEG_NO_SUCH_VARIABLE",
    "seed=${nothing}": "nothing",
    "seed=${": "cannot be read",
    "data.root=${x": "cannot be read",
    "tracking.tags=3": "tracking.tags",
    "-m": "",
    "-m modle=1,2 trainer.max_epoch=3,4": "2 faults",
    "-m trainer.max_epoch=3 optimizer.lrr=1,2": "trainer.max_epoch",
    "-m model=unet,unetp": "There is no model=unetp.",
    "-m model=unet,null": "There is no model=null.",
    "-m hydra.sweeper.n_trialz=3 seed=1,2": "Did you mean 'hydra.sweeper.n_trials'?",
    "-m seed=1,": "seed=1,",
    "-m hydra.sweeper.seed=1,2": "hydra.sweeper.seed",
    "-m seed=x,y": "seed is 'x'",
    "-m --cfg job": "-m and --cfg cannot be given together. Leave one out.",
}  # fmt: skip


def said(run: Any, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", ["seg", *arguments])
    monkeypatch.setattr(train, "train", lambda *_: pytest.fail("it was not refused"))
    with pytest.raises(SystemExit) as ended:
        run()
    printed = capfd.readouterr().err
    assert (ended.value.code, printed.count("error:"), "Traceback" in printed) == (2, 1, False), printed
    return printed


@pytest.mark.parametrize("typed", [typed for typed in TRAIN if typed != "-m"])
def test_a_wrong_training_is_refused_in_one_message(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [typed] if typed == "trainer=x y" else typed.split()
    assert TRAIN[typed] in said(train.run, arguments, monkeypatch, capfd)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("verb", "typed", "words"),
    [
        ("runs", "stuudy=x", "Did you mean 'study'?"),
        ("runs", "study", "'study' is not of the form key=value"),
        ("runs", "reverse=perhaps topp=3", "2 faults"),
        ("runs", "--cfg", "'--cfg' is not of the form key=value"),
        ("runs", "=", "There is no key ''"),
        ("compare", "", "runs="),
        ("compare", "runs=[] window=3 channel=-1", "3 faults"),
        ("clean", "keep=x", "paths.outputs="),
        ("report", "", "experiments="),
        ("score", "device=cpu", "data.root="),
        ("sync", "run=ffffffff", "paths.outputs="),
        ("sync", "tracking.url=x", "Did you mean 'tracking.uri'?"),
        ("runs", "paths.outputs=${oc.env:SEG_NO_SUCH_VARIABLE}", "SEG_NO_SUCH_VARIABLE"),
    ],
)
def test_another_wrong_command_is_refused_in_one_message(
    verb: str,
    typed: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    run = importlib.import_module(f"seg.{verb}").run
    assert words in said(run, typed.split(), monkeypatch, capfd)


BROKEN = {
    "not YAML": "# @package _global_\ntrainer: {max_steps: 3",
    "tabs": "# @package _global_\ntrainer:\n\tmax_steps: 3",
    "a list": "- 1\n- 2",
    "a text": "hello",
    "another group": "# @package _global_\ndefaults: [{override /model: unetp}]",
    "no such file": "# @package _global_\ndefaults: [mine]",
    "itself": "# @package _global_\ndefaults: [theirs]",
    "a wrong key": "# @package _global_\ntrainer: {max_step: 3}",
    "a section's text": "# @package _global_\ntrainer: 5",
    "nothing there": "# @package _global_\nseed: ${nothing}",
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize(
    ("flag", "place"), [([], "experiments/theirs"), (["-m"], "local/default")], ids=["study", "machine"]
)
def test_a_broken_file_is_refused_in_one_message(
    kind: str,
    flag: list[str],
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / place).parent.mkdir()
    (tmp_path / f"{place}.yaml").write_text(BROKEN[kind])
    monkeypatch.chdir(tmp_path)
    wrong = ["modle=unet"] if kind == "not YAML" else []
    chosen = ["experiments=theirs"] if place.startswith("experiments") else []
    printed = said(train.run, [*flag, *chosen, *wrong], monkeypatch, capfd)
    if wrong:
        assert all(words in printed for words in ("2 faults", "Did you mean 'model'?", "A YAML file cannot be read"))


@pytest.mark.parametrize("verb", ["runs", "sync", "compare"])
def test_a_broken_file_of_this_machine_is_refused_by_every_command(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "local/default.yaml").write_text(BROKEN["not YAML"])
    monkeypatch.chdir(tmp_path)
    assert "local/default.yaml" in said(importlib.import_module(f"seg.{verb}").run, [], monkeypatch, capfd)


@pytest.mark.parametrize("several", ["model=glob(*)", "model=interval(0,1)"])
def test_several_options_by_a_pattern_hide_no_other_fault(
    several: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = said(train.run, ["-m", several, "hydra.sweeper.n_trialz=3"], monkeypatch, capfd)
    assert "Did you mean 'hydra.sweeper.n_trials'?" in printed


@pytest.mark.parametrize("given", ["null", "my_package", "[my_package]"])
def test_targets_of_this_machine_may_be_none_or_one(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "local/default.yaml").write_text(f"allow_targets: {given}\n")
    monkeypatch.chdir(tmp_path)
    assert "Give a network" in said(
        importlib.import_module("seg.predict").run, ["input=x", "output=y"], monkeypatch, capfd
    )


PLACES = (
    *("/data/O'Brien", "/a, b/c", "/a,b", "my scans [1]", 'it\'s "x"', "C:\\scans\\", "x\\'y", "'s", '"', "(a)"),
    *("a=b", "a: b", "{a}", "$x", "%d", "ä ö", "a#b", "*", "12e45678", "true", "null_", "~x", "a~/b", "@home", "!x"),
)


@pytest.mark.parametrize("place", PLACES)
def test_a_path_is_what_was_typed(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert seen([f"data.root={place}"], tmp_path, monkeypatch).data.root == place


def test_home_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert seen(["data.root=~/scans"], tmp_path, monkeypatch).data.root == "/home/ann/scans"


def seen(arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The configuration that a training is given."""
    got: list[Any] = []
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["seg.train", *arguments])
    entry("train", got.append)()
    return got[0]


def test_quotes_of_the_user_stay() -> None:
    assert quoted("data.root='a, b'") == "data.root='a, b'"
    assert quoted("data.root=/a,/b", many=True) == "data.root=/a,/b"


@pytest.mark.parametrize("asked", [[0, 3], {"start": 2, "most": 4}])
@pytest.mark.parametrize("shipped", ["[0, 1]", "{start: 3, most: 6}"])
def test_seeds_of_either_kind_replace_those_of_a_studys_file(
    asked: object, shipped: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    text = f"# @package hydra.sweeper.study\nquestion: Why?\narms: {{a: {{}}}}\nseeds: {shipped}\n"
    (tmp_path / "experiments/own.yaml").write_text(text)
    typed = json.dumps(asked).replace('"', "")
    with sweeping("train", ["experiments=own", f"hydra.sweeper.study.seeds={typed}"]) as (_, _, _, cfg):
        assert cfg.hydra.sweeper.study.seeds == asked
