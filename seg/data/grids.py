"""What the header of a volume says, whatever its format: where its voxels are, and whether two files share a grid."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import ndimage

from seg.errors import DataError, times

Unit = Literal["mm", "pixels"]
NO_ORIENTATION = "no orientation is stored"  # how the note begins on a file that does not say how its axes lie
LPS = np.diag([-1.0, -1, 1, 1])  # from axes that point left and posterior, as ITK's do, to RAS+ and back
RIGHT_ANGLE = 0.005  # cosine between two axes; beyond it (0.3 degrees) they are sheared


@dataclass(frozen=True, eq=False)
class Header:
    """A file's own words: ``shape`` (X, Y, Z[, channels]), ``affine`` (4, 4) from voxel to mm, ``dtype`` as stored.

    ``notes`` say where the file contradicts itself, in both readings, and which of them ``affine`` follows. ``unit`` is
    "pixels" of a picture, which knows no mm: there what is called mm everywhere counts pixels.
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    dtype: np.dtype[np.generic]
    notes: tuple[str, ...] = ()
    unit: Unit = "mm"

    @property
    def oriented(self) -> bool:
        """Whether the file says how its axes lie; otherwise ``affine`` is a guess."""
        return self.unit == "mm" and not any(note.startswith(NO_ORIENTATION) for note in self.notes)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along the file's own three axes."""
        return spacing_mm(self.affine)


def spacing_mm(affine: np.ndarray) -> tuple[float, float, float]:
    """Voxel size along each axis of a grid with this affine (4, 4) from voxel to mm."""
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    return x, y, z


def sheared(affine: np.ndarray) -> bool:
    """Whether two axes of the grid are not at right angles, as after a tilt of the gantry: voxels are no boxes."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(directions.T @ directions - np.eye(3)).max() > RIGHT_ANGLE)


def grid(header: Header) -> str:
    """Shape, spacing and origin in words, for messages."""
    if header.unit == "pixels":
        return " — ".join((f"{times(header.shape[:2])} pixels", *header.notes))
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


def nonzero_box(filled: np.ndarray) -> tuple[slice, ...]:
    """The smallest box that holds what is true in ``filled`` (X, Y, Z); everything where nothing is."""
    boxes = ndimage.find_objects(filled.astype(np.uint8))
    return boxes[0] if boxes else tuple(slice(0, size) for size in filled.shape)


def checked(header: Header) -> Header:
    """The same header, where it is that of a volume.

    Raises:
        DataError: another shape than (X, Y, Z) or (X, Y, Z, channels), voxels that are no plain numbers, or an affine
            that cannot be inverted. The file is not named.
    """
    if len(header.shape) not in (3, 4) or min(header.shape) < 1:
        fix = " Store a flat image as one slice, (X, Y, 1)." if len(header.shape) == 2 else ""
        raise DataError(f"shape {header.shape}. A volume is (X, Y, Z), or (X, Y, Z, channels).{fix}")
    if header.dtype.kind not in "iuf":
        raise DataError(f"voxels of type {header.dtype}. Plain numbers are needed, one a voxel and channel.")
    axes = header.affine[:3, :3]
    sizes = np.linalg.norm(axes, axis=0)
    if not (np.isfinite(header.affine).all() and sizes.min() > 0 and abs(np.linalg.det(axes / sizes)) > 1e-6):
        raise DataError("the affine cannot be inverted, so voxels have no position. Store the file with another.")
    return header


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turns whatever goes wrong with a file of this kind into a DataError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except DataError as e:
        raise DataError(f"{path}: {e}") from None
    except (OSError, EOFError, zlib.error) as e:
        raise DataError(f"{path}: the file is cut off or damaged ({e}). Copy it again.") from None
    except Exception as e:  # nibabel raises of every kind over what a header may hold
        raise DataError(f"{path}: not a readable {kind} file ({e}). Copy or convert it again.") from None


def unpacked(path: Path, size: int = -1) -> bytes:
    """The first ``size`` bytes of a file, or all, unpacked if it is of gzip.

    A whole file is read to its end, so that the checksum there is compared: a flipped bit never passes.

    Raises:
        DataError: the file is empty. It is not named.
        OSError: it cannot be read, or is damaged.
    """
    with path.open("rb") as file:
        begin = file.read(2)
        if not begin:
            raise DataError("the file is empty (0 bytes). Copy it again.")
        file.seek(0)
        if begin != b"\x1f\x8b":
            return file.read(size)
        return gzip.decompress(file.read()) if size < 0 else gzip.GzipFile(fileobj=file).read(size)
