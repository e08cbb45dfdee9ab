"""Masks of new scans: as the run's own, one bad scan stops no other, and what is finished stays."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from seg.config.command import read
from seg.config.options import CONF
from seg.deploy import Predictor, predict_together
from seg.deploy.maps import Maps
from seg.deploy.predictor import compute
from seg.deploy.report import read_report, unfinished, write_report
from seg.errors import ConfigError, SegError
from seg.files import sha256
from seg.predict import main


@pytest.fixture
def predict(whole: tuple[Path, Any], tmp_path: Path) -> Callable[..., Path]:
    """The command on the run; gives the folder of the masks."""
    outputs, result = whole

    def command(*arguments: str) -> Path:
        text = (CONF / "predict.yaml").read_text() + "paths:\n  outputs: outputs\n"
        given = [f"paths.outputs={outputs}", f"output={tmp_path / 'masks'}", *arguments]
        if not any(argument.startswith(("run=", "package=")) for argument in arguments):
            given.append(f"run={result.run_id}")
        main(read(text, given))
        return tmp_path / "masks"

    return command


@pytest.fixture
def scans(whole: tuple[Path, Any], phantom_root: Path, tmp_path: Path) -> Path:
    """The run's own test images, in a folder."""
    place = tmp_path / "scans"
    place.mkdir()
    for mask in whole[1].predictions.glob("*.nii.gz"):
        shutil.copy(phantom_root / "imagesTr" / mask.name, place)
    return place


def rows(masks: Path) -> dict[str, dict[str, Any]]:
    return {row["case"]: row for row in json.loads((masks / "report.json").read_text())["scans"]}


def test_masks_are_those_of_the_run_and_are_reported(
    predict: Callable[..., Path], scans: Path, whole: tuple[Path, Any]
) -> None:
    masks = predict(f"input={scans}")
    expected = sorted(whole[1].predictions.glob("*.nii.gz"))
    assert len(expected) > 1
    for mask in expected:
        assert (masks / mask.name).read_bytes() == mask.read_bytes()
    table = [*csv.DictReader((masks / "report.csv").read_text().splitlines())]
    assert [row["case"] for row in table] == [mask.name.removesuffix(".nii.gz") for mask in expected]
    for row in table:
        assert row["status"] == "finished"
        assert float(row["volume_ml_lobe"]) == pytest.approx(rows(masks)[row["case"]]["volumes_ml"]["lobe"])


def test_a_row_of_the_report_has_its_form(predict: Callable[..., Path], scans: Path) -> None:
    first, second = sorted(scans.iterdir())[:2]
    second.write_bytes(b"")
    with pytest.raises(SegError, match="1 of"):
        predict(f"input={scans}")
    masks = scans.parent / "masks"
    content = json.loads((masks / "report.json").read_text())
    assert content.keys() == {"format", "scans"}
    assert content["format"] == 2
    good, bad = (rows(masks)[path.name.removesuffix(".nii.gz")] for path in (first, second))
    assert good.keys() == bad.keys()
    assert (good["status"], bad["status"]) == ("finished", "failed")
    assert (good["error"], good["mask"], bad["mask"]) == ("", first.name, "")
    assert second.name in bad["error"]
    assert 0 <= (datetime.now(UTC) - datetime.fromisoformat(good["time"])).total_seconds() < 600
    for row in (good, bad):
        assert [*row["stages"]] == ["reading", "computing", "writing"]
        assert row["seconds"] == pytest.approx(sum(row["stages"].values()))
        assert row["peak_mb"] > 50
    assert bad["scan"] == {"shape": [], "spacing_mm": [], "intensity": []}
    image, mask = nib.load(first), np.asarray(nib.load(masks / first.name).dataobj)
    assert sorted(good["scan"]["shape"]) == sorted(image.shape)
    assert sorted(good["scan"]["spacing_mm"]) == pytest.approx(sorted(image.header.get_zooms()))
    expected = np.percentile(image.get_fdata()[mask > 0], [1, 25, 50, 75, 99])
    np.testing.assert_allclose(good["scan"]["intensity"], [expected], atol=0.05 * np.ptp(expected))
    assert good["confidence"].keys() == {name for name, volume in good["volumes_ml"].items() if volume}
    assert all(1 / 3 <= value <= 1 for value in good["confidence"].values())
    assert good["risk"] in ("low", "medium", "high")
    assert all(len(interval) == 3 for interval in good["expected_dice"].values())


def test_a_report_of_an_earlier_form_is_not_used(predict: Callable[..., Path], scans: Path) -> None:
    image = min(scans.iterdir())
    report = predict(f"input={image}") / "report.json"
    content = json.loads(report.read_text())
    content["scans"][0]["volumes_ml"] = {}
    report.write_text(json.dumps(content | {"format": 1}))
    assert all(row["volumes_ml"] for row in rows(predict(f"input={image}")).values())
    assert json.loads(report.with_name("report.json.old").read_text())["format"] == 1, "and is kept"


def test_a_bad_scan_fails_alone_and_is_tried_again(predict: Callable[..., Path], scans: Path, tmp_path: Path) -> None:
    bad = min(scans.iterdir())
    content = bad.read_bytes()
    bad.write_bytes(content[: len(content) // 2])
    name = bad.name.removesuffix(".nii.gz")
    with pytest.raises(SegError, match=f"1 of .* scans failed: {name}") as error:
        predict(f"input={scans}")
    assert error.value.exit_code == 1
    masks = tmp_path / "masks"
    assert rows(masks)[name]["status"] == "failed"
    assert bad.name in rows(masks)[name]["error"]
    assert not (masks / bad.name).exists()
    others = {path: path.stat().st_mtime_ns for path in masks.glob("*.nii.gz")}
    assert len(others) == len([*scans.iterdir()]) - 1
    bad.write_bytes(content)
    predict(f"input={scans}")
    assert {row["status"] for row in rows(masks).values()} == {"finished"}
    assert {path: path.stat().st_mtime_ns for path in others} == others  # what was finished is as it was


def test_a_scan_that_fails_again_is_no_new_arrival(
    predict: Callable[..., Path], scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = sorted(scans.iterdir())[:2]

    def failed_at(time: str, content: bytes) -> str:
        bad.write_bytes(content)
        monkeypatch.setattr("seg.deploy.worklist.now", lambda: time)
        with pytest.raises(SegError, match="1 of"):
            predict(f"input={scans}")
        return str(rows(scans.parent / "masks")[bad.name.removesuffix(".nii.gz")]["time"])

    assert failed_at("2026-10-01T01:00:00+00:00", b"") == "2026-10-01T01:00:00+00:00"
    assert failed_at("2026-10-02T01:00:00+00:00", b"") == "2026-10-01T01:00:00+00:00"
    assert failed_at("2026-10-03T01:00:00+00:00", b"other") == "2026-10-03T01:00:00+00:00", "another file of that name"
    bad.write_bytes(good.read_bytes())
    predict(f"input={scans}")
    assert rows(scans.parent / "masks")[good.name.removesuffix(".nii.gz")]["time"] == "2026-10-01T01:00:00+00:00"


@pytest.mark.slow
def test_what_changed_is_predicted_again(predict: Callable[..., Path], scans: Path) -> None:
    first, second = sorted(scans.iterdir())[:2]
    masks = predict(f"input={scans}")
    before = rows(masks)
    shutil.copy(second, first)
    (masks / second.name).write_bytes(b"")
    predict(f"input={scans}")
    names = [path.name.removesuffix(".nii.gz") for path in (first, second)]
    after = rows(masks)
    assert after[names[0]]["volumes_ml"] == after[names[1]]["volumes_ml"] == before[names[1]]["volumes_ml"]
    assert after[names[1]]["mask_sha256"] == before[names[1]]["mask_sha256"]


def test_a_damaged_report_costs_time_and_nothing_else(predict: Callable[..., Path], scans: Path) -> None:
    masks = predict(f"input={min(scans.iterdir())}")
    before = rows(masks)
    (masks / "report.json").write_text("null")
    assert {**rows(predict(f"input={min(scans.iterdir())}")), "seconds": 0}.keys() == {**before, "seconds": 0}.keys()


def test_rows_that_another_process_writes_meanwhile_stay(
    predict: Callable[..., Path], scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def beside_another(*arguments: Any) -> Any:
        masks = scans.parent / "masks"
        write_report(masks, read_report(masks) | {"other": unfinished("other", by="run_b2c3d4e5@f")})
        return compute(*arguments)

    monkeypatch.setattr("seg.deploy.worklist.compute", beside_another)
    masks = predict(f"input={scans}")
    assert rows(masks).keys() == {"other", *(path.name.removesuffix(".nii.gz") for path in scans.iterdir())}


def test_masks_never_take_the_place_of_scans(predict: Callable[..., Path], scans: Path) -> None:
    before = {path: path.read_bytes() for path in scans.iterdir()}
    with pytest.raises(ConfigError, match="take the place of scans"):
        predict(f"input={scans}", f"output={scans}")
    first, second = (path.name for path in sorted(scans.iterdir())[:2])
    table = scans.parent / "table.csv"
    crossed = [(first, f"scans/{second}"), (second, f"scans/{first}")]
    table.write_text("case,image\n" + "".join(f"{case.removesuffix('.nii.gz')},{image}\n" for case, image in crossed))
    with pytest.raises(ConfigError, match="take the place of scans"):
        predict(f"input={table}", f"output={scans}")
    with pytest.raises(ConfigError, match=r"is a file\. Set output"):
        predict(f"input={scans}", f"output={next(scans.iterdir())}")
    assert {path: path.read_bytes() for path in scans.iterdir()} == before


def test_files_that_no_prediction_made_are_not_overwritten(predict: Callable[..., Path], scans: Path) -> None:
    labels = scans.parent / "masks"
    labels.mkdir()
    for scan in scans.iterdir():
        (labels / scan.name).write_bytes(b"drawn by hand")
    with pytest.raises(ConfigError, match=r"and no report of a prediction: .*overwrite=true"):
        predict(f"input={scans}")
    assert {path.read_bytes() for path in labels.iterdir()} == {b"drawn by hand"}


def test_other_weights_of_the_same_run_predict_again(
    predict: Callable[..., Path], scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = min(scans.iterdir())
    first = rows(masks := predict(f"input={scan}"))
    assert rows(predict(f"input={scan}")) == first, "finished already"
    monkeypatch.setattr("seg.deploy.package.sha256", lambda _: 64 * "f")  # as of a run that was continued
    (again,), (before,) = rows(predict(f"input={scan}")).values(), first.values()
    assert again["package"].partition("@")[0] == before["package"].partition("@")[0]
    assert again["package"] != before["package"]
    scan.write_bytes(b"")
    with pytest.raises(SegError, match="1 of"):
        predict(f"input={scan}")
    assert not (masks / scan.name).exists(), "a mask of the scan as it was"


@pytest.mark.parametrize("missing", ["input=null", "output=null", "run=null"])
def test_a_command_that_is_not_whole_says_what_it_needs(
    predict: Callable[..., Path], missing: str, scans: Path
) -> None:
    given = [f"input={scans}", "run=abc", missing]
    with pytest.raises(ConfigError, match="Give a network, scans and a folder"):
        predict(*given)


def test_of_two_kinds_of_network_one_is_left_out(predict: Callable[..., Path], scans: Path) -> None:
    with pytest.raises(ConfigError, match="run and package are both given"):
        predict(f"input={scans}", "run=abc", "package=x.zip")


def test_several_networks_predict_by_their_mean_probability(
    whole: tuple[Path, Any], scans: Path, tmp_path: Path
) -> None:
    outputs, result = whole
    one = Predictor.load(outputs / "runs" / result.predictions.name)
    image = min(scans.iterdir())
    alone = one(image)
    np.testing.assert_array_equal(predict_together([one, one], image).mask, alone.mask)
    other = Predictor.load(outputs / "runs" / result.predictions.name)
    for parameter in other.network.parameters():
        parameter.requires_grad_(False).zero_()  # every class equally likely: the other one decides
    np.testing.assert_array_equal(predict_together([other, one], image).mask, alone.mask)
    assert (other(image).mask == 0).all()


@pytest.mark.slow
def test_networks_of_other_spacings_predict_together(whole: tuple[Path, Any], scans: Path, tmp_path: Path) -> None:
    outputs, result = whole
    one, image = Predictor.load(outputs / "runs" / result.predictions.name), min(scans.iterdir())
    plan = one.package.plan
    coarser = replace(plan, spacing_mm=tuple(1.5 * mm for mm in plan.spacing_mm))
    replace(one.package, plan=coarser).store(tmp_path / "coarser.zip")
    other = Predictor.load(tmp_path / "coarser.zip")
    together = predict_together([one, other], image)
    assert together.mask.shape == nib.load(image).shape
    assert not together.expected_dice
    assert together.no_promise.endswith("never scored together")
    for parameter in other.network.parameters():
        parameter.requires_grad_(False).zero_()  # every class equally likely: the first one decides
    np.testing.assert_array_equal(predict_together([one, other], image).mask, one(image).mask)


def oblique(scan: Path, place: Path) -> None:
    """The scan with its axes in another order and direction, and a border of zeros, which is cropped away."""
    image = nib.load(scan)
    padded = np.pad(np.asarray(image.dataobj), [(0, 0), (3, 2), (0, 4)])
    turned = nib.Nifti1Image(padded, image.affine).as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))
    nib.save(turned, place)


def test_probabilities_are_on_the_grid_of_the_scan(predict: Callable[..., Path], scans: Path, tmp_path: Path) -> None:
    scan = tmp_path / "turned.nii.gz"
    oblique(min(scans.iterdir()), scan)
    masks = predict(f"input={scan}", "probabilities=true")
    mask, image = nib.load(masks / scan.name), nib.load(masks / "probabilities" / scan.name)
    np.testing.assert_allclose(image.affine, nib.load(scan).affine, atol=1e-5)
    assert image.shape == (*mask.shape, 3)
    probabilities, classes = image.get_fdata(), np.asarray(mask.dataobj)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=0.01)
    strongest = probabilities.argmax(-1)
    clear = np.diff(np.sort(probabilities, -1))[..., -1] > 0.01  # no tie by rounding
    np.testing.assert_array_equal(strongest[clear], classes[clear])
    (row,) = rows(masks).values()
    for k, name in enumerate(("lobe", "tail"), 1):
        assert probabilities[classes == k, k].mean() == pytest.approx(row["confidence"][name], abs=0.01)
    before = (masks / scan.name).read_bytes()
    (masks / "probabilities" / scan.name).unlink()
    predict(f"input={scan}", "probabilities=true")  # made again, since it is missing
    assert (masks / "probabilities" / scan.name).exists()
    assert (masks / scan.name).read_bytes() == before
    predict(f"input={scan}", "overwrite=true")
    assert (masks / "probabilities" / scan.name).exists(), "of the same network and scan"
    assert (masks / scan.name).read_bytes() == before  # the same mask, whether its probabilities are written or not
    oblique(max(scans.parent.joinpath("scans").iterdir()), scan)
    predict(f"input={scan}")
    assert not (masks / "probabilities" / scan.name).exists(), "of the scan as it was"


@pytest.mark.slow
def test_networks_that_say_the_same_do_not_disagree(
    whole: tuple[Path, Any], predict: Callable[..., Path], scans: Path, tmp_path: Path
) -> None:
    outputs, result = whole
    scan = min(scans.iterdir())
    both = f"run=[{result.run_id},{result.run_id}]"
    masks = predict(f"input={scan}", both, "disagreement=true")
    assert np.abs(nib.load(masks / "disagreement" / scan.name).get_fdata()).max() < 1e-5
    with pytest.raises(ConfigError, match="needs several networks"):
        predict(f"input={scan}", "disagreement=true")
    one, other = (Predictor.load(outputs / "runs" / result.predictions.name) for _ in range(2))
    for parameter in other.network.parameters():
        parameter.requires_grad_(False).zero_()  # every class equally likely
    maps = Maps(tmp_path / "mean.nii.gz", tmp_path / "disagreement.nii.gz")
    predict_together([one, other], scan, maps=maps)
    first = 2 * nib.load(maps.wanted[0]).get_fdata() - 1 / 3  # the mean of it and one third
    mean = (first.clip(1e-9) + 1 / 3) / 2
    expected = -(mean * np.log(mean)).sum(-1) + (first * np.log(first.clip(1e-9))).sum(-1) / 2 - np.log(3) / 2
    np.testing.assert_allclose(nib.load(maps.wanted[1]).get_fdata(), expected.clip(0), atol=0.02)


def test_a_package_does_as_well(
    predict: Callable[..., Path], scans: Path, whole: tuple[Path, Any], tmp_path: Path
) -> None:
    outputs, result = whole
    Predictor.load(outputs / "runs" / result.predictions.name).store(tmp_path / "model.zip")
    image = min(scans.iterdir())
    masks = predict(f"package={tmp_path / 'model.zip'}", f"input={image}")
    assert (masks / image.name).read_bytes() == (whole[1].predictions / image.name).read_bytes()


@pytest.mark.slow
def test_ctrl_c_leaves_whole_masks_and_a_true_report(whole: tuple[Path, Any], scans: Path, tmp_path: Path) -> None:
    outputs, result = whole
    originals = sorted(scans.iterdir())
    for number in range(60):
        shutil.copy(originals[number % len(originals)], scans / f"more_{number:02}.nii.gz")
    given = [f"paths.outputs={outputs}", f"run={result.run_id}", f"input={scans}", f"output={tmp_path / 'masks'}"]
    command = [sys.executable, "-m", "seg.predict", *given]
    masks = tmp_path / "masks"
    # Where the tests run in the background Ctrl-C is ignored, and a child would inherit that.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heard) as process:  # noqa: PLW1509
        while process.poll() is None and not ((masks / "report.json").exists() and rows(masks)):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert "stopped" in said
    assert "Traceback" not in said
    written = rows(masks)
    assert 0 < len(written) < len([*scans.iterdir()])
    assert {path.name for path in masks.iterdir()} == {row["mask"] for row in written.values()} | {
        "report.json",
        "report.csv",
        ".lock",
    }
    for row in written.values():
        assert sha256(masks / row["mask"]) == row["mask_sha256"]
    before = {row["mask"]: (masks / row["mask"]).stat().st_mtime_ns for row in written.values()}
    subprocess.run(command, check=True, capture_output=True)
    assert {row["status"] for row in rows(masks).values()} == {"finished"}
    assert len(rows(masks)) == len([*scans.iterdir()])
    assert {name: (masks / name).stat().st_mtime_ns for name in before} == before
