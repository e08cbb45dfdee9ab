"""Writes small scans in every format, by the libraries themselves: what is read is held against these."""

import locale
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

ENDINGS = (".nii", ".nii.gz", ".mgh", ".mgz", ".nrrd", ".nhdr", ".mha", ".mhd")
LPS = np.diag([-1.0, -1, 1, 1])


def oblique(spacing: tuple[float, float, float] = (0.7, 0.9, 2.5), angle: float = 0.3) -> np.ndarray:
    """An affine (4, 4) that is turned about two axes."""
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * spacing, (-31.5, 12.25, 7.125)
    return affine


def save(path: Path, array: np.ndarray, affine: np.ndarray, packed: bool = True, **tags: str) -> Path:
    """A volume (X, Y, Z[, channels]) in the format of its ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if ".nii" in path.name:
        nib.save(nib.Nifti1Image(array, affine), path)
    elif ".mg" in path.name:
        nib.save(nib.MGHImage(array, affine), path)
    else:
        import SimpleITK as sitk  # noqa: N813

        image = sitk.GetImageFromArray(np.moveaxis(array, (2, 1, 0), (0, 1, 2)), isVector=array.ndim == 4)
        place(image, affine)
        for key, value in tags.items():
            image.SetMetaData(key, value)
        sitk.WriteImage(image, str(path), useCompression=packed)
    return path


def place(image: Any, affine: np.ndarray) -> None:
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())


def series(folder: Path, array: np.ndarray, affine: np.ndarray, change: Any = None) -> Path:
    """A folder with the slices of a DICOM series, (X, Y, Z) int16, named out of order and of a named patient.

    ``change(number, tags)`` may change the tags of a slice, or answer an image in its place.
    """
    import SimpleITK as sitk  # noqa: N813

    before = locale.setlocale(locale.LC_ALL)
    folder.mkdir(parents=True, exist_ok=True)
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    directions = lps[:3, :3] / spacing
    for number in range(array.shape[2]):
        image = sitk.GetImageFromArray(np.ascontiguousarray(array[:, :, number].T))
        position = lps[:3, 3] + lps[:3, 2] * number
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0060": "CT",
            "0010|0010": "Doe^Jane",
            "0010|0020": "PID-4711",
            "0020|000d": "1.2.826.0.1.77",
            "0020|000e": "1.2.826.0.1.77.1",
            "0020|0032": "\\".join(f"{mm:.6f}" for mm in position),
            "0020|0037": "\\".join(f"{one:.10f}" for one in directions[:, :2].T.ravel()),
            "0028|0030": f"{spacing[1]:.6f}\\{spacing[0]:.6f}",
            "0018|0050": f"{spacing[2]:.6f}",
        }
        image = (change and change(number, tags)) or image
        y, x = map(float, tags["0028|0030"].split("\\"))  # ITK writes what the image says
        image.SetSpacing([x, y, 1][: image.GetDimension()])
        for key, value in tags.items():
            image.SetMetaData(key, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetImageIO("GDCMImageIO")
        writer.SetFileName(str(folder / f"IM{(number * 7) % 1000:04}.dcm"))
        writer.Execute(image)
    locale.setlocale(locale.LC_ALL, before)  # which GDCM changes as it writes
    return folder
