"""Copies planted among different patients are found whatever was done to them, and nothing else is."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from benchmarks.leaks import COPIES, Change
from seg.data.cases import folder
from seg.data.fingerprint import fingerprint
from seg.data.leaks import ALIKE, SIDE, leaks, likeness, resized

NOISE = np.random.default_rng(0)


def planted(root: Path, phantom_root: Path, change: Change, original: int = 4) -> Path:
    """The phantom, and a changed copy of one of its cases with a mask of another size."""
    shutil.copytree(phantom_root, root)
    image = nib.load(root / f"imagesTr/phantom_{original:03}.nii.gz")
    voxels, affine = change(np.asarray(image.dataobj, np.float32), np.asarray(image.affine))
    label = np.zeros(voxels.shape, np.uint8)
    label[tuple(n // 2 for n in label.shape)] = 1
    for kind, content in (("imagesTr", voxels.astype(np.float32)), ("labelsTr", label)):
        nib.save(nib.Nifti1Image(content, affine), root / kind / "copy.nii.gz")
    (root / "dataset.json").unlink()
    return root


def found(root: Path, cache: Path, patient: str | None = None) -> dict[str, str]:
    cases = folder(root, patient=patient)
    return {leak.name: leak.what for leak in leaks(cases, fingerprint(cases, cache, 1), cache)}


@pytest.mark.parametrize("change", COPIES)
def test_a_copy_is_found_whatever_was_done_to_it(phantom_root: Path, tmp_path: Path, change: str) -> None:
    seen = found(planted(tmp_path / "data", phantom_root, COPIES[change]), tmp_path)
    assert list(seen) == ["copy=phantom_004"]
    assert ("mirrored" in seen["copy=phantom_004"]) == (change in ("mirrored", "turned_over", "all_of_it"))


@pytest.mark.slow
def test_different_patients_are_no_leak(tmp_path: Path) -> None:
    from seg.data.phantom import phantom

    cases = phantom(tmp_path / "data", cases=40)
    assert leaks(cases, fingerprint(cases, tmp_path, 2), tmp_path, workers=2) == []


def test_two_scans_of_one_patient_are_no_leak(phantom_root: Path, tmp_path: Path) -> None:
    root = planted(tmp_path / "data", phantom_root, COPIES["exact"])
    (root / "patients.csv").write_text(
        "case,patient\n" + "".join(f"phantom_{n:03},{'p' if n == 4 else n}\n" for n in range(12)) + "copy,p\n"
    )
    assert found(root, tmp_path) != {}
    assert found(root, tmp_path, "patients.csv") == {}, "what was kept for other patients was taken"


def test_a_mask_that_belongs_to_two_images_is_found(phantom_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(phantom_root, root)
    for kind in ("imagesTr", "labelsTr"):
        shutil.copy(root / kind / "phantom_004.nii.gz", root / kind / "other.nii.gz")
    image = nib.load(root / "imagesTr/phantom_004.nii.gz")
    noise = NOISE.normal(100, 10, image.shape).astype(np.float32)
    nib.save(nib.Nifti1Image(noise, image.affine), root / "imagesTr/other.nii.gz")
    (root / "dataset.json").unlink()
    assert found(root, tmp_path) == {"other=phantom_004": "the same mask on two images, as two patients"}


def test_a_slice_is_a_volume_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    a, b = (ndimage.gaussian_filter(rng.normal(size=(64, 48, 1)), (2, 2, 0)) for _ in range(2))
    for name, image in {"a": a, "b": b, "c": b[::-1]}.items():
        label = rng.integers(0, 2, image.shape).astype(np.uint8)
        for kind, content in (("images", image.astype(np.float32)), ("labels", label)):
            (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(content, np.eye(4)), tmp_path / "data" / kind / f"{name}.nii.gz")
    assert list(found(tmp_path / "data", tmp_path)) == ["b=c"]


@pytest.mark.slow
def test_real_patients_are_far_from_copies(hippocampus_root: Path, tmp_path: Path) -> None:
    """Neighbouring numbers of this set are the two hippocampi of one patient: like each other, but no copies."""
    cases = folder(hippocampus_root)
    assert leaks(cases, fingerprint(cases, tmp_path, 2), tmp_path, workers=2) == []
    images = [np.asarray(nib.load(case.images[0]).dataobj, np.float32) for case in cases.cases[:12]]
    small = [resized(image, [SIDE * n // max(image.shape) for n in image.shape]) for image in images]
    assert max(likeness(a, b) for n, a in enumerate(small) for b in small[:n]) < ALIKE - 0.03
    copies = [resized(image[2:, 2:, 2:], [SIDE * (n - 2) // max(image.shape) for n in image.shape]) for image in images]
    assert min(map(likeness, small, copies)) > ALIKE
