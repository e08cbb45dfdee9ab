"""A DICOM series, a folder of slices, as one volume: which slices it has, where they lie, and what is refused."""

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seg.data import itk
from seg.data.grids import LPS, RIGHT_ANGLE, Header, checked
from seg.errors import DataError, few, times

ENDINGS = (".dcm", ".dicom", ".ima")
SERIES, POSITION, DIRECTIONS, PIXEL = "0020|000e", "0020|0032", "0020|0037", "0028|0030"
ROWS, COLUMNS, FRAMES, GREY = "0028|0010", "0028|0011", "0028|0008", "0028|0004"
THICKNESS = ("0018|0050", "0018|0088")  # SliceThickness, SpacingBetweenSlices
WANTED = (SERIES, POSITION, DIRECTIONS, PIXEL, ROWS, COLUMNS, FRAMES, GREY, *THICKNESS)
OFF = 0.1  # of the distance of slices, by which one may miss its place: positions are rounded
CONVERT = "Convert the series, for instance by dcm2niix"


@dataclass(frozen=True, eq=False)
class Slice:
    """One file: its size (X, Y) in voxels of ``pixel_mm``, the directions of X and Y, the middle of its first voxel.

    All in mm along left, posterior, superior. ``thickness_mm`` is 0 where it is not said.
    """

    path: Path
    series: str
    shape: tuple[int, int]
    pixel_mm: np.ndarray
    directions: np.ndarray  # (2, 3), of length 1
    position: np.ndarray  # (3,)
    thickness_mm: float


def is_dicom(path: Path) -> bool:
    """Whether this is a file of DICOM: by its ending; or, where it has none or a number, by its first bytes."""
    end = path.suffix.lower().strip()
    if not os.path.isfile(path) or (end and end not in ENDINGS and not end[1:].isdigit()):
        return False
    if end in ENDINGS:
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def is_series(folder: Path) -> bool:
    """Whether this is a folder with slices right in it."""
    return os.path.isdir(folder) and any(map(_is_slice, sorted(folder.iterdir())))


def files(folder: Path) -> list[Path]:
    """The slices of a folder, by name.

    Raises:
        DataError: a file is no slice, and would be one by its name.
    """
    there = sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    slices = dict.fromkeys(filter(_is_slice, there))
    unlike = [path.name for path in there if path not in slices and (not path.suffix or path.suffix[1:].isdigit())]
    if strange := [name for name in unlike if name.upper() != "DICOMDIR"]:
        raise DataError(f"{folder}: {few(strange)} may be slices and are no DICOM. Copy them again, or take them out.")
    return [*slices]


def read_header(folder: Path) -> Header:
    """As that of NIfTI; of the type in which voxels are read.

    Raises:
        DataError: it is not one series of grey slices of one size, evenly spaced.
    """
    return _series(folder)[0]


def read(folder: Path, dtype: np.dtype[np.generic] | None = None) -> tuple[Header, np.ndarray]:
    """As that of NIfTI: in the units of the series (such as HU), by the slope and intercept of each slice."""
    header, slices = _series(folder)
    try:
        voxels = itk.stacked([one.path for one in slices])
    except DataError as error:
        raise DataError(f"{folder}: {error}") from None
    return header, voxels.astype(dtype or voxels.dtype, copy=False)


def _is_slice(path: Path) -> bool:
    return path.name[0] != "." and path.name.upper() != "DICOMDIR" and is_dicom(path)


def _series(folder: Path) -> tuple[Header, list[Slice]]:
    """Header, and the slices in the order in which they lie."""
    paths = files(folder)
    try:
        slices = _slices(paths)
        first = slices[0]
        normal = np.cross(*first.directions)
        slices.sort(key=lambda one: float(normal @ one.position))
        affine = np.eye(4)
        affine[:3, :2] = first.directions.T * first.pixel_mm
        affine[:3, 2], affine[:3, 3] = _step(slices, normal), slices[0].position
        header = Header((*first.shape, len(slices)), LPS @ affine, np.dtype(np.float32))
        return checked(header), slices
    except DataError as error:
        raise DataError(f"{folder}: {error}") from None


def _slices(paths: Sequence[Path]) -> list[Slice]:
    """The slices of one series.

    Raises:
        DataError: there is none, or more than one series, or some cannot be slices of one volume.
    """
    if not paths:
        raise DataError("has no slice of DICOM in it.")
    found: list[Slice] = []
    faults: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        one = _slice(path)
        if isinstance(one, Slice):
            found.append(one)
        else:
            faults[one].append(path.name)
    if faults:
        raise DataError("; ".join(f"{few(names)}: {fault}" for fault, names in faults.items()) + ".")
    _check_alike(found)
    return found


def _slice(path: Path) -> Slice | str:
    """What a file says of itself; or why it is no slice, in words that quote none of its tags."""
    tags = itk.tags(path, WANTED)
    if not tags:
        return "damaged, or no picture (a report, a plan). Copy it again, or take it out"
    if (tags.get(FRAMES) or "1") != "1":
        return f"several frames in one file (enhanced DICOM). {CONVERT}"
    if tags.get(GREY) != "MONOCHROME2":
        return "colours, or grey values that are inverted. Only MONOCHROME2 is read: export the series again"
    try:
        sizes = [_numbers(tags.get(key, ""), n) for key, n in ((PIXEL, 2), (DIRECTIONS, 6), (POSITION, 3))]
        shape = int(tags[COLUMNS]), int(tags[ROWS])
        thickness = next((float(tags[key]) for key in THICKNESS if tags.get(key)), 0.0)
    except (ValueError, KeyError):
        return f"position, directions or voxel size are missing, as in a projection or a screenshot. {CONVERT}"
    directions = sizes[1].reshape(2, 3)
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    return Slice(path, tags.get(SERIES, ""), shape, sizes[0][::-1], directions, sizes[2], abs(thickness))


def _numbers(text: str, count: int) -> np.ndarray:
    """Numbers of a tag, between backslashes.

    Raises:
        ValueError: others than ``count`` finite ones, or all zero where none may be.
    """
    found = np.asarray_chkfinite([float(part) for part in text.split("\\")])
    if len(found) != count or (count != 3 and not all(np.any(part) for part in np.split(found, 2))):
        raise ValueError
    return found


def _check_alike(slices: Sequence[Slice]) -> None:
    counts = Counter((one.series, one.shape) for one in slices)
    if len({series for series, _ in counts}) > 1:
        names = {key: next(one.path.name for one in slices if (one.series, one.shape) == key) for key in counts}
        listed = (f"{n} slices of {times(key[1])} ({names[key]} …)" for key, n in counts.items())
        raise DataError(
            f"several series: {'; '.join(listed)}. Put the slices of each into a folder of its own, and take one."
        )
    first = slices[0]
    if other := [one.path.name for one in slices if one.shape != first.shape]:
        raise DataError(f"slices of several sizes: {few(other)} are not of {times(first.shape)} as {first.path.name}.")
    if other := [one.path.name for one in slices if not _same_way(one, first)]:
        raise DataError(
            f"slices of several directions or voxel sizes: {few(other)} are unlike {first.path.name}, as where a "
            "localiser is among them. Put each stack into a folder of its own."
        )


def _same_way(one: Slice, other: Slice) -> bool:
    return np.allclose(one.directions, other.directions, rtol=0, atol=RIGHT_ANGLE) and np.allclose(
        one.pixel_mm, other.pixel_mm, rtol=1e-3, atol=0
    )


def _step(slices: Sequence[Slice], normal: np.ndarray) -> np.ndarray:
    """From one slice to the next, in mm, (3,).

    Raises:
        DataError: two slices at one place, a slice missing, or distances that are not even.
    """
    if len(slices) == 1:
        if not slices[0].thickness_mm:
            raise DataError("one slice alone that does not say how thick it is.")
        return normal * slices[0].thickness_mm
    positions = np.array([one.position for one in slices])
    apart = np.diff(positions @ normal)
    usual = float(np.median(apart[apart > 0])) if (apart > 0).any() else 0.0
    near = int(apart.argmin())
    if apart[near] <= OFF * usual:
        raise DataError(
            f"two slices at one place: {slices[near].path.name} and {slices[near + 1].path.name}. Take copies out, and "
            "put each phase or echo into a folder of its own."
        )
    step: np.ndarray = (positions[-1] - positions[0]) / (len(slices) - 1)
    places = positions[0] + np.arange(len(slices))[:, None] * step
    if np.linalg.norm(positions - places, axis=1).max() <= OFF * np.linalg.norm(step):
        return step
    far = int(apart.argmax())
    between = f"{apart[far]:.4g} mm between {slices[far].path.name} and {slices[far + 1].path.name}"
    if apart[far] >= 1.5 * usual:
        raise DataError(f"slices are missing: {between}, {usual:.4g} mm elsewhere. Export the series again, whole.")
    raise DataError(
        f"slices are not evenly spaced: {between}, down to {apart.min():.4g} mm elsewhere. Resample the series to a "
        "straight, even grid."
    )
