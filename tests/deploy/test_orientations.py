"""Voxels and header turned together: the mask turns with them, in every orientation that a grid can have."""

from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff
from scans import oblique, save

from seg.data.volumes import mask_ending, read_header, read_label
from seg.deploy import Predictor

TURNS = [
    np.array([*zip(order, signs, strict=True)])
    for order in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]


@pytest.fixture(scope="module")
def predictor(whole: tuple[Path, Any]) -> Predictor:
    outputs, result = whole
    return Predictor.load(outputs / "runs" / result.predictions.name)


@pytest.mark.parametrize("end", [".nii.gz", ".mha"])
def test_the_mask_follows(predictor: Predictor, phantom_root: Path, tmp_path: Path, end: str) -> None:
    if end == ".mha":
        pytest.importorskip("SimpleITK")
    image = nib.load(min((phantom_root / "imagesTr").glob("*.nii.gz")))
    voxels = np.asarray(image.dataobj)[tuple(slice(size // 4, -(size // 4)) for size in image.shape)]  # its middle
    affine = oblique(tuple(np.linalg.norm(image.affine[:3, :3], axis=0)))
    straight = save(tmp_path / f"straight{end}", voxels, affine)
    expected = predictor(straight).mask
    assert len(np.unique(expected)) > 1
    for turn in TURNS if end == ".nii.gz" else TURNS[::8]:  # what is read is turned by the same code
        turned = apply_orientation(voxels, turn)
        path = save(tmp_path / f"turned{end}", turned, affine @ inv_ornt_aff(turn, voxels.shape))
        found = predictor(path)
        found.save(mask := tmp_path / f"mask{mask_ending(path)}")
        np.testing.assert_array_equal(read_label(mask), apply_orientation(expected, turn))
        np.testing.assert_allclose(read_header(mask).affine, read_header(path).affine, rtol=0, atol=1e-12)
