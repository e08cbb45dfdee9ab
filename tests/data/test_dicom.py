"""A folder of DICOM slices is one volume; what is none is refused by name, and no patient is ever named."""

import locale
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scans import oblique, save, series

from seg.data.cases import folder
from seg.data.fingerprint import fingerprint
from seg.data.grids import same_grid
from seg.data.scans import scans
from seg.data.volumes import files_of, mask_ending, read_header, read_image, read_label, write_label
from seg.errors import DataError, SegError

sitk = pytest.importorskip("SimpleITK")
PATIENT = ("Doe", "Jane", "4711", "1.2.826")
Tags = dict[str, str]


def voxels(slices: int = 5, shape: tuple[int, int] = (12, 10)) -> np.ndarray:
    return np.random.default_rng(0).integers(-500, 900, (*shape, slices)).astype(np.int16)


@pytest.mark.parametrize("affine", [oblique(), np.diag([-0.7, -0.9, 2.5, 1]), np.diag([0.7, 0.9, -2.5, 1])])
def test_voxels_lie_where_the_slices_say(tmp_path: Path, affine: np.ndarray) -> None:
    path = series(tmp_path / "a", voxels(), affine)
    before = locale.setlocale(locale.LC_ALL)
    image, found = read_image([path])
    assert locale.setlocale(locale.LC_ALL) == before, "GDCM changes it as it writes, and open() depends on it"
    header = read_header(path)
    order = slice(None) if np.linalg.det(affine) > 0 else slice(None, None, -1)  # sorted along the normal of X and Y
    np.testing.assert_array_equal(image[0], voxels()[:, :, order])
    corner = affine @ [0, 0, 0 if order == slice(None) else 4, 1]
    np.testing.assert_allclose(found @ [0, 0, 0, 1], corner, atol=1e-4)
    np.testing.assert_allclose(header.spacing_mm, np.linalg.norm(affine[:3, :3], axis=0), atol=1e-5)
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path))
    same = save(tmp_path / "same.mha", image[0], found)
    np.testing.assert_allclose(
        sitk.ReadImage(names).GetDirection(), sitk.ReadImage(str(same)).GetDirection(), atol=1e-6
    )
    assert same_grid(read_header(same), header)


def test_each_slice_has_its_own_slope(tmp_path: Path) -> None:
    """As in PET: the first may be whole, and the others are not."""
    array = np.full((4, 3, 3), 35, np.int16)
    array[0] = 40
    path = series(tmp_path / "a", array, oblique(), lambda _, tags: tags.update({"0028|1053": "5", "0028|1052": "0"}))
    for number, slope in ((1, b"0.25"), (2, b"0.75")):  # of the stored 8 and 7
        file = one_slice(path, number)
        before, after = file.read_bytes().split(b"\x28\0\x53\x10\2\0\0\x005 ")
        file.write_bytes(before + b"\x28\0\x53\x10\4\0\0\0" + slope + after)
    image, _ = read_image([path])
    np.testing.assert_allclose(image[0, 0, 0], [40, 2, 6])
    np.testing.assert_allclose(image[0, 1, 0], [35, 1.75, 5.25])


def test_masks_are_nifti_files_on_the_grid_of_the_series(tmp_path: Path) -> None:
    path = series(tmp_path / "a", voxels(), oblique())
    assert mask_ending(path) == ".nii.gz"
    label = (voxels() > 300) * 7
    write_label(tmp_path / "mask.nii.gz", label, path)
    np.testing.assert_array_equal(read_label(tmp_path / "mask.nii.gz"), label)
    assert same_grid(read_header(tmp_path / "mask.nii.gz"), read_header(path))


def one_slice(path: Path, number: int) -> Path:
    return path / f"IM{number * 7:04}.dcm"


def without(number: int) -> Callable[[Path], None]:
    return lambda path: one_slice(path, number).unlink()


def changed(number: int, key: str, value: str) -> Callable[[int, Tags], None]:
    return lambda n, tags: tags.update({key: value}) if n == number else None


def moved(number: int, mm: float) -> Callable[[int, Tags], None]:
    def change(n: int, tags: Tags) -> None:
        if n == number:
            x, y, z = map(float, tags["0020|0032"].split("\\"))
            tags["0020|0032"] = f"{x}\\{y}\\{z + mm}"

    return change


def another_size(number: int, tags: Tags) -> Any:
    return sitk.GetImageFromArray(np.ones((10, 11), np.int16)) if number == 2 else None


def coloured(number: int, tags: Tags) -> Any:
    return sitk.GetImageFromArray(np.ones((10, 12, 3), np.uint8), isVector=True)


def many_frames(number: int, tags: Tags) -> Any:
    return sitk.GetImageFromArray(np.ones((3, 10, 12), np.int16))


def no_place(number: int, tags: Tags) -> Any:
    tags.pop("0020|0032")
    tags.pop("0020|0037")
    tags["0008|0016"] = "1.2.840.10008.5.1.4.1.1.7"  # a screenshot


REFUSED = {
    "missing": (None, without(2), "slices are missing: 5 mm between IM0007.dcm and IM0021.dcm, 2.5 mm elsewhere"),
    "copied": (
        None,
        lambda p: shutil.copy(one_slice(p, 1), p / "Z.dcm"),
        "two slices at one place: .*IM0007.dcm and Z",
    ),
    "uneven": (moved(2, 0.8), None, "not evenly spaced"),
    "shifted": (changed(2, "0020|0032", "9\\9\\5"), None, "not evenly spaced"),
    "other series": (changed(2, "0020|000e", "1.2.826.0.1.77.2"), None, r"several series: 4 slices of 12×10 \(IM0000"),
    "other size": (another_size, None, "several sizes: IM0014.dcm are not of 12×10"),
    "other voxels": (changed(2, "0028|0030", "0.5\\0.5"), None, "several directions or voxel sizes: IM0014"),
    "localiser": (changed(2, "0020|0037", "0\\1\\0\\0\\0\\1"), None, "localiser"),
    "colours": (coloured, None, "colours.*MONOCHROME2"),
    "frames": (many_frames, None, "several frames.*dcm2niix"),
    "no place": (no_place, None, "missing, as in a projection.*dcm2niix|not evenly|several|two slices"),
    "cut off": (None, lambda p: one_slice(p, 1).write_bytes(one_slice(p, 1).read_bytes()[:700]), "IM0007.dcm: damaged"),
    "no DICOM": (None, lambda p: (p / "IM9").write_bytes(b"?"), "IM9 may be slices and are no DICOM"),
    "empty": (None, lambda p: one_slice(p, 1).write_bytes(b""), "IM0007.dcm: damaged"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_even_series_is_refused_by_name(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    change, damage, words = REFUSED[name]
    affine = np.diag([-0.8, -0.8, 2.5, 1])
    path = series(tmp_path / "a", voxels(), affine, change)
    if damage:
        damage(path)
    with pytest.raises(DataError, match=words) as caught:
        read_image([path])
    said = str(caught.value) + caplog.text + "".join(capfd.readouterr())
    assert said.startswith(f"{path}: ")
    assert not [word for word in PATIENT if word in said]


def test_a_slice_is_no_volume(tmp_path: Path) -> None:
    path = series(tmp_path / "a", voxels(), oblique())
    with pytest.raises(DataError, match=r"one slice of DICOM\. Give the folder"):
        read_image([one_slice(path, 0)])


def test_a_tilted_gantry_is_named_as_any_shear_is(tmp_path: Path) -> None:
    tilted = np.diag([-0.8, -0.8, 2.5, 1])
    tilted[1, 2] = 0.6
    for name in "ab":
        path = series(tmp_path / "set/imagesTr" / name, voxels() + ord(name), tilted)
        save(tmp_path / f"set/labelsTr/{name}.nii.gz", (voxels() > 300).astype(np.uint8), read_header(path).affine)
    with pytest.raises(DataError, match=r"2 faults(.|\n)*imagesTr/a: .*tilted gantry"):
        fingerprint(folder(tmp_path / "set"), tmp_path)
    assert len(fingerprint(folder(tmp_path / "set"), tmp_path, allow_shear=True).cases) == 2


def test_slices_may_be_off_by_their_rounding_and_alone(tmp_path: Path) -> None:
    def rounded(number: int, tags: Tags) -> None:
        tags["0020|0032"] = "\\".join(f"{float(mm):.2f}" for mm in tags["0020|0032"].split("\\"))

    path = series(tmp_path / "a", voxels(12), np.diag([-0.8, -0.8, 0.625, 1]), rounded)
    assert read_header(path).spacing_mm[2] == pytest.approx(0.625, rel=0.02)
    assert read_header(series(tmp_path / "b", voxels(1), oblique())).spacing_mm[2] == pytest.approx(2.5)


def test_other_files_beside_the_slices_are_no_part_of_it(tmp_path: Path) -> None:
    path = series(tmp_path / "a", voxels(), oblique())
    before = files_of([path])
    for name in ("DICOMDIR", "notes.txt", "._IM0000.dcm", "preview.png", "seg.nii.gz"):
        (path / name).write_bytes(b"")
    assert files_of([path]) == before
    assert len(before) == 5
    read_image([path])


@pytest.mark.parametrize("layout", ["imagesTr/{}_0000", "images/{}", "{}", "{}/ct"])
def test_a_data_set_of_series_with_labels_in_another_format(tmp_path: Path, layout: str) -> None:
    root = tmp_path / "set"
    for name in ("p1", "p2"):
        path = series(root / layout.format(name), voxels() + int(name[1]), oblique())
        where = {"{}": f"{name}/seg.mha", "{}/ct": f"{name}/{name}_seg.nii.gz"}.get(
            layout, f"{layout.split('/')[0].replace('images', 'labels')}/{name}.mha"
        )
        save(root / where, (voxels() > 300).astype(np.uint8), read_header(path).affine)
    found = fingerprint(folder(root), tmp_path)
    assert [case.id for case in found.cases] == ["p1", "p2"]
    (root / layout.format("p1") / "IM0000.dcm").write_bytes((root / layout.format("p2") / "IM0000.dcm").read_bytes())
    assert fingerprint(folder(root), tmp_path).hash != found.hash


def test_scans_are_one_series_or_a_folder_of_them(tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        series(tmp_path / "scans" / name, voxels(2), oblique())
    save(tmp_path / "scans/c.mha", voxels(), oblique())
    assert [case.id for case in scans(tmp_path / "scans", 1)] == ["c", "p1", "p2"]
    assert [case.id for case in scans(tmp_path / "scans/p1", 1)] == ["p1"]
    assert mask_ending(scans(tmp_path / "scans", 1)[1].images[0]) == ".nii.gz"
    (tmp_path / "scans/p3").mkdir()
    (tmp_path / "scans/p1").rename(tmp_path / "scans/p3/series1")
    with pytest.raises(SegError, match=r"folders of volumes \(p3\)"):
        scans(tmp_path / "scans", 1)


def test_loose_slices_among_images_are_explained(tmp_path: Path) -> None:
    series(tmp_path / "imagesTr", voxels(), oblique())
    save(tmp_path / "labelsTr/a.nii.gz", voxels(), oblique())
    with pytest.raises(DataError, match=r"5 slices of DICOM \(.*a folder of its own"):
        folder(tmp_path)
