"""Reads and writes NRRD and MetaImage, and reads slices of DICOM: the only module that imports SimpleITK."""

import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from seg.data.grids import LPS, Header, checked, reading
from seg.errors import ConfigError, DataError

KIND = "NRRD or MetaImage"
NRRD = (".nrrd", ".nhdr")
HEADER = 1 << 20  # bytes; no header is longer
DATA_FILE = re.compile(
    rb"^[ \t]*(?:ElementDataFile[ \t]*[=:]|data ?file:)[ \t]*([^\r\n]+?)[ \t]*(?:\r?\n|\Z)", re.M | re.I
)
END = re.compile(rb"\r?\n\r?\n")  # of the header of NRRD
UNITS = re.compile(rb"^(?:(?:space )?units:|DistanceUnits *=)([^\r\n]*)", re.MULTILINE | re.IGNORECASE)
LENGTHS = re.compile(r"(?:[\u00b5\u03bcucn]|micro|nano|centi)?m(?:et(?:er|re)s?)?|microns?")  # none of them mm
PACKED = re.compile(rb"^(?:CompressedData *= *True|encoding: *gz)", re.MULTILINE | re.IGNORECASE)
TYPES = ("UInt8", "Int8", "UInt16", "Int16", "UInt32", "Int32", "UInt64", "Int64", "Float32", "Float64")
Geometry = tuple[np.ndarray, np.ndarray, np.ndarray]  # origin, spacing, direction (3, 3) as ITK has them


def read_header(path: Path) -> Header:
    """As that of NIfTI."""
    sitk = itk()
    with reading(path, KIND):
        return _described(sitk, _opened(sitk, path))


def read(path: Path, dtype: np.dtype[np.generic] | None = None) -> tuple[Header, np.ndarray]:
    """As that of NIfTI."""
    sitk = itk()
    with reading(path, KIND):
        reader = _opened(sitk, path)
        header = _described(sitk, reader)
        _check_stream(path)
        try:
            array = sitk.GetArrayFromImage(reader.Execute())  # (Z, Y, X), (Z, Y, X, channels) or (channels, Z, Y, X)
        except RuntimeError:  # its text is for those who wrote ITK
            raise DataError("the file is cut off or damaged. Copy it again.") from None
        channels_last = array.ndim == 4 and reader.GetDimension() == 3
        voxels = array.transpose(2, 1, 0, 3) if channels_last else array.T
        return header, voxels.astype(dtype or voxels.dtype, copy=False)


def packed(array: np.ndarray, affine: np.ndarray, end: str, like: Path | None) -> bytes:
    """As that of NIfTI; compressed."""
    sitk = itk()
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    origin, spacing, direction = _of_affine(affine) if like is None else _geometry(_opened(sitk, like))
    image.SetOrigin(origin.tolist())
    image.SetSpacing(spacing.tolist())
    image.SetDirection(direction.ravel().tolist())
    with TemporaryDirectory() as place:
        file = Path(place) / f"mask{end.lower()}"
        sitk.WriteImage(image, str(file), useCompression=True)
        return file.read_bytes()


def files(path: Path) -> list[Path]:
    """The file, and that of its voxels where the header names another.

    Raises:
        DataError: no such file; or the voxels are in several files, or in another folder.
    """
    with reading(path, KIND):
        return _files(path)


def _header(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(HEADER)
    return END.split(head, 1)[0] if head.startswith(b"NRRD") else head


def _files(path: Path) -> list[Path]:
    names = {*DATA_FILE.findall(_header(path))} or {b"LOCAL"}
    name = names.pop().decode("utf-8", "replace")
    if not names and name.upper() == "LOCAL":
        return [path]
    if names or name.startswith("LIST") or "%" in name or Path(name) != Path(Path(name).name):
        raise DataError(
            "its voxels are in several files, or in another folder. A volume is one file, or a header beside the file "
            "of its voxels: store it as .mha or .nrrd."
        )
    return [path, path.with_name(name)]


def tags(path: Path, wanted: Sequence[str]) -> dict[str, str]:
    """Tags of a DICOM file as text, those that it has; nothing for a file without a picture.

    Only what is ``wanted`` is looked at: others name the patient.
    """
    sitk = itk()
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return {}
    return {key: reader.GetMetaData(key).strip() for key in wanted if reader.HasMetaDataKey(key)}


def stacked(slices: Sequence[Path]) -> np.ndarray:
    """Voxels (X, Y, Z), float32, of DICOM slices in this order, rescaled as each says.

    Raises:
        DataError: one is damaged, or compressed in a way that is not known. The file is not named.
    """
    sitk = itk()
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([*map(str, slices)])
    reader.SetOutputPixelType(sitk.sitkFloat32)  # otherwise that of the first slice, into which others are cut
    try:
        return np.asarray(sitk.GetArrayFromImage(reader.Execute()).T, np.float32)
    except RuntimeError:
        raise DataError("a slice is damaged, or compressed in a way that is not known. Copy it again.") from None


def itk() -> Any:
    """SimpleITK.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import SimpleITK
    except ImportError:
        raise ConfigError(
            "NRRD, MetaImage and DICOM are read by SimpleITK, which is not installed: pip install 'seg[itk]'"
        ) from None
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # they may quote a tag, and go to the terminal
    return SimpleITK


def _opened(sitk: Any, path: Path) -> Any:
    """ITK's reader, which has read the header."""
    for file in _files(path):
        if not file.stat().st_size:
            raise DataError("the file is empty (0 bytes). Copy it again.")
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO" if path.suffix.lower() in NRRD else "MetaImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        raise DataError(f"not a readable {KIND} file. Copy or convert it again.") from None
    units = {*b" ".join(UNITS.findall(_header(path))).decode("utf-8", "replace").replace('"', " ").lower().split()}
    if strange := sorted(filter(LENGTHS.fullmatch, units)):
        raise DataError(f"its lengths are in {', '.join(strange)}, and only mm are read. Store it in mm.")
    return reader


def _described(sitk: Any, reader: Any) -> Header:
    shape, channels, kind = reader.GetSize(), reader.GetNumberOfComponents(), reader.GetPixelID()
    known = {getattr(sitk, f"sitk{form}{one}"): np.dtype(one.lower()) for form in ("", "Vector") for one in TYPES}
    if kind not in known or (channels > 1 and len(shape) != 3):
        raise DataError("its voxels are no plain numbers, one a voxel and channel.")
    origin, spacing, direction = _geometry(reader)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = direction * spacing, origin
    spaceless = reader.GetImageIO() == "NrrdImageIO" and "NRRD_space" not in reader.GetMetaDataKeys()
    notes = ("no space is named: the axes were taken as left, posterior, superior",) if spaceless else ()
    return checked(Header((*shape, channels) if channels > 1 else shape, LPS @ affine, known[kind], notes))


def _geometry(reader: Any) -> Geometry:
    """Of the three axes of space; a fourth is for channels."""
    dims = reader.GetDimension()
    if dims < 3:
        raise DataError(f"shape {reader.GetSize()}. A volume is (X, Y, Z), or (X, Y, Z, channels).")
    direction = np.array(reader.GetDirection()).reshape(dims, dims)
    return np.array(reader.GetOrigin())[:3], np.array(reader.GetSpacing())[:3], direction[:3, :3]


def _of_affine(affine: np.ndarray) -> Geometry:
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    return lps[:3, 3], spacing, lps[:3, :3] / spacing


def _check_stream(path: Path) -> None:
    """Compares the checksum of packed voxels, which ITK passes over."""
    raw = path.read_bytes()
    found = END.search(raw) if raw.startswith(b"NRRD") else DATA_FILE.search(raw)
    head, rest = (raw[: found.start()], raw[found.end() :]) if found else (raw, b"")
    if PACKED.search(head):
        *_, file = _files(path)
        stream = zlib.decompressobj(wbits=47)  # of zlib or gzip
        stream.decompress(rest if file == path else file.read_bytes())
        if not stream.eof:
            raise DataError("the file is cut off. Copy it again.")
