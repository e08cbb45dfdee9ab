"""``python -m seg.score``: a finished run on other labelled cases."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from omegaconf import DictConfig, OmegaConf

from seg import score
from seg.config.command import read
from seg.config.options import CONF
from seg.data.cases import CaseSet
from seg.deploy import Predictor
from seg.deploy.scoring import suits
from seg.errors import ConfigError, DataError


@pytest.fixture
def outputs(whole: tuple[Path, Any], tmp_path: Path) -> Path:
    run = whole[1].predictions.name
    shutil.copytree(whole[0] / "runs" / run, tmp_path / "outputs/runs" / run)
    return tmp_path / "outputs"


def config(outputs: Path, whole: tuple[Path, Any], root: Path | None, **more: Any) -> DictConfig:
    data = {"root": None if root is None else str(root), "name": None, "patient": None}
    paths = {"outputs": str(outputs), "cache": str(outputs / "cache")}
    content = {
        "run": whole[1].run_id[:8],
        "data": data,
        "pred": None,
        "ref": None,
        "device": "auto",
        "masks": True,
        "paths": paths,
    }
    return OmegaConf.create(content | more)


def test_the_scores_of_the_test_cases_are_the_runs_own(
    outputs: Path, whole: tuple[Path, Any], phantom_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    score.main(config(outputs, whole, phantom_root))
    place = outputs / "scores" / whole[1].predictions.name / "phantom"
    table = pd.read_csv(place / "cases.csv")
    own = pd.read_csv(outputs / "runs" / whole[1].predictions.name / "data/cases.csv")
    assert table["case"].nunique() == 12
    same = table[table["case"].isin(own["case"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(same[list(own)], own)
    for case in set(own["case"]):
        assert (place / f"{case}.nii.gz").read_bytes() == (whole[1].predictions / f"{case}.nii.gz").read_bytes()
    assert "mean of classes" in capsys.readouterr().out


@pytest.fixture
def untested(outputs: Path, whole: tuple[Path, Any]) -> Path:
    """The run as a trial of a search leaves it: trained, and not tested."""
    run = outputs / "runs" / whole[1].predictions.name
    cfg = OmegaConf.load(run / "config/config.yaml")
    cfg.inference.part = "none"
    OmegaConf.save(cfg, run / "config/config.yaml")
    (run / "data/cases.csv").write_text((run / "data/cases.csv").read_text().partition("\n")[0] + "\n")
    return run


def test_a_run_that_was_not_tested_is_tested_on_its_own_test_part(
    untested: Path, outputs: Path, whole: tuple[Path, Any]
) -> None:
    state = json.loads((untested / "state.json").read_text())
    (untested / "state.json").write_text(json.dumps(state | {"kind": "none"}))  # it is no run of the server's
    score.main(config(outputs, whole, None))
    table = pd.read_csv(outputs / "scores" / untested.name / "test/cases.csv")
    pd.testing.assert_frame_equal(table, pd.read_csv(whole[0] / "runs" / untested.name / "data/cases.csv"))
    reports = [json.loads(line) for line in (untested / "record.jsonl").read_text().splitlines()]
    assert reports[-1]["metrics"]["test_dice"] == pytest.approx(whole[1].metrics["test_dice"])


def test_a_test_that_was_interrupted_is_made_again_and_reaches_the_record(
    untested: Path, outputs: Path, whole: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = json.loads((untested / "state.json").read_text())
    (untested / "state.json").write_text(json.dumps(state | {"kind": "none"}))

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("seg.records.readings.note_reading", interrupted)
        with pytest.raises(KeyboardInterrupt):
            score.main(config(outputs, whole, None))
    score.main(config(outputs, whole, None))
    assert '"test_dice"' in (untested / "record.jsonl").read_text().splitlines()[-1]
    assert whole[1].run_id in (outputs / "readings.jsonl").read_text()


def test_a_test_part_that_changed_is_refused(
    untested: Path, outputs: Path, whole: tuple[Path, Any], phantom_root: Path, tmp_path: Path
) -> None:
    other = tmp_path / "changed"
    shutil.copytree(phantom_root, other)
    split = json.loads((untested / "data/split.json").read_text())
    first, second = split["test"][:2]
    for part in ("imagesTr", "labelsTr"):  # the other patient under this name
        one, two = (other / part / f"{name}.nii.gz" for name in (first, second))
        one.rename(tmp_path / "kept.nii.gz")
        two.rename(one)
        (tmp_path / "kept.nii.gz").rename(two)
    cfg = OmegaConf.load(untested / "config/config.yaml")
    cfg.data.root = str(other)
    cfg.data.cases = {"_target_": "seg.data.cases.folder"}
    OmegaConf.save(cfg, untested / "config/config.yaml")
    with pytest.raises(DataError, match=f"changed since the run began: {first}, {second}"):
        score.main(config(outputs, whole, None))


def test_a_run_that_tested_itself_is_not_tested_again(outputs: Path, whole: tuple[Path, Any]) -> None:
    with pytest.raises(ConfigError, match="was tested on it already; its scores are in"):
        score.main(config(outputs, whole, None))


def test_a_run_that_was_stopped_is_continued_first(untested: Path, outputs: Path, whole: tuple[Path, Any]) -> None:
    (untested / "summary.json").unlink()
    with pytest.raises(ConfigError, match=rf"seg\.train resume={whole[1].run_id[:8]} paths\.outputs="):
        score.main(config(outputs, whole, None))


def relabelled(phantom_root: Path, root: Path, labels: dict[str, str]) -> Path:
    """A copy of the phantom whose classes are called otherwise."""
    shutil.copytree(phantom_root, root)
    content = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps(content | {"labels": labels}))
    return root


@pytest.mark.slow
def test_classes_are_matched_by_name(
    outputs: Path, whole: tuple[Path, Any], phantom_root: Path, tmp_path: Path
) -> None:
    root = relabelled(phantom_root, tmp_path / "other", {"0": "background", "1": "tail", "2": "lobe"})
    score.main(config(outputs, whole, root, masks=False))
    table = pd.read_csv(outputs / "scores" / whole[1].predictions.name / "other" / "cases.csv")
    assert list(table["class"][:2]) == ["lobe", "tail"]
    assert not list((outputs / "scores").rglob("*.nii.gz"))
    own = pd.read_csv(outputs / "runs" / whole[1].predictions.name / "data/cases.csv")
    merged = table.merge(own, on=["case", "class"])
    assert (merged["dice_x"] != merged["dice_y"]).any(), "the label's values mean the other class there"


def test_data_without_a_class_of_the_network_are_refused(
    outputs: Path, whole: tuple[Path, Any], phantom_root: Path, tmp_path: Path
) -> None:
    root = relabelled(phantom_root, tmp_path / "other", {"0": "background", "1": "lobe", "2": "tumour"})
    with pytest.raises(DataError, match=r"lobe, tumour; the network has lobe, tail.*Name tail"):
        score.main(config(outputs, whole, root))


def test_channels_of_another_place_are_refused(whole: tuple[Path, Any]) -> None:
    predictor = Predictor.load(whole[0] / "runs" / whole[1].predictions.name)
    two = replace(predictor, package=replace(predictor.package, channels=("T1", "T2")))
    for channels in (("t2", "FLAIR"), ("T2", "T1")):
        with pytest.raises(DataError, match=rf"{channels[0]}, {channels[1]}; the network was trained on T1, T2\. List"):
            suits(CaseSet("other", (), channels, predictor.classes), two)
    for channels in (("T1w", "T2w"), ("t1", "FLAIR")):
        suits(CaseSet("other", (), channels, predictor.classes), two)


def test_healthy_controls_are_scored(
    outputs: Path, whole: tuple[Path, Any], phantom_root: Path, tmp_path: Path
) -> None:
    root = tmp_path / "healthy"
    for part in ("imagesTr", "labelsTr"):
        (root / part).mkdir(parents=True)
    shutil.copy(phantom_root / "imagesTr/phantom_000.nii.gz", root / "imagesTr")
    label = nib.load(phantom_root / "labelsTr/phantom_000.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros(label.shape, np.uint8), label.affine), root / "labelsTr/phantom_000.nii.gz")
    labels = json.loads((phantom_root / "dataset.json").read_text())["labels"]
    (root / "dataset.json").write_text(json.dumps({"labels": labels, "channel_names": {"0": "T1"}}))
    score.main(config(outputs, whole, root))
    table = pd.read_csv(outputs / "scores" / whole[1].predictions.name / "healthy/cases.csv")
    mask = nib.load(outputs / "scores" / whole[1].predictions.name / "healthy/phantom_000.nii.gz").get_fdata()
    assert [*table["class"]] == ["lobe", "tail"]
    assert [*table["false"]] == [(mask == 1).any(), (mask == 2).any()]


def test_a_run_is_asked_for(outputs: Path, whole: tuple[Path, Any]) -> None:
    with pytest.raises(ConfigError, match=r"run=a1b2c3d4 data\.root="):
        score.main(config(outputs, whole, None, run=None))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {"nsd_tolerance_mm": 3.0, "classes": ["lobe"]},
            r"classes has no effect on a run, which has its own\. .*\s.*nsd_tol",
        ),
        ({"run": None, "pred": "a", "ref": "b", "masks": False}, "masks has no effect on masks of a tool"),
    ],
)
def test_what_would_have_no_effect_is_refused(
    outputs: Path, whole: tuple[Path, Any], phantom_root: Path, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        score.main(config(outputs, whole, None if "pred" in more else phantom_root, **more))


@pytest.mark.parametrize("given", ["abc", "-1", "nan"])
def test_a_tolerance_is_a_length(given: str, tmp_path: Path) -> None:
    text = (CONF / "score.yaml").read_text() + "paths:\n  outputs: outputs\n"
    with pytest.raises(ConfigError, match=f"nsd_tolerance_mm is {given}; it must be a number of mm, 0 or more"):
        score.main(read(text, [f"pred={tmp_path}", f"ref={tmp_path}", f"nsd_tolerance_mm={given}"]))
    with pytest.raises(DataError):  # of the folder, which holds no mask
        score.main(read(text, [f"pred={tmp_path}", f"ref={tmp_path}", "nsd_tolerance_mm=2"]))


def test_names_of_other_data_have_no_effect_on_the_test_part(outputs: Path, whole: tuple[Path, Any]) -> None:
    asked = config(outputs, whole, None)
    asked.data.patient = "^(.)"
    with pytest.raises(ConfigError, match=r"data\.patient has no effect on a run's own test part"):
        score.main(asked)


def test_a_data_set_may_be_called_anything_and_stays_in_its_folder(
    outputs: Path, whole: tuple[Path, Any], phantom_root: Path
) -> None:
    cfg = config(outputs, whole, phantom_root, masks=False)
    cfg.data.name = ".."
    score.main(cfg)
    assert (outputs / "scores" / whole[1].predictions.name / "data" / "cases.csv").exists()


def test_cases_of_the_training_are_named_and_data_sets_of_one_name_are_kept_apart(
    outputs: Path, whole: tuple[Path, Any], phantom_root: Path, tmp_path: Path, caplog: Any, capsys: Any
) -> None:
    run = outputs / "runs" / whole[1].predictions.name
    split = json.loads((run / "data/split.json").read_text())
    for place, ids in (("a/test", split["train"][:1]), ("b/test", split["test"][:1])):
        for part in ("imagesTr", "labelsTr"):
            (tmp_path / place / part).mkdir(parents=True)
            for case in ids:
                shutil.copy(phantom_root / part / f"{case}.nii.gz", tmp_path / place / part / f"scan_{case}.nii.gz")
        content = json.loads((phantom_root / "dataset.json").read_text())
        about = {"labels": content["labels"], "channel_names": {"0": "T1"}}
        (tmp_path / place / "dataset.json").write_text(json.dumps(about))
        score.main(config(outputs, whole, tmp_path / place))
        told = f"The run was trained on, or chosen by, 1 case of these: scan_{ids[0]}" in caplog.text
        assert told == (place == "a/test")
        assert ("Training scores of 1 cases" in capsys.readouterr().out) == told
        caplog.clear()
    kept = sorted(path.parent.name for path in (outputs / "scores" / run.name).glob("*/cases.csv"))
    assert len(kept) == 2
    assert all(name.startswith("test-") for name in kept), "the run's own test part has a place of its own"
