"""What differs between two runs, as overrides that do lead from one to the other, and what else does."""

import json
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from composing import composed
from omegaconf import OmegaConf

from seg import runs as verb
from seg.config.content import flat, plain
from seg.config.options import OPTIONS
from seg.records.opening import open_record
from seg.records.record import Record

ONE = ["model=unet", "model.channels=[8,16,32,64]", "optimizer=adamw", "optimizer.lr=0.01", "attention=se", "seed=1"]
TWO = [
    "model=unetpp",
    "optimizer=muon",
    "optimizer.lr=0.05",
    "data.name='my set, 2'",
    "trainer.clip_norm=null",
    "study=b",
]


def options(overrides: Sequence[str]) -> dict[str, str]:
    usual = {"model": "unet", "attention": "none", "loss": "dice_ce", "optimizer": "muon"}
    usual |= {"scheduler": "warmup_cosine", "augmentation": "light", "data": "phantom"}
    given = dict(override.split("=", 1) for override in overrides)
    return {group: given.get(group, usual[group]) for group in OPTIONS}


def made(outputs: Path, overrides: Sequence[str], kind: str = "none", **tags: str) -> Record:
    """The record of a run of these overrides, as the engine leaves it at its start."""
    tracker = open_record(kind, outputs=outputs, uri=None, experiment="phantom/a", run_name=overrides[0])
    cfg = composed(*overrides)
    tracker.set_tags(
        {"git_commit": "a" * 40, "dataset_version": "d" * 64, "environment": "host, Linux, Python 3"} | tags
    )
    tracker.log_params(flat(plain(cfg)) | {"resolved.device": "cpu"} | options(overrides))
    split = {"train": ["c1", "c2"], "val": [], "test": ["c3"] if kind == "none" else ["c4"]}
    files = {
        "config/config.yaml": OmegaConf.to_yaml(OmegaConf.create(plain(cfg))),
        "environment/packages.txt": f"numpy==2.0\ntorch==2.1{len(overrides)}\n",
        "data/split.json": json.dumps(split),
    }
    for name, content in files.items():
        path = tracker.folders.run / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        tracker.log_artifact(path, path.parent.name)
    tracker.finish("FINISHED")
    return tracker


def printed(capsys: pytest.CaptureFixture[str], outputs: Path, one: str, other: str) -> dict[str, str]:
    """What the verb says, by the words that each line begins with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["seg.runs", f"diff=[{one},{other}]", f"paths.outputs={outputs}"])
        verb.run()
    _, *lines = capsys.readouterr().out.strip().splitlines()
    split = [line.strip().partition("  ") for line in lines]
    return {what: text.strip() for what, _, text in split}


def reached(start: Sequence[str], said: dict[str, str]) -> dict[str, Any]:
    """The configuration of a command, once what was said is appended, and what shall be left out is left out."""
    keys = {override.partition("=")[0]: override for override in start}
    for text in shlex.split(said.get("leave out", "")):
        keys.pop(text.partition("=")[0])
    for text in shlex.split(said["overrides"]) + shlex.split(said.get("without effect", "")):
        keys[text.partition("=")[0]] = text
    return flat(plain(composed(*keys.values())))


@pytest.mark.parametrize(("start", "end"), [(ONE, TWO), (TWO, ONE), (["seed=0"], TWO), (ONE, ["attention=cbam"])])
def test_the_overrides_lead_from_one_run_to_the_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], start: list[str], end: list[str]
) -> None:
    runs = [made(tmp_path, overrides).folders.short for overrides in (start, end)]
    said = printed(capsys, tmp_path, *runs)
    assert reached(start, said) == flat(plain(composed(*end)))


def test_an_option_is_said_instead_of_its_twenty_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [made(tmp_path, overrides).folders.short for overrides in (["seed=1"], ["model=unetpp", "attention=cbam"])]
    said = printed(capsys, tmp_path, *runs)
    assert said["overrides"] == "model=unetpp attention=cbam seed=0"
    assert "leave out" not in said


def test_what_else_differs_stands_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], empty_database: Path
) -> None:
    """One of the runs is in MLflow only."""
    shutil.copy(empty_database, tmp_path)
    one = made(tmp_path, ["seed=0"]).folders.short
    tracker = made(tmp_path, ["seed=0", "study=b"], "mlflow", git_commit="b" * 40, git_dirty="true")
    shutil.rmtree(tracker.folders.run)
    said = printed(capsys, tmp_path, one, tracker.run_id)
    assert said["overrides"] == "none: what may change a score is the same"
    assert said["without effect"] == "study=b"
    assert said["code"] == "aaaaaaaa → bbbbbbbb with changes"
    assert said["packages"] == "torch 2.11 → 2.12"
    assert said["split"] == "2 cases in other parts"
    assert said["the same"] == "data, machine, resolved"


def test_a_run_whose_options_are_not_known_differs_key_by_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of an earlier version, or with an option that has been removed since."""
    runs = [made(tmp_path, overrides).folders for overrides in (["seed=0"], ["optimizer.lr=0.5"])]
    for folder in runs:
        journal = folder.run / "record.jsonl"
        journal.write_text(journal.read_text().replace('"optimizer": "muon"', '"optimizer": "gone"'))
    assert printed(capsys, tmp_path, *(folder.short for folder in runs))["overrides"] == "optimizer.lr=0.5"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["diff=[a1b2]"], "diff names 1; it compares two runs"),
        (["diff=[a1b2,c3d4]"], "Run a1b2 is not known"),
        (["diff=[a1b2,c3d4]", "sort=seed", "arm=x"], "arm would be ignored beside diff"),
    ],
)
def test_what_cannot_be_compared_is_said(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.setattr("sys.argv", ["seg.runs", *arguments, f"paths.outputs={tmp_path}"])
    with pytest.raises(SystemExit) as ended:
        verb.run()
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
