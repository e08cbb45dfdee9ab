"""A study with leaks is refused before its first run, unless its file allows each by name; its readers learn of it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from test_design import FILE, run
from test_sweeper import Sweeps

from seg.study.question import Asked


@pytest.fixture
def sweeps(tmp_path: Path, phantom_root: Path) -> Iterator[Sweeps]:
    """On the phantom, of which one image is there again: mirrored, brighter, by the name of a patient's other scan."""
    root = tmp_path / "data"
    shutil.copytree(phantom_root, root)
    for kind in ("imagesTr", "labelsTr"):
        volume = nib.load(root / kind / "phantom_004.nii.gz")
        voxels = np.asarray(volume.dataobj)[::-1] * (3 if kind == "imagesTr" else 1)
        nib.save(nib.Nifti1Image(voxels, volume.affine), root / kind / "phantom_004b.nii.gz")
        (root / kind / "phantom_004.nii.gz").rename(root / kind / "phantom_004a.nii.gz")
    (root / "dataset.json").unlink()
    yield (sweeps := Sweeps(tmp_path, root))
    sweeps.end()


@pytest.mark.slow
def test_a_leak_is_refused_until_it_is_allowed_by_name(sweeps: Sweeps) -> None:
    said = run(sweeps, code=2)
    assert "phantom_004a=phantom_004b: the same image, mirrored, twice (correlation of the details 1.00)" in said
    assert "allow_leaks: [phantom_004a=phantom_004b]" in said
    assert "data.patient" in said
    assert not sweeps.acts
    assert run(sweeps, "check=true", code=2).count("phantom_004a=phantom_004b: the same") == 1
    run(sweeps, file=FILE + "allow_leaks: [phantom_004a=phantom_004b]\n")
    assert len(sweeps.acts) == 2
    allowed, names = Asked.read(sweeps.folder).leaks
    assert "The study allows a leak: phantom_004a=phantom_004b: the same image, mirrored" in allowed
    assert "may be of one patient by their names: phantom_004a, phantom_004b" in names
    assert json.loads((sweeps.folder / "study.json").read_text())["leaks"] == [allowed, names]


def test_what_is_allowed_must_be_there(sweeps: Sweeps) -> None:
    said = run(sweeps, "data.patient='^(phantom_\\d+)'", file=FILE + "allow_leaks: [phantom_004a=copy]\n", code=2)
    assert "names phantom_004a=copy, which is no leak here" in said
    assert not sweeps.acts


@pytest.mark.parametrize(
    "choice",
    [
        "scheduler: adaptive",
        pytest.param("trainer.early_stopping: 3", marks=pytest.mark.slow),
        pytest.param("trainer.stop: plateau", marks=pytest.mark.slow),
    ],
)
def test_a_fold_that_chooses_is_not_reported_unasked(sweeps: Sweeps, choice: str) -> None:
    head, arms = "# @package hydra.sweeper.study\nquestion: q\nfolds: 2\n", "arms: {a: {}, b: {loss: tversky}}\n"
    file = f"{head}base: {{{choice}}}\n{arms}"
    pattern = "data.patient='^(phantom_\\d+)'"
    said = run(sweeps, pattern, file=file, code=2)
    assert "validation: a, b follow the Dice of the fold that is then scored" in said
    run(sweeps, pattern, file=file + "allow_leaks: [validation]\n")
    assert len(sweeps.acts) == 4
    assert len(Asked.read(sweeps.folder).leaks) == 1


@pytest.mark.slow
def test_a_single_run_is_warned_by_its_check(sweeps: Sweeps, caplog: pytest.LogCaptureFixture) -> None:
    from composing import composed

    from seg.train import train

    assert train(composed(*sweeps.common, "check=true"), "x") is None
    assert "phantom_004a=phantom_004b: the same image, mirrored, twice" in caplog.text
    assert "no fault found" in caplog.text
