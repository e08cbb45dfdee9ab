"""A run's folder as a predictor: as the run's own test masks, bit for bit, and refused where it cannot be."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from omegaconf import OmegaConf

from seg.deploy import Predictor
from seg.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def run(whole: tuple[Path, Any]) -> Path:
    outputs, result = whole
    return outputs / "runs" / result.predictions.name


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    shutil.copytree(run, tmp_path / "runs" / run.name)
    return tmp_path / "runs" / run.name


def test_masks_are_those_of_the_runs_own_test_bit_for_bit(
    run: Path, whole: tuple[Path, Any], phantom_root: Path, tmp_path: Path
) -> None:
    predictor = Predictor.load(run)
    masks = sorted(whole[1].predictions.glob("*.nii.gz"))
    assert masks
    for mask in masks:
        found = predictor(phantom_root / "imagesTr" / mask.name)
        found.save(tmp_path / mask.name)
        assert (tmp_path / mask.name).read_bytes() == mask.read_bytes()
        voxel_ml = abs(np.linalg.det(nib.load(mask).affine[:3, :3])) / 1000
        volume = np.sum(np.asarray(nib.load(mask).dataobj) == found.classes["lobe"]) * voxel_ml
        assert found.volumes_ml["lobe"] == pytest.approx(volume)
        assert list(found.volumes_ml) == ["lobe", "tail"]


@pytest.mark.slow
def test_neither_hydra_nor_mlflow_is_needed(run: Path) -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('hydra', 'mlflow', 'optuna')));"  # as if not installed
        "from seg.deploy import Predictor; Predictor.load(sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("file", ["config/config.yaml", "data/plan.json", "checkpoints/best.pt", "run_id"])
def test_a_folder_that_lacks_something_is_refused(copied: Path, file: str) -> None:
    (copied / file).unlink()
    (copied / "checkpoints/last.pt").unlink()
    with pytest.raises(DataError, match=copied.name):
        Predictor.load(copied)


def test_a_foreign_package_is_not_imported_unless_it_is_trusted(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_networks.py").write_text("from pathlib import Path\nPath('imported').touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    cfg = OmegaConf.load(copied / "config/config.yaml")
    cfg.model._target_ = "their_networks.net"
    OmegaConf.save(cfg, copied / "config/config.yaml")
    with pytest.raises(ConfigError, match=r'trusted=\["their_networks"\]'):
        Predictor.load(copied)
    assert not Path("imported").exists()
    with pytest.raises(ConfigError, match="their_networks"):  # it has no net
        Predictor.load(copied, trusted=["their_networks"])
    assert Path("imported").exists()


def test_another_number_of_channels_is_refused(run: Path, phantom_root: Path) -> None:
    image = min((phantom_root / "imagesTr").glob("*.nii.gz"))
    with pytest.raises(DataError, match="2 channels; the network was trained on 1"):
        Predictor.load(run)(image, image)


@pytest.mark.parametrize(
    ("value", "shear", "message"),
    [(np.nan, 0, "NaN"), (np.inf, 0, "NaN"), (1, 0, "the same value"), (None, 0.2, "right angles")],
)
def test_a_scan_of_which_anything_could_be_made_is_refused(
    run: Path, phantom_root: Path, tmp_path: Path, value: float | None, shear: float, message: str
) -> None:
    image = nib.load(min((phantom_root / "imagesTr").glob("*.nii.gz")))
    voxels, affine = np.asarray(image.dataobj, np.float32), image.affine.copy()
    if value == 1:
        voxels[:] = 1
    elif value is not None:
        voxels[4, 5, 6] = value
    affine[0, 2] += shear
    nib.save(nib.Nifti1Image(voxels, affine), tmp_path / "scan.nii.gz")
    with pytest.raises(DataError, match=f"scan.nii.gz: .*{message}"):
        Predictor.load(run)(tmp_path / "scan.nii.gz")


def test_no_image_and_a_mask_that_is_no_nifti_file_are_refused(run: Path, phantom_root: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(run)
    with pytest.raises(DataError, match="one image file or more"):
        predictor()
    found = predictor(next((phantom_root / "imagesTr").iterdir()))
    for name in ("mask.mhd", "mask.png"):
        with pytest.raises(ConfigError, match=rf"{name} must end in \.nii"):
            found.save(tmp_path / name)


def test_the_plan_comes_back_as_it_was(run: Path) -> None:
    from seg.data.plan import Plan

    text = (run / "data/plan.json").read_text()
    plan = Plan.from_json(text)
    assert json.loads(plan.to_json()) == json.loads(text)
    assert isinstance(plan.strides[0], tuple)
