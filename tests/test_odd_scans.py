"""Twenty odd scans in one folder: nineteen masks, each as its scan is, and one failure with its reason."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scans import oblique, save, series

from seg.config.command import read
from seg.config.options import CONF
from seg.data.grids import same_grid
from seg.data.volumes import read_header, read_label
from seg.errors import SegError
from seg.predict import main

pytest.importorskip("SimpleITK")


def nifti(path: Path, array: np.ndarray, affine: np.ndarray, codes: tuple[int, int] = (1, 1), **fields: Any) -> None:
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, codes[0])
    image.set_qform(affine, codes[1])
    for key, value in fields.items():
        image.header[key] = value
    nib.save(image, path)


def odd(root: Path, voxels: np.ndarray) -> dict[str, str]:
    """Writes the scans; the file of each mask by case, where there is one."""
    root.mkdir()
    whole, affine = np.rint(voxels).astype(np.int16), np.diag([-1.0, -1, 1, 1])
    swapped = nib.Nifti1Image(whole, affine, nib.Nifti1Header(endianness=">"))
    scaled = nib.Nifti1Image(whole, affine)
    scaled.header.set_slope_inter(0.5, -3)
    made: dict[str, Callable[[Path], Any]] = {
        "float64.nii.gz": lambda path: nifti(path, whole.astype(np.float64), affine),
        "int8.nii.gz": lambda path: nifti(path, (100 * whole / whole.max()).astype(np.int8), affine),
        "big_endian.nii": lambda path: nib.save(swapped, path),
        "scaled.nii.gz": lambda path: nib.save(scaled, path),
        "four_axes.nii.gz": lambda path: nifti(path, whole[..., None], affine),
        "oblique.nii.gz": lambda path: nifti(path, whole, oblique((1, 1, 1))),
        "flipped.nii.gz": lambda path: nifti(path, whole[::-1, :, ::-1], np.diag([1.0, -1, -1, 1])),
        "one_slice.nii.gz": lambda path: nifti(path, whole[:, :, 9:10], affine),
        "tiny.nii.gz": lambda path: nifti(path, whole[8:11, 8:11, 8:11], affine),
        "coarse.nii.gz": lambda path: nifti(path, whole[:, ::2, ::4], np.diag([1.0, 2, 4, 1])),
        "sform.nii.gz": lambda path: nifti(path, whole, affine, (2, 0)),
        "qform.nii.gz": lambda path: nifti(path, whole, affine, (0, 1)),
        "no_form.nii.gz": lambda path: nifti(path, whole, affine, (0, 0)),
        "plain.nii": lambda path: nifti(path, whole, affine),
        "meta.mha": lambda path: save(path, whole, affine),
        "nrrd.nrrd": lambda path: save(path, whole, affine),
        "detached.nhdr": lambda path: save(path, whole, affine),
        "surfer.mgz": lambda path: save(path, whole, affine),
        "dicom": lambda path: series(path, whole, affine),
        "damaged.nii.gz": lambda path: path.write_bytes((root / "float64.nii.gz").read_bytes()[:-9]),
    }
    for name, write in made.items():
        write(root / name)
    others = {"detached.nhdr": "detached.nrrd", "dicom": "dicom.nii.gz", "damaged.nii.gz": ""}
    return {name.split(".")[0]: others.get(name, name) for name in made}


@pytest.mark.slow
def test_nineteen_results_and_one_failure(whole: tuple[Path, Any], phantom_root: Path, tmp_path: Path) -> None:
    outputs, result = whole
    image = nib.load(min((phantom_root / "imagesTr").glob("*.nii.gz")))
    expected = odd(tmp_path / "scans", np.asarray(image.dataobj)[8:32, 8:36, 8:28])
    given = [f"paths.outputs={outputs}", f"run={result.run_id}", f"input={tmp_path / 'scans'}"]
    masks = tmp_path / "masks"
    with pytest.raises(SegError, match=r"1 of 20 scans failed: damaged\W") as error:
        main(
            read(
                (CONF / "predict.yaml").read_text("utf-8") + "paths:\n  outputs: outputs\n", [*given, f"output={masks}"]
            )
        )
    assert error.value.exit_code == 1
    rows = {row["case"]: row for row in json.loads((masks / "report.json").read_text("utf-8"))["scans"]}
    assert {case: row["mask"] for case, row in rows.items()} == expected
    assert "damaged.nii.gz: the file is cut off or damaged" in rows["damaged"]["error"]
    reference = read_label(masks / "float64.nii.gz")
    assert len(np.unique(reference)) > 1
    for case, name in expected.items():
        if name:
            scan = next(path for path in (tmp_path / "scans").iterdir() if path.name.split(".")[0] == case)
            scan = scan.with_suffix(".nhdr") if case == "detached" else scan
            assert same_grid(read_header(masks / name), read_header(scan)), case
    for case in ("big_endian", "four_axes", "sform", "qform", "plain", "meta", "nrrd", "detached", "surfer", "dicom"):
        np.testing.assert_array_equal(read_label(masks / expected[case]), reference, err_msg=case)
    np.testing.assert_array_equal(read_label(masks / "flipped.nii.gz"), reference[::-1, :, ::-1])
    text = b"".join(path.read_bytes() for path in masks.glob("report.*"))
    assert not [word for word in (b"Doe", b"PID-4711", b"1.2.826.0.1.77") if word in text]
