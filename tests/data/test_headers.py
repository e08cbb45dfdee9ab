"""Headers: whatever a field holds, a DataError with the file's name, or a volume whose millimetres are right."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from seg.data import grids, volumes
from seg.errors import DataError

SHAPE = (4, 5, 6)
FIELDS = dict(nib.nifti1.header_dtype.fields)
UNITS = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}


def content(codes=(1, 1), kind=nib.Nifti1Image, affine=None):
    image = kind(
        np.arange(120, dtype=np.float32).reshape(SHAPE), np.diag([0.7, 1.3, 4, 1]) if affine is None else affine
    )
    image.set_sform(image.affine, codes[0])
    image.set_qform(image.affine, codes[1])
    return bytearray(image.to_bytes())


def change(raw, **fields):
    header = np.frombuffer(raw, nib.nifti1.header_dtype, 1)[0]
    for name, value in fields.items():
        header[name] = value
    return raw


def sizes_mm(raw):
    """By the standard alone: the sform's columns, otherwise pixdim, in the unit of xyzt_units."""
    header = np.frombuffer(raw, nib.nifti1.header_dtype, 1)[0]
    unit = UNITS[int(header["xyzt_units"]) & 7]
    if header["sform_code"] > 0:
        rows = np.array([header[f"srow_{axis}"][:3] for axis in "xyz"], float)
        return unit * np.linalg.norm(rows, axis=0)
    return unit * np.abs(header["pixdim"][1:4].astype(float))


def volume_or_fault(read, path):
    """What ``read`` gives; None where it refuses the file by its name."""
    said = ""
    try:
        return read(path)
    except DataError as error:
        said = str(error)
    assert path.name in said
    return None


@given(
    codes=st.sampled_from([(1, 0), (0, 1), (1, 1), (2, 4), (0, 0)]),
    damage=st.lists(
        st.sampled_from(sorted(FIELDS)).flatmap(
            lambda name: st.tuples(
                st.just(name), st.binary(min_size=FIELDS[name][0].itemsize, max_size=FIELDS[name][0].itemsize)
            )
        ),
        max_size=3,
    ),
)
@example(codes=(0, 1), damage=[("quatern_b", np.float32(1.00001).tobytes())])
@example(codes=(1, 1), damage=[("quatern_b", np.float32(np.nan).tobytes())])
@example(codes=(1, 0), damage=[("srow_x", np.full(4, np.inf, np.float32).tobytes())])
@example(codes=(1, 1), damage=[("srow_x", np.full(4, np.nan, np.float32).tobytes())])
@example(codes=(1, 1), damage=[("vox_offset", np.float32(np.nan).tobytes())])
@example(codes=(1, 1), damage=[("vox_offset", np.float32(-np.inf).tobytes())])
@example(codes=(0, 1), damage=[("pixdim", np.array([0, -1, 2, 3, 1, 1, 1, 1], np.float32).tobytes())])
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_field_holds(tmp_path, codes, damage):
    raw, path = content(codes), tmp_path / "scan.nii"
    for name, value in damage:
        start = FIELDS[name][1]
        raw[start : start + len(value)] = value
    path.write_bytes(raw)
    found = volume_or_fault(lambda path: volumes.read_image([path]), path)
    if found is not None:
        image, header = found[0], volumes.read_header(path)
        np.testing.assert_allclose(header.spacing_mm, sizes_mm(raw), rtol=1e-4)
        assert image.shape[1:] == header.shape[:3]
    found = volume_or_fault(volumes.read_label, path)
    assert found is None or found.dtype.kind in "iu"


@pytest.mark.parametrize(("unit", "factor"), [("micron", 1e-3), ("meter", 1e3), ("mm", 1), ("unknown", 1)])
def test_units_are_honoured(tmp_path, unit, factor):
    image = nib.Nifti1Image(np.zeros(SHAPE, np.uint8), np.diag([500.0, 400, 300, 1]))
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii.gz")
    header = volumes.read_header(tmp_path / "a.nii.gz")
    assert header.spacing_mm == pytest.approx([500 * factor, 400 * factor, 300 * factor])
    assert any("unit is" in note for note in header.notes) == (unit in ("micron", "meter"))
    volumes.write_label(tmp_path / "b.nii.gz", np.ones(SHAPE, np.uint8), tmp_path / "a.nii.gz")
    written = volumes.read_header(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(written.affine, header.affine)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_tolerances_follow_the_voxel(tmp_path, scale):
    affine = np.diag([2.0 * scale, 2 * scale, 2 * scale, 1])
    (tmp_path / "a.nii").write_bytes(content(affine=affine))
    header = volumes.read_header(tmp_path / "a.nii")
    assert header.spacing_mm == pytest.approx([2 * scale] * 3)
    moved = affine.copy()
    moved[0, 3] = 0.5 * scale
    assert not grids.same_grid(header, grids.Header(SHAPE, moved, header.dtype))
    assert not grids.sheared(affine)


CONTRADICTIONS = {
    "pixdim": (
        change(content((1, 0)), pixdim=[1, 1.3, 1.3, 10, 1, 1, 1, 1]),
        ["pixdim says voxels of 1.3×1.3×10 mm", "the sform 0.7×1.3×4 mm, which was taken"],
    ),
    "qform": (
        change(content((1, 1)), pixdim=[1, 1.3, 1.3, 10, 1, 1, 1, 1]),
        ["the sform says", "spacing 0.7×1.3×4 mm", "the qform says", "spacing 1.3×1.3×10 mm", "sform was taken"],
    ),
    "flipped": (change(content((1, 1)), srow_x=[-0.7, 0, 0, 0]), ["axes LAS", "axes RAS", "sform was taken"]),
    "no orientation": (content((0, 0)), ["no orientation is stored", "pixdim was taken"]),
    "bits": (change(content((1, 1)), bitpix=8), ["bitpix says 8 bits", "float32 has 32", "type was taken"]),
    "a qform of no numbers": (change(content((1, 1)), quatern_b=np.nan), ["the qform cannot be read", "sform was"]),
    "no qform": (change(content((1, 1)), quatern_b=3), ["the qform cannot be read", "the sform was taken"]),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_headers_that_contradict_themselves_say_both_readings(tmp_path, name):
    raw, words = CONTRADICTIONS[name]
    (tmp_path / "a.nii").write_bytes(raw)
    (note,) = volumes.read_header(tmp_path / "a.nii").notes
    for word in words:
        assert word in note


@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (1, 1), (4, 1)])
def test_sound_headers_say_nothing(tmp_path, codes):
    (tmp_path / "a.nii").write_bytes(content(codes))
    assert volumes.read_header(tmp_path / "a.nii").notes == ()


def test_a_hair_too_long_a_quaternion_is_read(tmp_path):
    (tmp_path / "a.nii").write_bytes(change(content((0, 1)), quatern_b=1.00001, quatern_c=0, quatern_d=0))
    assert volumes.read_header(tmp_path / "a.nii").spacing_mm == pytest.approx([0.7, 1.3, 4])


def test_shear_is_seen(tmp_path):
    affine = np.diag([1.0, 1, 1, 1])
    affine[0, 2] = 0.3
    assert grids.sheared(affine)
    turn = np.eye(4)
    turn[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    assert not grids.sheared(turn @ np.diag([1.0, 2, 30, 1]))


def packed(tmp_path):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(bytes(content()), mtime=0))
    return path, bytearray(path.read_bytes())


@pytest.mark.parametrize("read", [lambda path: volumes.read_image([path]), volumes.read_label])
@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-8] + bytes(8),
        lambda raw: raw[:-4],
        lambda raw: raw[: len(raw) // 2] + bytes(len(raw) - len(raw) // 2),
        lambda raw: raw + b"more",
        lambda raw: raw[:100],
    ],
    ids=["no checksum", "no length", "zeros", "garbage behind", "cut"],
)
def test_a_damaged_stream_is_refused_at_every_read(tmp_path, read, damage):
    path, raw = packed(tmp_path)
    path.write_bytes(damage(bytes(raw)))
    with pytest.raises(DataError, match=r"a\.nii\.gz: the file is cut off or damaged"):
        read(path)


@pytest.mark.parametrize("change", [lambda raw: raw[:-1], lambda raw: raw + bytes(8)])
def test_a_file_of_another_length_than_its_header_says_is_refused(tmp_path, change):
    (tmp_path / "a.nii").write_bytes(change(bytes(content())))
    with pytest.raises(DataError, match=r"a\.nii.*its header says"):
        volumes.read_image([tmp_path / "a.nii"])


@pytest.mark.parametrize("value", [5e9, -5e9, 2.0**40])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_label_beyond_all_classes_is_refused(tmp_path, value, dtype):
    label = np.zeros(SHAPE, dtype)
    label[0, 0, 0] = value
    nib.save(nib.Nifti1Image(label, np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(DataError, match=r"a\.nii\.gz: label values .* up to 2147483647"):
        volumes.read_label(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_file_is_read_by_what_it_is_whatever_its_ending(tmp_path, name):
    for raw in (bytes(content()), gzip.compress(bytes(content()))):
        (tmp_path / name).write_bytes(raw)
        np.testing.assert_array_equal(volumes.read_image([tmp_path / name])[0].ravel("C").sum(), np.arange(120).sum())
