import gzip
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg.data import grids, nifti, volumes
from seg.errors import DataError

ORIENTATIONS = [
    (order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)
]  # all 48 ways a grid may lie along the axes


def affine_of(order, signs, spacing=(1.0, 2.0, 3.0), origin=(5.0, -7.0, 11.0)):
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, order] * signs * spacing
    affine[:3, 3] = origin
    return affine


def save(path, array, affine=None):
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


@given(st.sampled_from(ORIENTATIONS), st.integers(0, 2**32 - 1), st.floats(-0.3, 0.3))
def test_ras_and_back_is_the_identity(orientation, seed, tilt):
    rng = np.random.default_rng(seed)
    array, affine = rng.random((2, 3, 4, 5)), affine_of(*orientation)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    ras, ras_affine = nifti.to_ras(array, turn @ affine)
    assert nib.aff2axcodes(ras_affine) == ("R", "A", "S")
    np.testing.assert_array_equal(nifti.from_ras(ras, turn @ affine), array)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_ras_keeps_every_voxel_where_it_was(orientation):
    array, affine = np.arange(60).reshape(3, 4, 5), affine_of(*orientation)
    ras, ras_affine = nifti.to_ras(array, affine)
    for voxel in np.ndindex(ras.shape):
        place = np.linalg.inv(affine) @ ras_affine @ [*voxel, 1]
        assert array[tuple(place[:3].round().astype(int))] == ras[voxel]


@pytest.mark.parametrize("stored", [np.uint8, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_image_is_read_from_any_storage(tmp_path, stored, ending):
    array = np.arange(24).reshape(2, 3, 4).astype(stored)
    image, affine = volumes.read_image([save(tmp_path / f"a{ending}", array, affine_of((2, 0, 1), (1, -1, 1)))])
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, array[None])
    np.testing.assert_array_equal(affine, affine_of((2, 0, 1), (1, -1, 1)))


def test_channels_come_from_files_or_from_a_fourth_axis(tmp_path):
    array = np.arange(48, dtype=np.float32).reshape(2, 3, 4, 2)
    one = save(tmp_path / "one.nii.gz", array)
    many = [save(tmp_path / f"c{channel}.nii.gz", array[..., channel]) for channel in range(2)]
    np.testing.assert_array_equal(volumes.read_image([one])[0], np.moveaxis(array, -1, 0))
    np.testing.assert_array_equal(volumes.read_image(many)[0], volumes.read_image([one])[0])


def test_channels_on_different_grids_are_refused(tmp_path):
    array = np.zeros((2, 3, 4), np.float32)
    paths = [save(tmp_path / "a.nii", array), save(tmp_path / "b.nii", array, np.diag([2.0, 1, 1, 1]))]
    with pytest.raises(DataError, match="share one grid"):
        volumes.read_image(paths)


def test_float_label_with_whole_values_is_read_as_integers(tmp_path):
    label = np.arange(24).reshape(2, 3, 4) % 3
    found = volumes.read_label(save(tmp_path / "a.nii.gz", label.astype(np.float32)))
    assert found.dtype.kind == "i"
    np.testing.assert_array_equal(found, label)


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_label_with_other_values_is_refused(tmp_path, value):
    label = np.zeros((2, 3, 4), np.float32)
    label[0, 1, 2] = value
    with pytest.raises(DataError, match=r"a\.nii.*1 label voxels are not whole"):
        volumes.read_label(save(tmp_path / "a.nii", label))


def truncated(path):
    content = save(path, np.random.default_rng(0).integers(0, 99, (20, 20, 20)).astype(np.int16)).read_bytes()
    path.write_bytes(content[: len(content) // 2])


BROKEN = {
    "missing": (lambda path: None, "no such file"),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "text": (lambda path: path.write_text("no image"), "not a readable NIfTI"),
    "truncated": (truncated, "cut off"),
    "2-D": (lambda path: save(path, np.zeros((2, 3), np.float32)), "shape"),
    "5-D": (lambda path: save(path, np.zeros((2, 2, 2, 2, 2), np.float32)), "shape"),
    "flat": (lambda path: save(path, np.zeros((2, 3), np.float32)), r"Store a flat image as one slice, \(X, Y, 1\)"),
    "complex": (lambda path: save(path, np.zeros((2, 3, 4), np.complex64)), "Plain numbers"),
}


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("fault", BROKEN)
def test_broken_files_are_named(tmp_path, fault, ending):
    path = tmp_path / f"scan{ending}"
    make, words = BROKEN[fault]
    make(path)
    with pytest.raises(DataError, match=rf"scan\.nii.*{words}"):
        volumes.read_image([path])


def test_affine_that_cannot_be_inverted_is_named(tmp_path):
    image = nib.Nifti1Image(np.zeros((2, 3, 4), np.float32), None)
    image.header.set_sform(np.diag([0.0, 1, 1, 1]), 1)
    nib.save(nib.Nifti1Image(image.dataobj, None, image.header), tmp_path / "a.nii")
    with pytest.raises(DataError, match="affine"):
        volumes.read_header(tmp_path / "a.nii")


@pytest.mark.parametrize(("moved_mm", "same"), [(0.01, True), (0.5, False)])
def test_same_grid_forgives_rounding_only(moved_mm, same):
    there = np.eye(4)
    there[0, 3] = moved_mm
    shape, dtype = (4, 5, 6), np.dtype(np.uint8)
    assert grids.same_grid(grids.Header(shape, np.eye(4), dtype), grids.Header(shape, there, dtype)) is same


@pytest.mark.parametrize("orientation", ORIENTATIONS[::7])
@pytest.mark.parametrize(
    ("codes", "kind"), [((1, 0), nib.Nifti1Image), ((2, 3), nib.Nifti2Image), ((0, 1), nib.Nifti1Image)]
)
def test_written_label_lies_on_the_grid_of_its_image(tmp_path, orientation, codes, kind):
    like = kind(np.zeros((3, 4, 5, 2), np.float32), affine_of(*orientation))
    like.set_sform(like.affine, codes[0])
    like.set_qform(like.affine, codes[1])
    like.header["descrip"] = b"John Doe"
    like.header["cal_max"], like.header["cal_min"] = 1500, 20
    nib.save(like, tmp_path / "like.nii.gz")
    label = np.arange(60).reshape(3, 4, 5)
    volumes.write_label(tmp_path / "label.nii.gz", label, tmp_path / "like.nii.gz")
    written, like = nib.load(tmp_path / "label.nii.gz"), nib.load(tmp_path / "like.nii.gz")
    assert type(written) is type(like)
    assert [int(written.header[f"{form}_code"]) for form in ("sform", "qform")] == list(codes)
    np.testing.assert_array_equal(written.affine, like.affine)
    np.testing.assert_array_equal(volumes.read_label(tmp_path / "label.nii.gz"), label)
    assert bytes(written.header["descrip"]).strip(b"\0") == b""
    assert (written.header["cal_max"], written.header["cal_min"]) == (0, 0), "a viewer would show it black"


@pytest.mark.parametrize(("largest", "dtype"), [(3, np.uint8), (300, np.uint16), (70000, np.uint32)])
def test_label_is_stored_in_the_smallest_type(tmp_path, largest, dtype):
    like = save(tmp_path / "like.nii", np.zeros((2, 2, 2), np.float32))
    volumes.write_label(tmp_path / "label.nii", np.full((2, 2, 2), largest), like)
    assert volumes.read_header(tmp_path / "label.nii").dtype == dtype
    assert volumes.read_label(tmp_path / "label.nii").max() == largest


def test_negative_class_values_survive(tmp_path):
    like = save(tmp_path / "like.nii", np.zeros((2, 2, 2), np.float32))
    label = np.array([-1, 0, 1, 200] * 2).reshape(2, 2, 2)
    volumes.write_label(tmp_path / "label.nii", label, like)
    np.testing.assert_array_equal(volumes.read_label(tmp_path / "label.nii"), label)


def test_same_label_gives_same_bytes(tmp_path):
    like, label = save(tmp_path / "like.nii.gz", np.zeros((4, 4, 4), np.float32)), np.ones((4, 4, 4), np.uint8)
    for name in ("a.nii.gz", "b.nii.gz"):
        volumes.write_label(tmp_path / name, label, like)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.nii.gz").read_bytes())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path, like = tmp_path / "label.nii", save(tmp_path / "like.nii", np.zeros((2, 2, 2), np.float32))
    path.write_bytes(b"old")

    def half(self, content):
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space left"):
        volumes.write_label(path, np.ones((2, 2, 2), np.uint8), like)
    assert path.read_bytes() == b"old"
    assert set(tmp_path.iterdir()) == {path, like}
