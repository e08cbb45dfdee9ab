"""Reads and writes MGH and MGZ, the format of FreeSurfer; the functions are those of ``seg.data.nifti``."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.freesurfer.mghformat import MGHHeader, MGHImage

from seg.data.grids import NO_ORIENTATION, Header, checked, reading, unpacked
from seg.errors import DataError

BEGIN = 284  # of the voxels
PLACE = slice(28, 90)  # bytes that say where voxels are: goodRASFlag, delta, Mdc, Pxyz_c
TYPES = (np.uint8, np.int16, np.int32)  # that FreeSurfer has always read


def read_header(path: Path) -> Header:
    """As that of NIfTI."""
    return _load(path, BEGIN)[0]


def read(path: Path, dtype: np.dtype[np.generic] | None = None) -> tuple[Header, np.ndarray]:
    """As that of NIfTI."""
    header, raw = _load(path)
    count = int(np.prod(header.shape, dtype=object))
    if len(raw) < (wanted := BEGIN + count * header.dtype.itemsize):
        raise DataError(f"{path}: the file is cut off: its header says {wanted} bytes, there are {len(raw)}.")
    voxels = np.frombuffer(raw, header.dtype, count, BEGIN).reshape(header.shape, order="F")
    return header, voxels.astype(dtype or header.dtype.newbyteorder("="))


def packed(array: np.ndarray, affine: np.ndarray, end: str, like: Path | None) -> bytes:
    """As that of NIfTI."""
    fitting = (one for one in TYPES if np.iinfo(one).min <= array.min() and array.max() <= np.iinfo(one).max)
    content: bytes = MGHImage(array.astype(next(fitting)), affine).to_bytes()
    if like is not None:
        content = content[: PLACE.start] + unpacked(like, BEGIN)[PLACE] + content[PLACE.stop :]
    return gzip.compress(content, 6, mtime=0) if end.lower() == ".mgz" else content


def _load(path: Path, size: int = -1) -> tuple[Header, bytes]:
    with reading(path, "MGH"):
        raw = unpacked(path, size)
        if len(raw) < BEGIN or raw[:4] != b"\0\0\0\1":
            raise DataError("not a readable MGH file (its first bytes are no header). Copy or convert it again.")
        header: Any = MGHHeader(raw[:BEGIN], check=False)
        placed = raw[PLACE.start : PLACE.start + 2] != b"\0\0"
        notes = () if placed else (f"{NO_ORIENTATION} (goodRASFlag 0): the axes were taken as FreeSurfer does",)
        shape = tuple(map(int, header.get_data_shape()))
        with np.errstate(all="ignore"):  # of numbers that are none
            return checked(Header(shape, np.asarray(header.get_affine(), float), header.get_data_dtype(), notes)), raw
