"""Reads and writes NIfTI files, and turns axes to RAS+ and back: the only module that imports nibabel."""

import gzip
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy

from seg.data.grids import NO_ORIENTATION, Header, checked, grid, reading, same_grid, unpacked
from seg.errors import DataError, times
from seg.files import atomic

RAS = [[axis, 1] for axis in range(3)]  # as nibabel writes an orientation
IMAGES: dict[int, Any] = {348: nib.Nifti1Image, 540: nib.Nifti2Image}  # by the bytes of their headers
UNITS_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # unknown (taken as mm), metre, mm, micron
LONGEST = 1e-4  # by which the squared length of a quaternion may pass 1, being rounded


def read_header(path: Path) -> Header:
    """Header of a volume, without its voxels.

    Raises:
        DataError: the file is missing, empty, cut off, no NIfTI, of another shape than (X, Y, Z) or
            (X, Y, Z, channels), holds colours or complex numbers, or its affine cannot be inverted.
    """
    return _load(path, max(IMAGES))[1]


def to_ras(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turns ``array`` (…, X, Y, Z) so that its axes point right, anterior, superior, as nearly as the grid allows.

    Flips and swaps only, so no voxel value changes; ``from_ras`` undoes it.

    Returns:
        The array in C order and the affine (4, 4) of its new axes.
    """
    orientation = nib.orientations.io_orientation(affine)
    return _turned(array, orientation), affine @ nib.orientations.inv_ornt_aff(orientation, array.shape[-3:])


def from_ras(array: np.ndarray, like_affine: np.ndarray) -> np.ndarray:
    """Turns an RAS+ ``array`` (…, X, Y, Z) back to the axes of a file with the affine ``like_affine``."""
    return _turned(array, nib.orientations.ornt_transform(RAS, nib.orientations.io_orientation(like_affine)))


def ras_axis(affine: np.ndarray, axis: int) -> tuple[int, int]:
    """The RAS axis along which ``axis`` of a file lies, and its direction, 1 or -1."""
    along, direction = nib.orientations.io_orientation(affine)[axis]
    return int(along), int(direction)


def _turned(array: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    first = np.moveaxis(array, (-3, -2, -1), (0, 1, 2))  # where nibabel looks for the axes of space
    turned = nib.orientations.apply_orientation(first, orientation)
    return np.ascontiguousarray(np.moveaxis(turned, (0, 1, 2), (-3, -2, -1)))


def read(path: Path, dtype: np.dtype[np.generic] | None = None) -> tuple[Header, np.ndarray]:
    """Header and voxels (X, Y, Z[, channels]), scaled as the header says, of ``dtype`` or the file's own.

    Raises:
        DataError: as ``read_header``; or the file is damaged.
    """
    header, described, raw = _load(path)
    return described, _voxels(header, raw, path, dtype)


def packed(array: np.ndarray, affine: np.ndarray, end: str, like: Path | None) -> bytes:
    """The bytes of a label (X, Y, Z), the same for the same array, for a file that ends in ``end``.

    With the affine, form codes, units and kind of the NIfTI file ``like``. Its free text (description, extensions) is
    left behind, since it may name a patient, and so is the range of grey values it is shown in. Without such a file the
    affine (4, 4) is stored as that of a scanner.
    """
    if like is None:
        image = nib.Nifti1Image(array, affine)
        image.set_sform(affine, 1)
        image.set_qform(affine, 1)
        return _bytes_of(image, end)
    header, _, _ = _load(like, max(IMAGES))
    header.set_intent("none")
    for text in {"data_type", "descrip", "aux_file", "db_name"} & set(header):
        header[text] = b""
    for limit in {"cal_min", "cal_max", "glmin", "glmax"} & set(header):
        header[limit] = 0
    header.set_data_dtype(array.dtype)
    return _bytes_of(IMAGES[int(header["sizeof_hdr"])](array, header.get_best_affine(), header), end)


def write_volume(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Writes a new volume (X, Y, Z), of a type that NIfTI supports, into a folder that nothing reads yet."""
    path.write_bytes(_bytes_of(nib.Nifti1Image(array, affine), path.name))


@contextmanager
def by_slices(
    path: Path, shape: Sequence[int], affine: np.ndarray, dtype: np.dtype[np.generic], slope: float = 1.0
) -> Iterator[Callable[[int, np.ndarray], None]]:
    """A new .nii.gz of which no more than a slice is in memory; it appears whole or not at all.

    Args:
        path: of the file; beside it the voxels are kept unpacked meanwhile.
        shape: (X, Y, Z, channels).
        affine: (4, 4) from voxel to mm.
        dtype: as stored.
        slope: what a stored number is multiplied by to give the value.

    Yields:
        A function of z and the slice (channels, X, Y), of numbers as stored. A slice that is never written is 0.
    """
    x, y, z, channels = shape
    image = nib.Nifti1Image(np.broadcast_to(np.zeros(1, dtype), shape if channels > 1 else shape[:3]), affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(slope, 0)
    image.header["vox_offset"] = image.header.single_vox_offset
    size = x * y * np.dtype(dtype).itemsize
    with atomic(path) as draft, TemporaryFile(dir=path.parent) as voxels:
        voxels.truncate(size * z * channels)

        def write(number: int, planes: np.ndarray) -> None:
            for channel, plane in enumerate(planes.astype(dtype)):
                voxels.seek(size * (channel * z + number))
                voxels.write(plane.tobytes("F"))

        yield write
        voxels.seek(0)
        with draft.open("wb") as file, gzip.GzipFile("", "wb", 1, file, 0) as packed_file:
            packed_file.write(image.header.binaryblock + bytes(4))
            shutil.copyfileobj(voxels, packed_file, 2**22)


def _bytes_of(image: Any, end: str) -> bytes:
    content: bytes = image.to_bytes()
    return gzip.compress(content, 6, mtime=0) if end.lower().endswith(".gz") else content


def _load(path: Path, size: int = -1) -> tuple[Any, Header, bytes]:
    """nibabel's header, what it says, and the first ``size`` bytes of the file, unpacked; all of them by default."""
    with reading(path, "NIfTI"):
        raw = unpacked(path, size)
        header = _parsed(raw)
        with np.errstate(all="ignore"):  # of numbers that are none
            return header, _described(header), raw


def _parsed(raw: bytes) -> Any:
    """The header as nibabel holds it. What is merely rounded or left out by common writers is put right."""
    size = {int.from_bytes(raw[:4], order) for order in ("little", "big")} & IMAGES.keys()
    if not size or len(raw) < max(size):
        raise DataError("not a readable NIfTI file (its first bytes are no header). Copy or convert it again.")
    kind = IMAGES[size.pop()].header_class
    header = kind(raw[: kind.sizeof_hdr], check=False)
    if header["magic"].item() != kind.single_magic.rstrip(b"\0"):
        raise DataError("not a readable NIfTI file (its voxels are in another file, or it is Analyze). Convert it.")
    header["pixdim"][1:4] = np.abs(header["pixdim"][1:4])
    if header["pixdim"][0] == 0:  # the standard: 0 means 1
        header["pixdim"][0] = 1
    quaternion = np.array([header[f"quatern_{axis}"] for axis in "bcd"], np.float64)
    if 1 < (length := float(quaternion @ quaternion)) <= 1 + LONGEST:
        for axis, value in zip("bcd", quaternion / np.sqrt(length), strict=True):
            header[f"quatern_{axis}"] = value
    return header


def _described(header: Any) -> Header:
    shape, dtype = tuple(map(int, header.get_data_shape())), header.get_data_dtype()
    checked(Header(shape, np.eye(4), dtype))
    code = int(header["xyzt_units"]) & 7
    if code not in UNITS_MM:
        raise DataError(f"xyzt_units has the code {code} for lengths; 1 (metre), 2 (mm) and 3 (micron) are known.")
    affine, notes = _place(header, shape, np.diag([UNITS_MM[code]] * 3 + [1.0]))
    if header["bitpix"] not in (0, bits := 8 * dtype.itemsize):
        notes.append(f"bitpix says {header['bitpix']} bits a voxel, its type {dtype} has {bits}; the type was taken")
    if code in (1, 3):
        found = times(np.linalg.norm(affine[:3, :3], axis=0))
        notes.append(f"the header's unit is {'metres' if code == 1 else 'microns'}: voxels of {found} mm")
    return checked(Header(shape, affine, dtype, tuple(notes)))


def _place(header: Any, shape: tuple[int, ...], to_mm: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The affine in mm by the sform, otherwise the qform, otherwise the voxel sizes; and what contradicts it."""
    notes = []
    forms = {"sform": to_mm @ header.get_sform()} if header["sform_code"] > 0 else {}
    if not all(np.isfinite(form).all() for form in forms.values()):
        raise DataError("its sform holds numbers that are none, so voxels have no position. Set its sform anew.")
    if header["qform_code"] > 0:
        try:
            forms["qform"] = to_mm @ np.asarray_chkfinite(header.get_qform())
        except ValueError as e:
            if not forms:
                raise
            notes.append(f"the qform cannot be read ({e}); the sform was taken")
    for name in ("sform_code", "qform_code"):
        if not 0 <= header[name] <= 5:
            raise DataError(f"{name} is {header[name]}; the standard knows 0 to 5. Set it anew.")
    if not forms:
        forms["pixdim"] = to_mm @ header.get_base_affine()
        notes.append(f"{NO_ORIENTATION} (sform and qform code 0): pixdim was taken, with the axes in LAS order")
    taken, *others = forms.values()
    headers = [Header(shape, affine, header.get_data_dtype()) for affine in forms.values()]
    if others and not same_grid(*headers):
        sform, qform = (f"{grid(seen)}, axes {''.join(nib.aff2axcodes(seen.affine))}" for seen in headers)
        notes.append(f"the sform says {sform}; the qform says {qform}. The sform was taken")
    elif not np.allclose(sizes := to_mm[0, 0] * header["pixdim"][1:4], headers[0].spacing_mm, rtol=1e-3, atol=0):
        found = times(headers[0].spacing_mm)
        notes.append(f"pixdim says voxels of {times(sizes)} mm, the {next(iter(forms))} {found} mm, which was taken")
    return taken, notes


def _voxels(header: Any, raw: bytes, path: Path, dtype: np.dtype[np.generic] | None = None) -> np.ndarray:
    shape = header.get_data_shape()
    offset = int(header["vox_offset"]) if np.isfinite(header["vox_offset"]) else -1
    wanted = offset + int(np.prod(shape, dtype=object)) * header.get_data_dtype().itemsize
    if offset < header.single_vox_offset or len(raw) != wanted:
        raise DataError(
            f"{path}: the file is cut off or damaged: its header says {wanted} bytes, with voxels from byte {offset} "
            f"on, and there are {len(raw)}. Copy it again."
        )
    try:
        with np.errstate(over="ignore"):  # an infinite voxel is a fault of its own
            return np.asarray(ArrayProxy(BytesIO(raw), header, mmap=False), dtype=dtype)
    except Exception as e:  # such as a scale factor that is no number
        raise DataError(f"{path}: the file is cut off or damaged ({e}). Copy it again.") from None
