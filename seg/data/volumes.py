"""Volumes of every format that is read: which module reads and writes a file, by its ending, or a folder of slices."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from seg.data import dicom, itk, mgh, nifti, pictures
from seg.data.grids import Header, grid, same_grid
from seg.errors import DataError
from seg.files import atomic_write

WHOLE_TOLERANCE = 1e-4  # a label stored as float with a scale factor misses its whole number by rounding
LARGEST_VALUE = 2**31 - 1  # of a label


class Format(NamedTuple):
    """How files of one kind are read and written; ``seg.data.nifti`` says what each function promises."""

    header: Callable[[Path], Header]
    read: Callable[[Path, np.dtype[np.generic] | None], tuple[Header, np.ndarray]]
    packed: Callable[[np.ndarray, np.ndarray, str, Path | None], bytes]
    files: Callable[[Path], list[Path]] = lambda path: [path]


NIFTI = Format(nifti.read_header, nifti.read, nifti.packed)
MGH = Format(mgh.read_header, mgh.read, mgh.packed)
ITK = Format(itk.read_header, itk.read, itk.packed, itk.files)
DICOM = Format(dicom.read_header, dicom.read, nifti.packed, dicom.files)
PICTURE = Format(pictures.read_header, pictures.read, pictures.packed)
FORMATS = {".nii.gz": NIFTI, ".nii": NIFTI, ".mgz": MGH, ".mgh": MGH}
FORMATS |= {".nrrd": ITK, ".nhdr": ITK, ".mha": ITK, ".mhd": ITK}
FORMATS |= dict.fromkeys(pictures.ENDINGS, PICTURE)
HEADERS = (".nhdr", ".mhd")  # whose voxels are in a file beside them
MASKS = {".nhdr": ".nrrd", ".mhd": ".mha", "": ".nii.gz"}  # where a mask cannot end as its image
MASKS |= dict.fromkeys(pictures.ENDINGS[1:], ".png")
ALONE = tuple(end for end in FORMATS if end not in MASKS)  # of volumes that are one file
READ = f"{', '.join(FORMATS)}, or a folder with the slices of a DICOM series"


def ending(path: Path) -> str:
    """``.nii.gz`` or another of FORMATS as the file's name spells it, in capitals or not; nothing for another file."""
    length = next((len(end) for end in FORMATS if path.name.lower().endswith(end)), 0)
    return path.name[len(path.name) - length :]


def stem(path: Path) -> str:
    """File name without the ending of its format."""
    return path.name.removesuffix(ending(path))


def is_picture(path: Path) -> bool:
    """Whether this is a PNG, JPEG or TIFF by its ending; beside volumes such are only there to be looked at."""
    return path.name.lower().endswith(pictures.ENDINGS)


def is_volume(path: Path) -> bool:
    """Whether this is a file of a known ending but no picture, or a folder with slices of DICOM right in it."""
    return (bool(ending(path)) and not is_picture(path)) or dicom.is_series(path)


def has_colours(image: Path) -> bool:
    """Whether this is a picture whose one file has red, green and blue; not where it cannot be read."""
    try:
        return is_picture(image) and len(read_header(image).shape) == 4
    except DataError:  # reported with every other fault
        return False


def whole(images: Sequence[Path]) -> tuple[Path, ...]:
    """The images of a case; the first alone where that is a picture, which holds all colours, and no other is there."""
    first, *others = images
    return (first,) if is_picture(first) and not any(path.exists() for path in others) else tuple(images)


def mask_ending(image: Path) -> str:
    """The ending of a mask's file: that of its image; one file where that is two, NIfTI for a DICOM series."""
    end = ending(image).lower()
    return MASKS.get(end, end)


def stored_ending(image: Path) -> str:
    """The ending of a mask that a run keeps: ``.png`` of a picture, otherwise ``.nii.gz``."""
    return ".png" if is_picture(image) else ".nii.gz"


def files_of(volumes: Iterable[Path]) -> list[Path]:
    """All files of some volumes, for their hashes: with the voxels beside a header, and the slices of a series.

    Raises:
        DataError: it is not clear which these are.
        OSError: there is no such file.
    """
    return [file for path in volumes for file in _format(path).files(path)]


def read_header(path: Path) -> Header:
    """Header of a volume, without its voxels.

    Raises:
        DataError: the file is missing, empty, cut off, not of the format that its name says, of another shape than
            (X, Y, Z) or (X, Y, Z, channels), holds colours or complex numbers, or its affine cannot be inverted.
    """
    return _format(path).header(path)


def read_image(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Image of a case: float32 (C, X, Y, Z) and its affine, in the file's own orientation.

    Args:
        paths: one file per channel, or one file with the channels on a fourth axis (Decathlon).

    Raises:
        DataError: as ``read_header``; or a file is damaged, or the channels have different grids.
    """
    channels: list[np.ndarray] = []
    first = None
    for path in paths:
        header, voxels = _format(path).read(path, np.dtype(np.float32))
        first = first or header
        if not same_grid(first, header):
            raise DataError(f"{path}: {grid(header)}, but {paths[0]} has {grid(first)}: channels must share one grid.")
        channels.append(voxels[None] if voxels.ndim == 3 else np.moveaxis(voxels, -1, 0))
    assert first is not None, "a case has an image"
    return (channels[0] if len(channels) == 1 else np.concatenate(channels)), first.affine


def read_label(path: Path) -> np.ndarray:
    """Label of a case: integers (X, Y, Z) as in the file. A file of floats will do where all its values are whole.

    Raises:
        DataError: as ``read_header``; or the file is damaged, or has a fourth axis, values that are not whole numbers,
            or such as no class can have.
    """
    _, voxels = _format(path).read(path, None)
    if voxels.ndim == 4 and voxels.shape[3] == 1:
        voxels = voxels[..., 0]
    if voxels.ndim != 3:
        raise DataError(f"{path}: a label of shape {voxels.shape}. A label is one volume (X, Y, Z) of class values.")
    limits = (float(voxels.min()), float(voxels.max()))
    if np.isfinite(limits).all() and max(map(abs, limits)) > LARGEST_VALUE:
        raise DataError(
            f"{path}: label values from {limits[0]:g} to {limits[1]:g}; a class has a value up to 2147483647."
        )
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


def write_label(path: Path, array: np.ndarray, like: Path) -> None:
    """Writes label values (X, Y, Z) on the grid of ``like``, in the format of ``path``.

    Where that is the format of ``like``, its geometry is stored as there, and no free text of it. Labels, in
    ``like``'s own orientation, are stored in the smallest integer type that holds them. The same array gives the
    same bytes. The file appears whole or not at all.
    """
    seen, kind = read_header(like), _format(path)
    dtype = np.result_type(np.min_scalar_type(array.min(initial=0)), np.min_scalar_type(array.max(initial=0)))
    if array.shape != seen.shape[:3]:
        raise ValueError(f"label of shape {array.shape} for {like} of shape {seen.shape[:3]}")
    same = like if kind is _format(like) else None
    atomic_write(path, kind.packed(array.astype(dtype), seen.affine, ending(path), same))


def _format(path: Path) -> Format:
    """A file of no known ending is looked at as NIfTI."""
    if known := DICOM if os.path.isdir(path) else FORMATS.get(ending(path).lower()):
        return known
    if dicom.is_dicom(path):
        raise DataError(f"{path}: one slice of DICOM. Give the folder of its series, which is the volume.")
    return NIFTI
