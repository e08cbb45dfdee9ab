"""Volumes of every format: the same arrays and places, written back as they came; damage refused."""

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scans import ENDINGS, oblique, save

from seg.data.cases import folder
from seg.data.fingerprint import fingerprint
from seg.data.volumes import files_of, mask_ending, read_header, read_image, read_label, write_label
from seg.errors import ConfigError, DataError

sitk = pytest.importorskip("SimpleITK")
ITK = (".nrrd", ".mha")
TYPES = (np.uint8, np.int16, np.int32, np.float32)


def noise(dtype: type = np.int16, shape: tuple[int, ...] = (5, 6, 7)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 120, shape).astype(dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("end", ENDINGS)
def test_every_format_gives_the_same_array_and_place(tmp_path: Path, end: str, dtype: type) -> None:
    path = save(tmp_path / f"a.b{end}", noise(dtype), oblique())
    image, affine = read_image([path])
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image[0], noise())
    np.testing.assert_allclose(affine, oblique(), atol=1e-5)
    header = read_header(path)
    assert (header.shape, header.notes) == ((5, 6, 7), ())
    assert header.dtype.newbyteorder("=") == dtype
    assert read_label(path).dtype.kind in "iu"


@pytest.mark.parametrize("end", [end.upper() for end in ENDINGS])
def test_endings_in_capitals(tmp_path: Path, end: str) -> None:
    path = save(tmp_path / f"a{end.lower()}", noise(), oblique()).rename(tmp_path / f"a{end}")
    np.testing.assert_array_equal(read_image([path])[0][0], noise())
    write_label(tmp_path / f"mask{mask_ending(path)}", noise(), path)


@pytest.mark.parametrize("end", [".nii.gz", ".mgz", *ITK])
def test_channels_on_a_fourth_axis(tmp_path: Path, end: str) -> None:
    array = noise(np.float32, (4, 5, 6, 3))
    image, affine = read_image([save(tmp_path / f"a{end}", array, oblique())])
    np.testing.assert_array_equal(image, np.moveaxis(array, -1, 0))
    np.testing.assert_allclose(affine, oblique(), atol=1e-5)


def test_channels_as_a_fourth_axis_of_space(tmp_path: Path) -> None:
    array = noise(np.float32, (4, 5, 6, 3))
    image = sitk.JoinSeries([sitk.GetImageFromArray(np.ascontiguousarray(array[..., n].T)) for n in range(3)])
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    np.testing.assert_array_equal(read_image([tmp_path / "a.mha"])[0], np.moveaxis(array, -1, 0))


@pytest.mark.parametrize("end", ENDINGS)
def test_masks_have_the_ending_the_place_and_the_bytes_of_their_image(tmp_path: Path, end: str) -> None:
    image = save(tmp_path / f"image{end}", noise(), oblique())
    masks = [tmp_path / f"{name}{mask_ending(image)}" for name in "ab"]
    for mask in masks:
        write_label(mask, noise(np.uint8), image)
    assert masks[0].read_bytes() == masks[1].read_bytes()
    assert mask_ending(image) == {".nhdr": ".nrrd", ".mhd": ".mha"}.get(end, end)
    np.testing.assert_allclose(read_header(masks[0]).affine, read_header(image).affine, rtol=0, atol=1e-14)
    assert sorted(tmp_path.iterdir()) == sorted([*files_of([image]), *masks])
    if end in (*ITK, ".mhd"):
        kept = [sitk.ReadImage(str(path)) for path in (image, masks[0])]
        assert kept[0].GetOrigin() == kept[1].GetOrigin()
        np.testing.assert_allclose(kept[0].GetDirection(), kept[1].GetDirection(), rtol=0, atol=1e-15)


@pytest.mark.parametrize("end", [".nii.gz", ".mgz", *ITK])
@pytest.mark.parametrize("like", [".nii", ".mgh", *ITK])
@pytest.mark.parametrize("largest", [3, 300, 70_000, -1])
def test_masks_in_another_format_keep_values_and_place(tmp_path: Path, like: str, end: str, largest: int) -> None:
    image = save(tmp_path / f"image{like}", noise(), oblique())
    label = np.where(noise() > 60, largest, 0)
    write_label(tmp_path / f"mask{end}", label, image)
    np.testing.assert_array_equal(read_label(tmp_path / f"mask{end}"), label)
    np.testing.assert_allclose(read_header(tmp_path / f"mask{end}").affine, oblique(), atol=1e-5)


@pytest.mark.parametrize("end", ITK)
def test_no_text_of_the_image_is_in_its_mask(tmp_path: Path, end: str) -> None:
    image = save(tmp_path / f"image{end}", noise(), oblique(), PatientName="Doe^Jane")
    assert b"Doe" in image.read_bytes()
    write_label(tmp_path / f"mask{end}", noise(), image)
    assert b"Doe" not in (tmp_path / f"mask{end}").read_bytes()


def test_nor_is_that_of_nifti(tmp_path: Path) -> None:
    image = nib.Nifti1Image(noise(), np.eye(4))
    for text in ("data_type", "descrip", "aux_file", "db_name"):
        image.header[text] = b"Doe^Jane"
    nib.save(image, tmp_path / "image.nii")
    assert (tmp_path / "image.nii").read_bytes().count(b"Doe") == 4
    write_label(tmp_path / "mask.nii", noise(), tmp_path / "image.nii")
    assert b"Doe" not in (tmp_path / "mask.nii").read_bytes()


BROKEN = {
    "missing": (lambda path: path.unlink(), "no such file"),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "text": (lambda path: path.write_text("no image"), "not a readable"),
    "half": (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "cut off"),
    "one byte less": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "cut off"),
}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("end", [".mgh", ".mgz", *ITK])
@pytest.mark.parametrize("fault", BROKEN)
def test_broken_files_are_named(tmp_path: Path, end: str, fault: str, packed: bool) -> None:
    path = save(tmp_path / f"scan{end}", noise(shape=(9, 9, 9)), oblique(), packed)
    make, words = BROKEN[fault]
    if end == ".mgh" and fault == "one byte less":
        path.write_bytes(path.read_bytes()[:-20])  # what follows the voxels
    make(path)
    with pytest.raises(DataError, match=rf"scan{end}: .*{words}"):
        read_image([path])


def test_a_flipped_bit_of_a_packed_file_never_passes(tmp_path: Path) -> None:
    """But where no voxel is changed by it."""
    rng = np.random.default_rng(0)
    for end in (".mgz", ".mha", ".nrrd", ".nii.gz"):
        path = save(tmp_path / f"a{end}", noise(shape=(20, 20, 20)), oblique())
        raw, passed = path.read_bytes(), 0
        for place in rng.integers(len(raw) // 4, len(raw), 60).tolist():
            broken = bytearray(raw)
            broken[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(broken)
            try:
                np.testing.assert_array_equal(read_image([path])[0][0], noise(shape=(20, 20, 20)))
                passed += 1
            except DataError:
                continue
        assert passed <= 3


def test_what_is_no_volume_is_refused(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.Image(4, 5, sitk.sitkUInt8), str(tmp_path / "flat.mha"))
    sitk.WriteImage(sitk.Image([4, 5, 6], sitk.sitkComplexFloat32), str(tmp_path / "complex.nrrd"))
    nib.save(nib.MGHImage(np.zeros((2, 2, 2), np.uint8), np.eye(4)), tmp_path / "a.mgh")
    raw = bytearray((tmp_path / "a.mgh").read_bytes())
    raw[30:42] = bytes(12)  # voxels of no size
    (tmp_path / "a.mgh").write_bytes(raw)
    for name, words in (("flat.mha", "shape"), ("complex.nrrd", "plain numbers|not a readable"), ("a.mgh", "affine")):
        with pytest.raises(DataError, match=f"{name}: .*({words})"):
            read_header(tmp_path / name)


def test_headers_without_orientation_say_so(tmp_path: Path) -> None:
    (tmp_path / "a.nrrd").write_bytes(
        b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 2 2\nspacings: 1 1 3\nencoding: raw\n\n" + bytes(range(8))
    )
    nib.save(nib.MGHImage(np.zeros((2, 2, 2), np.uint8), np.eye(4)), tmp_path / "a.mgh")
    raw = bytearray((tmp_path / "a.mgh").read_bytes())
    raw[28:30] = bytes(2)
    (tmp_path / "a.mgh").write_bytes(raw)
    for name in ("a.nrrd", "a.mgh"):
        (note,) = read_header(tmp_path / name).notes
        assert "axes were taken" in note
    assert read_header(tmp_path / "a.nrrd").spacing_mm == (1, 1, 3)


@pytest.mark.parametrize("unit", ["mm", "um", "microns", "\u00b5m", "m"])
def test_lengths_in_another_unit_are_refused(tmp_path: Path, unit: str) -> None:
    head = f'NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 2 2\nspacings: 1 1 3\nunits: "{unit}" "{unit}" "{unit}"\n'
    (tmp_path / "a.nrrd").write_bytes(f"{head}encoding: raw\n\n".encode() + bytes(range(8)))
    path = save(tmp_path / "a.mha", noise(), oblique(), packed=False)
    path.write_bytes(path.read_bytes().replace(b"ElementDataFile", f"DistanceUnits = {unit}\nElementDataFile".encode()))
    for name in ("a.nrrd", "a.mha"):
        if unit == "mm":
            assert read_header(tmp_path / name).shape
        else:
            with pytest.raises(DataError, match=f"{name}: its lengths are in {unit}, and only mm are read"):
                read_header(tmp_path / name)


@pytest.mark.parametrize("voxels", ["../a.raw", "/etc/passwd", "LIST", "a%03d.raw 1 2 1", "sub/a.raw"])
@pytest.mark.parametrize("end", [".mhd", ".nhdr"])
def test_voxels_elsewhere_are_refused(tmp_path: Path, end: str, voxels: str) -> None:
    path = save(tmp_path / "set" / f"a{end}", noise(), oblique(), packed=False)
    path.write_text(path.read_text().replace("a.raw", voxels))
    for read in (read_header, read_label, lambda path: files_of([path])):
        with pytest.raises(DataError, match=rf"a{end}: its voxels are in several files, or in another folder"):
            read(path)


@pytest.mark.parametrize("line", ["ElementDataFile = /etc/passwd", " elementdatafile: /etc/passwd"])
def test_two_places_of_voxels_are_refused(tmp_path: Path, line: str) -> None:
    path = save(tmp_path / "a.mha", noise(), oblique(), packed=False)
    path.write_bytes(path.read_bytes().replace(b"ElementDataFile", line.encode() + b"\nElementDataFile"))
    with pytest.raises(DataError, match="in several files, or in another folder"):
        read_image([path])


def data_set(root: Path, end: str) -> None:
    for name in "ab":
        image = noise(np.int16, (8, 9, 10)) + ord(name)
        save(root / "imagesTr" / f"{name}_0000{end}", image, oblique(), packed=False)
        save(root / "labelsTr" / f"{name}{end}", (image > 150).astype(np.uint8), oblique(), packed=False)


@pytest.mark.parametrize("end", ENDINGS)
def test_a_data_set_of_any_format_is_found_and_changes_are_seen(tmp_path: Path, end: str) -> None:
    root = tmp_path / "set"
    data_set(root, end)
    before = fingerprint(folder(root), tmp_path)
    assert [case.id for case in before.cases] == ["a", "b"]
    assert before.hash == fingerprint(folder(root), tmp_path).hash
    file = files_of([root / "imagesTr" / f"a_0000{end}"])[-1]
    save(root / "imagesTr" / f"a_0000{end}", noise(np.int16, (8, 9, 10)), oblique(), packed=False)
    assert file.exists()
    assert before.hash != fingerprint(folder(root), tmp_path).hash


@pytest.mark.parametrize("end", [".mha", ".nrrd"])
def test_where_simpleitk_is_missing_its_installation_is_named(
    tmp_path: Path, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_set(tmp_path / "set", end)
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(ConfigError, match=r"pip install 'seg\[itk\]'"):
        fingerprint(folder(tmp_path / "set"), tmp_path)
