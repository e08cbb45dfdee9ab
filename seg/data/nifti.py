"""Reads and writes NIfTI files, and turns axes to RAS+ and back: the only module that imports nibabel."""

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from seg.errors import DataError, times
from seg.files import atomic_write

WHOLE_TOLERANCE = 1e-4  # a label stored as float with a scale factor misses its whole number by rounding
SUFFIXES = (".nii.gz", ".nii")
RAS = [[axis, 1] for axis in range(3)]  # as nibabel writes an orientation


@dataclass(frozen=True, eq=False)
class Header:
    """A file's own words: ``shape`` (X, Y, Z[, channels]), ``affine`` (4, 4) from voxel to mm, ``dtype`` as stored."""

    shape: tuple[int, ...]
    affine: np.ndarray
    dtype: np.dtype[Any]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along the file's own three axes."""
        return spacing_mm(self.affine)


def spacing_mm(affine: np.ndarray) -> tuple[float, float, float]:
    """Voxel size along each axis of a grid with this affine (4, 4) from voxel to mm."""
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    return x, y, z


def stem(path: Path) -> str:
    """File name without ``.nii`` or ``.nii.gz``."""
    return path.name.removesuffix(".gz").removesuffix(".nii")


def read_header(path: Path) -> Header:
    """Header of a volume, without its voxels.

    Raises:
        DataError: the file is missing, empty, cut off, no NIfTI, of another shape than (X, Y, Z) or
            (X, Y, Z, channels), holds colours or complex numbers, or its affine cannot be inverted.
    """
    return _load(path)[1]


def read_image(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Image of a case: float32 (C, X, Y, Z) and its affine, in the file's own orientation.

    Args:
        paths: one file per channel, or one file with the channels on a fourth axis (Decathlon).

    Raises:
        DataError: as ``read_header``; or the channels have different grids.
    """
    loaded = [_load(path) for path in paths]
    first, channels = loaded[0][1], []
    for path, (image, header) in zip(paths, loaded, strict=True):
        if not same_grid(first, header):
            raise DataError(f"{path}: {grid(header)}, but {paths[0]} has {grid(first)}: channels must share one grid.")
        voxels = _voxels(image, path, np.dtype(np.float32))
        channels.append(voxels[None] if voxels.ndim == 3 else np.moveaxis(voxels, -1, 0))
    return (channels[0] if len(channels) == 1 else np.concatenate(channels)), first.affine


def read_label(path: Path) -> np.ndarray:
    """Label of a case: integers (X, Y, Z) as in the file. A file of floats will do where all its values are whole.

    Raises:
        DataError: as ``read_header``; or a fourth axis, or values that are not whole numbers.
    """
    voxels = _voxels(_load(path)[0], path)
    if voxels.ndim == 4 and voxels.shape[3] == 1:
        voxels = voxels[..., 0]
    if voxels.ndim != 3:
        raise DataError(f"{path}: a label of shape {voxels.shape}. A label is one volume (X, Y, Z) of class values.")
    if voxels.dtype.kind in "iu":
        return voxels
    with np.errstate(invalid="ignore"):
        off = ~(np.abs(voxels - np.rint(voxels)) <= WHOLE_TOLERANCE)
    if off.any():
        raise DataError(
            f"{path}: {off.sum()} label voxels are not whole numbers (first: {voxels[off][0]}). A label holds one"
            " class value a voxel: was it resampled with interpolation? Resample it with nearest neighbour."
        )
    return np.asarray(np.rint(voxels), np.int32)


def grid(header: Header) -> str:
    """Shape, spacing and origin in words, for messages."""
    origin = ", ".join(f"{mm:.4g}" for mm in header.affine[:3, 3])
    return f"shape {times(header.shape[:3])}, spacing {times(header.spacing_mm)} mm, origin ({origin})"


def same_grid(one: Header, other: Header) -> bool:
    """Whether two files share shape and place: every corner within a tenth of the smallest voxel size.

    A physical distance forgives the rounding of quaternions and still sees a flip, a shift or another spacing.
    """
    if one.shape[:3] != other.shape[:3]:
        return False
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*one.shape[:3], 1]
    apart_mm = np.linalg.norm(corners @ (one.affine - other.affine).T, axis=1).max()
    return bool(apart_mm <= 0.1 * min(one.spacing_mm))


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


def _turned(array: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    first = np.moveaxis(array, (-3, -2, -1), (0, 1, 2))  # where nibabel looks for the axes of space
    turned = nib.orientations.apply_orientation(first, orientation)
    return np.ascontiguousarray(np.moveaxis(turned, (0, 1, 2), (-3, -2, -1)))


def write_label(path: Path, array: np.ndarray, like: Path) -> None:
    """Writes label values (X, Y, Z) on the grid of ``like``: same affine, same sform and qform codes, same units.

    Free text of ``like`` (description, extensions) is left behind, since it may name a patient, and so is the range
    of grey values it is shown in. Labels, in ``like``'s own orientation, are stored in the smallest integer type that
    holds them. The same array gives the same bytes. The file appears whole or not at all.
    """
    source, _ = _load(like)
    dtype = np.result_type(np.min_scalar_type(array.min(initial=0)), np.min_scalar_type(array.max(initial=0)))
    if array.shape != source.shape[:3]:
        raise ValueError(f"label of shape {array.shape} for {like} of shape {source.shape[:3]}")
    header = source.header.copy()
    header.extensions.clear()
    header.set_intent("none")
    for text in {"descrip", "aux_file", "db_name"} & set(header):
        header[text] = b""
    for limit in {"cal_min", "cal_max", "glmin", "glmax"} & set(header):
        header[limit] = 0
    header.set_data_dtype(dtype)
    atomic_write(path, _packed(type(source)(array.astype(dtype), source.affine, header), path))


def write_volume(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Writes a new volume (X, Y, Z), of a type that NIfTI supports, into a folder that nothing reads yet."""
    path.write_bytes(_packed(nib.Nifti1Image(array, affine), path))


def _packed(image: Any, path: Path) -> bytes:
    content: bytes = image.to_bytes()
    return gzip.compress(content, 6, mtime=0) if path.name.endswith(".gz") else content


def _load(path: Path) -> tuple[Any, Header]:
    """The image, its voxels still unread, and its header, checked."""
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty (0 bytes). Copy it again.")
        image = nib.load(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except (ImageFileError, HeaderDataError, OSError, EOFError, zlib.error) as e:
        raise DataError(f"{path}: not a readable NIfTI file ({e}). Copy or convert it again.") from None
    if not isinstance(image, nib.Nifti1Image):
        raise DataError(f"{path}: a {type(image).__name__}, not NIfTI. Convert it to .nii.gz.")
    header = Header(tuple(map(int, image.shape)), np.asarray(image.affine, float), image.get_data_dtype())
    if len(header.shape) not in (3, 4) or 0 in header.shape:
        raise DataError(f"{path}: shape {header.shape}. A volume is (X, Y, Z), or (X, Y, Z, channels).")
    if header.dtype.kind not in "iuf":
        raise DataError(f"{path}: voxels of type {header.dtype}. Plain numbers are needed, one a voxel and channel.")
    if not np.isfinite(header.affine).all() or abs(np.linalg.det(header.affine)) < 1e-9:
        raise DataError(f"{path}: the affine cannot be inverted, so voxels have no position. Set its sform or qform.")
    return image, header


def _voxels(image: Any, path: Path, dtype: np.dtype[Any] | None = None) -> np.ndarray:
    try:
        return np.asarray(image.dataobj, dtype=dtype)
    except (OSError, EOFError, ValueError, zlib.error) as e:
        raise DataError(f"{path}: the file is cut off or damaged ({e}). Copy it again.") from None
